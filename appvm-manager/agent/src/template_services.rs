//! Services that the template names: a file each in [`FOLDER`], written when the template was built
//! (`image-builder/src/services.rs`): the user in the first line, then the command, a word a line.

use std::fs;
use std::path::Path;

use crate::console::say;
use crate::reaper::Reaper;
use crate::services::{Account, Service, Socket};
use crate::user;

/// Where a template's services are.
const FOLDER: &str = "/etc/bulkhead/services";
/// More are not looked at.
const MAX_SERVICES: usize = 64;
/// No file of a service is longer.
const MAX_BYTES: u64 = 512 * 1024;

/// Starts all of them.
pub fn start(reaper: &Reaper) {
    let Ok(entries) = fs::read_dir(FOLDER) else {
        return;
    };
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files.iter().take(MAX_SERVICES) {
        match service(file, &passwd) {
            Ok(service) => service.start(reaper.clone()),
            Err(why) => say(&format!("service {}: {why}", file.display())),
        }
    }
}

fn service(file: &Path, passwd: &str) -> Result<Service, String> {
    let length = fs::metadata(file).map_err(|e| e.to_string())?.len();
    if length > MAX_BYTES {
        return Err("the file is too long".to_owned());
    }
    let text = fs::read_to_string(file).map_err(|e| e.to_string())?;
    let mut lines = text.lines();
    let name = lines.next().unwrap_or_default();
    let argv: Vec<String> = lines.map(str::to_owned).collect();
    if argv.is_empty() {
        return Err("it has no command".to_owned());
    }
    let account = account(name, passwd).ok_or_else(|| format!("there is no user {name:?}"))?;
    let label = file.file_name().unwrap_or_default().to_string_lossy();
    Ok(Service {
        name: label.into_owned(),
        argv,
        socket: Socket::None,
        status: None,
        account,
    })
}

/// A user by its name: passwd(5).
fn account(name: &str, passwd: &str) -> Option<Account> {
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(name) && !name.is_empty())?;
    let mut fields = line.split(':').skip(2);
    let uid = fields.next()?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields.nth(1)?.to_owned();
    // The desktop user's services belong to its session; others must not speak for it.
    let environment = if uid == user::UID {
        user::environment(false)
    } else {
        [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("LANG", "C.UTF-8"),
            ("HOME", &home),
            ("USER", name),
            ("LOGNAME", name),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    };
    Some(Account {
        uid,
        gid,
        home,
        environment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\ntor:x:200:201::/var/lib/tor:/bin/false\nodd:x:y\n";

    #[test]
    fn a_service_runs_as_its_user() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tor");
        fs::write(&file, "tor\n/usr/bin/tor\n-f\na b\n").unwrap();
        let service = service(&file, PASSWD).unwrap();
        assert_eq!(service.name, "tor");
        assert_eq!(service.argv, ["/usr/bin/tor", "-f", "a b"]);
        let account = service.account;
        assert_eq!((account.uid, account.gid), (200, 201));
        assert_eq!(account.home, "/var/lib/tor");
        let home = account.environment.iter().find(|(key, _)| key == "HOME");
        assert_eq!(home.unwrap().1, "/var/lib/tor");
    }

    #[test]
    fn a_service_without_user_or_command_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x");
        for (text, expected) in [
            ("", "no command"),
            ("root\n", "no command"),
            ("nobody\n/x\n", "no user"),
            ("odd\n/x\n", "no user"),
            ("\n/x\n", "no user"),
        ] {
            fs::write(&file, text).unwrap();
            let error = service(&file, PASSWD).err().unwrap();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
