//! What a file manager offers for a file: to another domain, or into a new disposable.
//!
//! Written at each start into the layer in memory, since the programs behind it come with the guest's
//! initramfs and not with its template.

use std::fs;
use std::io;
use std::path::Path;

use crate::files::directory;
use crate::mounts::BIN;

/// Where desktop files of the agent's own lie; it is in `XDG_DATA_DIRS`.
pub const DATA: &str = "/run/bulkhead/share";
/// Where Thunar looks for actions if the user has none (Thunar's documentation, "Custom Actions").
const THUNAR: &str = "/etc/xdg/Thunar";

/// Something that can be done with files.
struct Action {
    id: &'static str,
    name: &'static str,
    comment: &'static str,
    command: &'static str,
    /// What stands for the files: in desktop files and in Thunar the same.
    field: &'static str,
    folders: bool,
}

const ACTIONS: [Action; 3] = [
    Action {
        id: "bulkhead-copy",
        name: "Copy to Another Domain",
        comment: "The files appear there in Incoming",
        command: "bulkhead-copy --",
        field: "%F",
        folders: true,
    },
    Action {
        id: "bulkhead-move",
        name: "Move to Another Domain",
        comment: "The files appear there in Incoming, and are removed here",
        command: "bulkhead-move --",
        field: "%F",
        folders: true,
    },
    Action {
        id: "bulkhead-open",
        name: "Open in a New Disposable",
        comment: "A copy is opened, where it can do no harm",
        command: "bulkhead-open --",
        field: "%f",
        folders: false,
    },
];

/// Offers them, if the guest has the programs.
pub fn offer() -> io::Result<()> {
    if !Path::new(BIN).join("bulkhead-rpc").exists() {
        return Ok(());
    }
    let applications = Path::new(DATA).join("applications");
    directory(&applications, 0o755)?;
    for action in &ACTIONS {
        let file = applications.join(format!("{}.desktop", action.id));
        fs::write(file, action.desktop_file())?;
    }
    fs::write(applications.join("mimeinfo.cache"), mime_cache())?;
    if Path::new(THUNAR).is_dir() {
        fs::write(Path::new(THUNAR).join("uca.xml"), thunar())?;
    }
    Ok(())
}

impl Action {
    /// Not in menus: a file manager offers it for files (Desktop Entry Specification 1.5).
    fn desktop_file(&self) -> String {
        format!(
            "[Desktop Entry]\nType=Application\nName={}\nComment={}\nIcon=edit-copy\n\
             Exec={BIN}/{} {}\nMimeType={}\nNoDisplay=true\nTerminal=false\n",
            self.name,
            self.comment,
            self.command,
            self.field,
            self.types(),
        )
    }

    fn types(&self) -> &'static str {
        if self.folders {
            "application/octet-stream;inode/directory;"
        } else {
            "application/octet-stream;"
        }
    }

    fn thunar_action(&self) -> String {
        let folders = if self.folders {
            "\t<directories/>\n"
        } else {
            ""
        };
        format!(
            "<action>\n\t<icon>edit-copy</icon>\n\t<name>{}</name>\n\t<unique-id>{}</unique-id>\n\
             \t<command>{BIN}/{} {}</command>\n\t<description>{}</description>\n\
             \t<patterns>*</patterns>\n{folders}\t<audio-files/>\n\t<image-files/>\n\
             \t<other-files/>\n\t<text-files/>\n\t<video-files/>\n</action>\n",
            self.name, self.id, self.command, self.field, self.comment
        )
    }
}

fn thunar() -> String {
    let actions: String = ACTIONS.iter().map(Action::thunar_action).collect();
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<actions>\n{actions}</actions>\n")
}

/// What `update-desktop-database` would write.
fn mime_cache() -> String {
    let with = |mime: &str| -> String {
        let able = ACTIONS
            .iter()
            .filter(|action| action.types().contains(mime));
        able.map(|action| format!("{}.desktop;", action.id))
            .collect()
    };
    let lines: String = ["application/octet-stream", "inode/directory"]
        .map(|mime| format!("{mime}={}\n", with(mime)))
        .concat();
    format!("[MIME Cache]\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_is_in_all_three_forms() {
        let thunar = thunar();
        assert_eq!(thunar.matches("<action>").count(), ACTIONS.len());
        assert_eq!(thunar.matches("<directories/>").count(), 2);
        assert!(thunar.contains("<command>/run/bulkhead/bin/bulkhead-copy -- %F</command>"));
        let cache = mime_cache();
        assert!(cache.contains("inode/directory=bulkhead-copy.desktop;bulkhead-move.desktop;\n"));
        for action in &ACTIONS {
            let file = action.desktop_file();
            assert!(
                file.contains(&format!("Exec={BIN}/{}", action.id)),
                "{file}"
            );
            // XML and desktop files have characters that would have to be escaped.
            for text in [action.name, action.comment, action.command] {
                assert!(!text.contains(['<', '&', '\\', '"', '\n']), "{text}");
            }
        }
    }
}
