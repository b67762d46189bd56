//! Users, services and files of a template, as its recipe names them: checked here, written into the
//! root by `root-hook.sh`, services started by the agent (`appvm-manager/agent/src/template_services.rs`).
//!
//! A service becomes a file `/etc/bulkhead/services/NAME`: the user in the first line, then the
//! program and its arguments, a line each. There is no quoting, so that PID 1 needs no parser.

use std::{collections::HashSet, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::error::{Error, io};

/// A user that services run as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SystemUser {
    /// Its name, and that of its group.
    pub name: String,
    /// Its number, and that of its group: 200 to 999. Debian's packages take theirs from 100 on.
    pub uid: u32,
    /// Its home, made at build with its ownership; without one it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
}

/// A program that always runs in domains of the template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ServiceRecipe {
    /// Its name in messages.
    pub name: String,
    /// The program's absolute path and its arguments.
    pub command: Vec<String>,
    /// Who it runs as (default: root): a user of the recipe, of its packages, or `user`.
    #[serde(default = "root")]
    pub user: String,
}

/// A file of root's that everybody may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FileRecipe {
    /// Its absolute path.
    pub path: String,
    /// What is in it.
    pub text: String,
}

fn root() -> String {
    "root".to_owned()
}

/// No template needs more of either.
const MAX_COUNT: usize = 64;
/// Words of a command.
const MAX_WORDS: usize = 64;
/// Bytes of one word.
const MAX_WORD: usize = 4096;
/// Bytes of a file.
const MAX_FILE: usize = 64 * 1024;
/// Where services are, which have keys of their own.
const SERVICES: &str = "/etc/bulkhead/services";

/// Says what is wrong with users and services.
pub(crate) fn check(users: &[SystemUser], services: &[ServiceRecipe]) -> Result<(), String> {
    if users.len() > MAX_COUNT || services.len() > MAX_COUNT {
        return Err(format!("more than {MAX_COUNT} users or services"));
    }
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    for user in users {
        check_name("user", &user.name)?;
        if ["root", "user"].contains(&user.name.as_str()) {
            return Err(format!("every root has the user `{}` already", user.name));
        }
        if !(200..=999).contains(&user.uid) {
            return Err(format!(
                "the uid {} of user `{}` is not in 200 to 999",
                user.uid, user.name
            ));
        }
        if !names.insert(&user.name) || !numbers.insert(user.uid) {
            return Err(format!(
                "the name or the uid of user `{}` is there twice",
                user.name
            ));
        }
        if user
            .home
            .as_deref()
            .is_some_and(|home| !is_plain_path(home))
        {
            return Err(format!(
                "the home of user `{}` is no plain absolute path",
                user.name
            ));
        }
    }
    let mut names = HashSet::new();
    for service in services {
        check_name("service", &service.name)?;
        check_name("user", &service.user)?;
        if !names.insert(&service.name) {
            return Err(format!("service `{}` is there twice", service.name));
        }
        let program = service.command.first();
        if !program.is_some_and(|program| program.starts_with('/')) {
            return Err(format!(
                "the command of service `{}` does not begin with the program's absolute path",
                service.name
            ));
        }
        let bad = |word: &String| word.len() > MAX_WORD || word.contains(['\n', '\0']);
        if service.command.len() > MAX_WORDS || service.command.iter().any(bad) {
            return Err(format!(
                "the command of service `{}` is too long or has a line break in it",
                service.name
            ));
        }
    }
    Ok(())
}

/// Says what is wrong with files.
pub(crate) fn check_files(files: &[FileRecipe]) -> Result<(), String> {
    if files.len() > MAX_COUNT {
        return Err(format!("more than {MAX_COUNT} files"));
    }
    let mut paths = HashSet::new();
    for file in files {
        let shown: String = file.path.chars().take(80).collect();
        if !is_plain_path(&file.path) || file.path.ends_with('/') {
            return Err(format!("the file `{shown}` is no plain absolute path"));
        }
        if file.path.starts_with(SERVICES) {
            return Err(format!("the file `{shown}` is for [[service]] to make"));
        }
        if file.text.len() > MAX_FILE || file.text.contains('\0') {
            return Err(format!("the file `{shown}` is too long, or no text"));
        }
        if !paths.insert(&file.path) {
            return Err(format!("the file `{shown}` is there twice"));
        }
    }
    Ok(())
}

/// A path that needs no quoting anywhere.
fn is_plain_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._".contains(c);
    path.starts_with('/') && !path.contains("..") && path.chars().all(plain)
}

/// Names become file names and fields of `/etc/passwd`.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let valid = name.len() <= 32
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
    if valid {
        Ok(())
    } else {
        let shown: String = name.chars().take(40).collect();
        Err(format!("`{shown}` is not a name for a {what}"))
    }
}

/// Writes what the hook adds to the root into `folder`: `users`, a line with name, number and home
/// for each, `services`, a file for each, and `files`, a line with number and path for each, whose
/// text is in `texts` under the number. With none of them there is no folder.
pub(crate) fn write(
    folder: &Path,
    users: &[SystemUser],
    services: &[ServiceRecipe],
    files: &[FileRecipe],
) -> Result<(), Error> {
    if users.is_empty() && services.is_empty() && files.is_empty() {
        return Ok(());
    }
    let texts = folder.join("texts");
    fs::create_dir_all(&texts).map_err(io("creating", &texts))?;
    let mut lines = String::new();
    for (number, file) in files.iter().enumerate() {
        lines.push_str(&format!("{number} {}\n", file.path));
        let text = texts.join(number.to_string());
        fs::write(&text, &file.text).map_err(io("writing", &text))?;
    }
    let list = folder.join("files");
    fs::write(&list, lines).map_err(io("writing", &list))?;
    let list = folder.join("services");
    fs::create_dir_all(&list).map_err(io("creating", &list))?;
    let lines: String = users
        .iter()
        .map(|user| {
            let home = user.home.as_deref().unwrap_or("/nonexistent");
            format!("{} {} {home}\n", user.name, user.uid)
        })
        .collect();
    let file = folder.join("users");
    fs::write(&file, lines).map_err(io("writing", &file))?;
    for service in services {
        let text = format!("{}\n{}\n", service.user, service.command.join("\n"));
        let file = list.join(&service.name);
        fs::write(&file, text).map_err(io("writing", &file))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: u32, home: Option<&str>) -> SystemUser {
        SystemUser {
            name: name.into(),
            uid,
            home: home.map(String::from),
        }
    }

    fn service(name: &str, command: &[&str]) -> ServiceRecipe {
        ServiceRecipe {
            name: name.into(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            user: root(),
        }
    }

    #[test]
    fn good_ones_are_written_a_line_a_word() {
        let users = [user("tor", 200, Some("/var/lib/tor"))];
        let mut tor = service("tor", &["/usr/bin/tor", "-f", "/etc/a b"]);
        tor.user = "tor".into();
        check(&users, std::slice::from_ref(&tor)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let added = folder.path().join("added");
        write(&added, &[], &[], &[]).unwrap();
        assert!(!added.exists());
        let files = [file("/etc/a.conf", "x\ny\n")];
        check_files(&files).unwrap();
        write(&added, &users, &[tor], &files).unwrap();
        let read = |name: &str| fs::read_to_string(added.join(name)).unwrap();
        assert_eq!(read("files"), "0 /etc/a.conf\n");
        assert_eq!(read("texts/0"), "x\ny\n");
        assert_eq!(
            fs::read_to_string(added.join("users")).unwrap(),
            "tor 200 /var/lib/tor\n"
        );
        assert_eq!(
            fs::read_to_string(added.join("services/tor")).unwrap(),
            "tor\n/usr/bin/tor\n-f\n/etc/a b\n"
        );
    }

    fn file(path: &str, text: &str) -> FileRecipe {
        FileRecipe {
            path: path.into(),
            text: text.into(),
        }
    }

    #[test]
    fn files_have_plain_places() {
        for (path, text, expected) in [
            ("etc/x", "", "no plain absolute path"),
            ("/etc/../x", "", "no plain absolute path"),
            ("/etc/a b", "", "no plain absolute path"),
            ("/etc/", "", "no plain absolute path"),
            ("/etc/bulkhead/services/x", "", "for [[service]]"),
            ("/etc/x", "\0", "no text"),
            ("/etc/x", &"x".repeat(MAX_FILE + 1), "too long"),
        ] {
            let error = check_files(&[file(path, text)]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let twice = [file("/etc/x", "a"), file("/etc/x", "b")];
        assert!(check_files(&twice).unwrap_err().contains("twice"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (users, expected) in [
            (vec![user("Tor", 200, None)], "not a name for a user"),
            (vec![user("a:b", 200, None)], "not a name for a user"),
            (vec![user("user", 200, None)], "already"),
            (vec![user("tor", 0, None)], "not in 200 to 999"),
            (
                vec![user("a", 200, None), user("b", 200, None)],
                "there twice",
            ),
            (vec![user("a", 200, Some("/../etc"))], "plain absolute path"),
            (vec![user("a", 200, Some("/a:b"))], "plain absolute path"),
        ] {
            let error = check(&users, &[]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        for (bad, expected) in [
            (service("../x", &["/x"]), "not a name for a service"),
            (service("x", &[]), "absolute path"),
            (service("x", &["x"]), "absolute path"),
            (service("x", &["/x", "a\nb"]), "line break"),
        ] {
            let error = check(&[], &[bad]).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let twice = [service("x", &["/x"]), service("x", &["/y"])];
        assert!(check(&[], &twice).unwrap_err().contains("twice"));
    }
}
