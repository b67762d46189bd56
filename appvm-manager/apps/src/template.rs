//! What one template's `apps/` folder says, as a whole.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::desktop::{self, Entry, MAX_FILE_BYTES};
use crate::folder::Folder;

/// The most desktop files that are read of one template.
pub const MAX_ENTRIES: usize = 512;
/// An icon's file is not read if it is longer.
pub const MAX_ICON_BYTES: usize = 256 * 1024;
/// All icons of a template together.
const MAX_ICONS_BYTES: usize = 32 * 1024 * 1024;
/// What each wrong file is worth in the log, before only their number is.
const MAX_COMPLAINTS: usize = 20;
/// The terminal in which programs without a window run.
const TERMINAL: &str = "foot";

/// An application of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Application {
    /// The desktop file's name without `.desktop`.
    pub id: String,
    /// What its file says.
    pub entry: Entry,
    /// What runs in the guest: the entry's command, in a terminal where it needs one.
    pub command: Vec<String>,
    /// The SHA-256 of its icon's file, or nothing.
    pub icon: String,
}

/// A file in `apps/icons`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IconFile {
    name: String,
}

/// A template's applications, by their names, and where their icons are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    /// At most [`MAX_ENTRIES`].
    pub applications: Vec<Application>,
    /// Icons by the SHA-256 of their files.
    pub icons: BTreeMap<String, IconFile>,
}

/// Reads a template's folder. Files that are wrong are left out; a template without `apps/` has
/// no applications.
pub fn read(folder: &Path, template: &str) -> Template {
    let Ok(apps) = Folder::open(folder).and_then(|template| template.folder("apps")) else {
        return Template::default();
    };
    let mut complaints = Complaints::new(template);
    let entries = entries(&apps, &mut complaints);
    // What the terminal is, the template's own files say: it must be one of its programs.
    let terminal = entries
        .iter()
        .filter_map(|(_, entry)| entry.exec.first())
        .find(|program| program.rsplit('/').next() == Some(TERMINAL))
        .cloned();
    let mut icons = Icons::new(apps.folder("icons").ok());
    let mut applications = Vec::new();
    for (id, entry) in entries {
        let mut command = Vec::new();
        if entry.terminal {
            let Some(terminal) = &terminal else {
                complaints.add(&id, "it needs a terminal, and the template has no foot");
                continue;
            };
            command.push(terminal.clone());
        }
        command.extend(entry.exec.iter().cloned());
        let icon = match entry.icon.as_deref().map(|name| icons.find(name)) {
            Some(Ok(sha)) => sha,
            Some(Err(reason)) => {
                complaints.add(&id, &reason);
                String::new()
            }
            None => String::new(),
        };
        applications.push(Application {
            id,
            entry,
            command,
            icon,
        });
    }
    applications.sort_by(|a, b| {
        let key = |app: &Application| (app.entry.name.to_lowercase(), app.id.clone());
        key(a).cmp(&key(b))
    });
    complaints.finish();
    Template {
        applications,
        icons: icons.known,
    }
}

/// The bytes of an icon that [`read`] found, if its file is still the same.
pub fn icon_bytes(folder: &Path, icon: &IconFile, sha: &str) -> std::io::Result<Vec<u8>> {
    let bytes = Folder::open(folder)?
        .folder("apps")?
        .folder("icons")?
        .read(&icon.name, MAX_ICON_BYTES)?;
    if digest(&bytes) == sha {
        Ok(bytes)
    } else {
        Err(std::io::Error::other("its file has changed"))
    }
}

fn entries(apps: &Folder, complaints: &mut Complaints<'_>) -> Vec<(String, Entry)> {
    let found = apps
        .folder("applications")
        .and_then(|folder| folder.names(".desktop").map(|names| (folder, names)));
    let Ok((folder, (names, more))) = found else {
        return Vec::new();
    };
    if more || names.len() > MAX_ENTRIES {
        tracing::warn!(
            template = complaints.template,
            "it has more than {MAX_ENTRIES} desktop files; only the first are used"
        );
    }
    let mut entries = Vec::new();
    for name in names.iter().take(MAX_ENTRIES) {
        let id = name.strip_suffix(".desktop").unwrap_or(name);
        let parsed = match folder.read(name, MAX_FILE_BYTES) {
            Ok(bytes) => desktop::parse(&bytes).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match parsed {
            Ok(Some(entry)) => entries.push((id.to_owned(), entry)),
            Ok(None) => {}
            Err(reason) => complaints.add(id, &reason),
        }
    }
    entries
}

/// Finds icons by name, and reads each file once.
struct Icons {
    folder: Option<Folder>,
    by_name: BTreeMap<String, Result<String, String>>,
    known: BTreeMap<String, IconFile>,
    bytes: usize,
}

impl Icons {
    fn new(folder: Option<Folder>) -> Self {
        Icons {
            folder,
            by_name: BTreeMap::new(),
            known: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// The icon's SHA-256; nothing where the template has no such icon; or why it is not used.
    fn find(&mut self, name: &str) -> Result<String, String> {
        if let Some(found) = self.by_name.get(name) {
            return found.clone();
        }
        let found = self.load(name);
        self.by_name.insert(name.to_owned(), found.clone());
        found
    }

    fn load(&mut self, name: &str) -> Result<String, String> {
        let Some(folder) = &self.folder else {
            return Ok(String::new());
        };
        for ending in ["png", "svg"] {
            let file = format!("{name}.{ending}");
            match folder.read(&file, MAX_ICON_BYTES) {
                Ok(bytes) => {
                    self.bytes = self.bytes.saturating_add(bytes.len());
                    if self.bytes > MAX_ICONS_BYTES {
                        return Err("the template's icons are too large together".to_owned());
                    }
                    let sha = digest(&bytes);
                    self.known.insert(sha.clone(), IconFile { name: file });
                    return Ok(sha);
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(format!("icon {file}: {error}")),
            }
        }
        Ok(String::new())
    }
}

/// SHA-256 in hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// A line for each wrong file, but not for ten thousand of them.
struct Complaints<'a> {
    template: &'a str,
    count: usize,
}

impl<'a> Complaints<'a> {
    fn new(template: &'a str) -> Self {
        Complaints { template, count: 0 }
    }

    fn add(&mut self, id: &str, reason: &str) {
        self.count += 1;
        if self.count <= MAX_COMPLAINTS {
            tracing::warn!(template = self.template, app = id, reason, "left out");
        }
    }

    fn finish(self) {
        if self.count > MAX_COMPLAINTS {
            tracing::warn!(
                template = self.template,
                count = self.count,
                "more desktop files are wrong"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::{Duration, Instant};

    use super::*;

    fn template() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("apps/applications")).unwrap();
        fs::create_dir_all(dir.path().join("apps/icons")).unwrap();
        dir
    }

    fn add(dir: &tempfile::TempDir, id: &str, lines: &str) {
        let text = format!("[Desktop Entry]\nType=Application\n{lines}\n");
        let file = dir.path().join(format!("apps/applications/{id}.desktop"));
        fs::write(file, text).unwrap();
    }

    #[test]
    fn applications_with_icons_and_terminals() {
        let dir = template();
        add(&dir, "foot", "Name=foot\nExec=foot\nIcon=foot");
        add(
            &dir,
            "top",
            "Name=top\nExec=top -b\nTerminal=true\nIcon=foot",
        );
        add(&dir, "Zed", "Name=an editor\nExec=zed %F\nIcon=missing");
        add(&dir, "broken", "Name=x\nExec=sh -c 'x'");
        fs::write(dir.path().join("apps/icons/foot.svg"), "<svg/>").unwrap();
        let template = read(dir.path(), "t");
        let apps: Vec<_> = template
            .applications
            .iter()
            .map(|app| (app.id.as_str(), app.command.join(" "), app.icon.as_str()))
            .collect();
        let sha = digest(b"<svg/>");
        assert_eq!(
            apps,
            [
                ("Zed", "zed".to_owned(), ""),
                ("foot", "foot".to_owned(), sha.as_str()),
                ("top", "foot top -b".to_owned(), sha.as_str()),
            ]
        );
        let icon = &template.icons[&sha];
        assert_eq!(icon_bytes(dir.path(), icon, &sha).unwrap(), b"<svg/>");
        fs::write(dir.path().join("apps/icons/foot.svg"), "<svg />").unwrap();
        assert!(icon_bytes(dir.path(), icon, &sha).is_err());
    }

    #[test]
    fn without_a_terminal_such_programs_are_left_out() {
        let dir = template();
        add(&dir, "top", "Name=top\nExec=top\nTerminal=true");
        assert!(read(dir.path(), "t").applications.is_empty());
    }

    #[test]
    fn links_lead_nowhere() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(
            outside.path().join("x.desktop"),
            "[Desktop Entry]\nType=Application\nName=x\nExec=x",
        )
        .unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("apps")).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("apps/applications")).unwrap();
        assert_eq!(read(dir.path(), "t"), Template::default());
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("apps")).unwrap();
        assert_eq!(read(dir.path(), "t"), Template::default());
        assert_eq!(read(&dir.path().join("missing"), "t"), Template::default());
    }

    #[test]
    fn ten_thousand_files_cost_little() {
        let dir = template();
        let big = format!("Name=x\nExec=x\nComment={}", "y".repeat(7000));
        for number in 0..10_000 {
            add(&dir, &format!("app{number:05}"), &big);
        }
        let start = Instant::now();
        let template = read(dir.path(), "t");
        let took = start.elapsed();
        assert_eq!(template.applications.len(), MAX_ENTRIES);
        assert_eq!(template.applications[0].id, "app00000");
        assert!(
            template
                .applications
                .iter()
                .all(|app| app.entry.comment.len() <= 200)
        );
        assert!(took < Duration::from_secs(2), "{took:?}");
    }

    #[test]
    fn many_large_icons_are_not_all_read() {
        let dir = template();
        for number in 0..200 {
            add(
                &dir,
                &format!("a{number:03}"),
                &format!("Name=a\nExec=a\nIcon=i{number}"),
            );
            let icon =
                fs::File::create(dir.path().join(format!("apps/icons/i{number}.png"))).unwrap();
            icon.set_len(MAX_ICON_BYTES as u64).unwrap();
        }
        add(&dir, "huge", "Name=h\nExec=h\nIcon=huge");
        let huge = fs::File::create(dir.path().join("apps/icons/huge.png")).unwrap();
        huge.set_len(1 << 40).unwrap();
        let template = read(dir.path(), "t");
        assert_eq!(template.applications.len(), 201);
        let with_icon = template
            .applications
            .iter()
            .filter(|app| !app.icon.is_empty())
            .count();
        assert_eq!(with_icon, MAX_ICONS_BYTES / MAX_ICON_BYTES);
    }
}
