//! Templates as data: what there is, taking in a new one whole or not at all, removing one.
//!
//! A template is a folder: `root.erofs`, `template.toml`, and `apps/` with desktop files and icons.
//! Those of the system are read-only; the user's own lie in `~/.local/share/bulkhead/templates`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulkhead_apps::folder::Folder;
use bulkhead_apps::{desktop, template};
use bulkhead_protocol::DomainName;
use serde::Deserialize;

use crate::dirs::private_dir;
use crate::images::{Images, check_erofs, check_root};
use crate::manager::{Event, Manager};
use crate::{Error, Result};

/// A longer `template.toml` is none.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// Files of `apps/` that are taken over.
const MAX_FILES: usize = 2 * template::MAX_ENTRIES;
/// Begins the names of folders that are being made or removed.
const UNFINISHED: &str = ".bulkhead-";

/// `template.toml`: what the image builder wrote about a finished template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TemplateFile {
    /// Its name, for people: the folder's name counts.
    #[serde(default)]
    pub name: String,
    /// For people who choose a template.
    #[serde(default)]
    pub description: String,
    /// The Debian release.
    #[serde(default)]
    pub suite: String,
    /// Debian packages.
    #[serde(default)]
    pub packages: Vec<String>,
    /// The time stamp of every file in the root.
    #[serde(default)]
    pub source_date_epoch: u64,
    /// The root image's size.
    #[serde(default)]
    pub size_bytes: Option<u64>,
    /// The root image's SHA-256.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Its applications may be launched in a new disposable.
    #[serde(default)]
    pub disposable: bool,
}

impl TemplateFile {
    /// From a template's folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = folder.join("template.toml");
        let length = fs::metadata(&file).map_err(Error::io("read", &file))?.len();
        let failed = |line, reason| Error::Config {
            file: file.clone(),
            line,
            reason,
        };
        if length > MAX_FILE_BYTES {
            return Err(failed(1, format!("{length} bytes are too many")));
        }
        let text = fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| 1 + before.matches('\n').count());
            let message = error.message().trim_end().replace('\n', ", ");
            failed(line, format!("{message}; correct the line"))
        })
    }
}

/// Whose a template is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It came with the system.
    System,
    /// The user took it in.
    User,
}

impl Origin {
    /// For D-Bus.
    pub fn name(self) -> &'static str {
        match self {
            Origin::System => "system",
            Origin::User => "user",
        }
    }
}

/// A template as callers see it.
#[derive(Debug, Clone)]
pub struct TemplateInfo {
    /// Its name.
    pub name: DomainName,
    /// Whose it is.
    pub origin: Origin,
    /// Where it is.
    pub folder: PathBuf,
    /// The root image's size.
    pub size_bytes: u64,
    /// How many applications its domains have.
    pub applications: u32,
    /// The domains that use it.
    pub domains: Vec<DomainName>,
    /// What its file says, or what is wrong with the file.
    pub description: std::result::Result<TemplateFile, String>,
}

/// How to take in a template.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Its name here; else the folder's or file's.
    pub name: Option<DomainName>,
    /// Put it in the place of one of the same name.
    pub replace: bool,
}

impl Images {
    /// Removes what an interrupted import left.
    pub(crate) fn sweep(&self) {
        let entries = self.own().and_then(|own| fs::read_dir(own).ok());
        for entry in entries.into_iter().flatten().flatten() {
            if entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(UNFINISHED.as_bytes())
            {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Manager {
    /// Every template.
    pub async fn templates(&self) -> Result<Vec<TemplateInfo>> {
        let mut all = Vec::new();
        for name in self.images.templates() {
            let Some(folder) = self.images.template_folder(&name) else {
                continue;
            };
            let applications = self
                .catalog
                .template(&folder, &name)
                .await
                .applications
                .len();
            let origin = if self.images.is_system(&name) {
                Origin::System
            } else {
                Origin::User
            };
            all.push(TemplateInfo {
                origin,
                size_bytes: fs::metadata(folder.join("root.erofs")).map_or(0, |data| data.len()),
                applications: u32::try_from(applications).unwrap_or(u32::MAX),
                domains: self.domains_of(&name)?,
                description: TemplateFile::read(&folder).map_err(|error| error.to_string()),
                folder,
                name,
            });
        }
        Ok(all)
    }

    /// The domains that use a template. A standalone one has a copy.
    fn domains_of(&self, template: &DomainName) -> Result<Vec<DomainName>> {
        let uses = |name: &DomainName| {
            self.store
                .load(name)
                .is_ok_and(|config| config.template == *template && !config.kind.owns_root())
        };
        Ok(self.store.names()?.into_iter().filter(uses).collect())
    }

    /// Whether a template's applications may be launched in a new disposable.
    pub(crate) fn allows_disposable(&self, folder: &Path) -> bool {
        TemplateFile::read(folder).is_ok_and(|file| file.disposable)
    }

    /// Copies a template from `source`, a folder or a root image alone, to the user's own.
    pub async fn import_template(
        self: &Arc<Self>,
        source: &Path,
        options: ImportOptions,
    ) -> Result<DomainName> {
        if !source.is_absolute() {
            let text = format!("{}: give an absolute path", source.display());
            return Err(Error::Template(text));
        }
        let name = match options.name {
            Some(name) => name,
            None => source
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default()
                .parse()?,
        };
        let own = self
            .images
            .own()
            .ok_or_else(|| Error::Template("there is no folder for your templates".to_owned()))?
            .to_owned();
        if self.images.is_system(&name) {
            let text = format!(
                "template `{name}` belongs to the system and cannot be replaced; choose another \
                 name with --name"
            );
            return Err(Error::Template(text));
        }
        let target = own.join(name.as_str());
        if target.exists() {
            if !options.replace {
                let text = format!(
                    "template `{name}` exists already; replace it with --replace, or choose another \
                     name with --name"
                );
                return Err(Error::Template(text));
            }
            self.refuse_while_running(&name)?;
        }
        private_dir(&own).map_err(Error::io("make the folder", &own))?;
        let partial = own.join(format!("{UNFINISHED}new-{name}"));
        let (from, to, template) = (source.to_owned(), partial.clone(), name.clone());
        let copied = tokio::task::spawn_blocking(move || copy(&from, &to, &template)).await;
        let copied = copied.unwrap_or_else(|error| Err(Error::Template(error.to_string())));
        let result = copied.and_then(|()| {
            // Copying took time: a domain may have started meanwhile.
            self.refuse_while_running(&name)?;
            put(&partial, &target)
        });
        let _ = fs::remove_dir_all(&partial);
        result?;
        tracing::info!(template = %name, "imported");
        self.tell(Event::Applications);
        Ok(name)
    }

    /// Removes one of the user's own templates.
    pub async fn remove_template(&self, name: &DomainName) -> Result<()> {
        if self.images.is_system(name) {
            let text = format!("template `{name}` belongs to the system and cannot be removed");
            return Err(Error::Template(text));
        }
        let Some(folder) = self.images.template_folder(name) else {
            let known = match self.images.known() {
                known if known.is_empty() => "there is none at all".to_owned(),
                known => format!("there are {known}"),
            };
            return Err(Error::NoSuchTemplate {
                name: name.clone(),
                known,
            });
        };
        let users = self.domains_of(name)?;
        if !users.is_empty() {
            return Err(in_use(
                name,
                &users,
                "remove them or give them another template first",
            ));
        }
        let doomed = folder.with_file_name(format!("{UNFINISHED}removed-{name}"));
        let _ = fs::remove_dir_all(&doomed);
        fs::rename(&folder, &doomed).map_err(Error::io("remove", &folder))?;
        fs::remove_dir_all(&doomed).map_err(Error::io("remove", &doomed))?;
        self.tell(Event::Applications);
        Ok(())
    }

    fn refuse_while_running(&self, template: &DomainName) -> Result<()> {
        let runs = |name: &DomainName| {
            self.domain(name)
                .is_ok_and(|domain| domain.state.borrow().is_active())
        };
        let running: Vec<_> = self
            .domains_of(template)?
            .into_iter()
            .filter(runs)
            .collect();
        if running.is_empty() {
            return Ok(());
        }
        Err(in_use(template, &running, "stop them first"))
    }
}

fn in_use(name: &DomainName, users: &[DomainName], remedy: &'static str) -> Error {
    let users: Vec<String> = users.iter().map(ToString::to_string).collect();
    Error::TemplateInUse {
        name: name.clone(),
        users: users.join(", "),
        remedy,
    }
}

/// Moves a finished folder to its place, in exchange with what is there.
fn put(partial: &Path, target: &Path) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let flags = if target.exists() {
        // The old one gets the unfinished one's name, and goes with it.
        RenameFlags::EXCHANGE
    } else {
        RenameFlags::NOREPLACE
    };
    renameat_with(CWD, partial, CWD, target, flags)
        .map_err(|error| Error::io("make the template", target)(error.into()))?;
    let folder = target.parent().unwrap_or(target);
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(Error::io("write", folder))
}

/// Checks a template and copies what belongs to one.
pub(crate) fn copy(source: &Path, partial: &Path, name: &DomainName) -> Result<()> {
    let kind = fs::metadata(source).map_err(Error::io("read", source))?;
    let (root, folder) = if kind.is_dir() {
        (source.join("root.erofs"), Some(source))
    } else {
        (source.to_owned(), None)
    };
    if !root.exists() {
        let text = format!(
            "{}: it has no root.erofs; a template is a folder with root.erofs and template.toml, or \
             a root image alone",
            source.display()
        );
        return Err(Error::Template(text));
    }
    let open = File::open(&root).map_err(Error::io("open", &root))?;
    if !open.metadata().is_ok_and(|data| data.is_file()) {
        let text = format!("{}: it is no regular file", root.display());
        return Err(Error::Template(text));
    }
    // A folder without a description is no template; what it says must be understood.
    let description = match folder {
        Some(folder) => {
            TemplateFile::read(folder)?;
            check_root(&open, &root)?;
            let file = folder.join("template.toml");
            fs::read(&file).map_err(Error::io("read", &file))?
        }
        None => {
            check_erofs(&open, &root)?;
            format!("name = \"{name}\"\n").into_bytes()
        }
    };
    check_space(partial, &open)?;
    let _ = fs::remove_dir_all(partial);
    private_dir(partial).map_err(Error::io("make the folder", partial))?;
    copy_root(&open, &partial.join("root.erofs"))?;
    write(&partial.join("template.toml"), &description)?;
    let apps = folder.and_then(|folder| Folder::open(folder).ok()?.folder("apps").ok());
    if let Some(apps) = apps {
        let to = partial.join("apps");
        let kinds: [(&str, &[&str], usize); 2] = [
            ("applications", &[".desktop"], desktop::MAX_FILE_BYTES),
            ("icons", &[".png", ".svg"], template::MAX_ICON_BYTES),
        ];
        for (part, endings, most) in kinds {
            if let Ok(from) = apps.folder(part) {
                copy_files(&from, endings, most, &to.join(part))?;
            }
        }
    }
    Ok(())
}

/// Regular files with safe names and of bearable sizes; others are of no use here.
fn copy_files(from: &Folder, endings: &[&str], most: usize, to: &Path) -> Result<()> {
    private_dir(to).map_err(Error::io("make the folder", to))?;
    let names = endings
        .iter()
        .filter_map(|ending| from.names(ending).ok())
        .flat_map(|(names, _)| names);
    for name in names.take(MAX_FILES) {
        match from.read(&name, most) {
            Ok(bytes) => write(&to.join(&name), &bytes)?,
            Err(error) => tracing::warn!(file = name, %error, "not taken over"),
        }
    }
    Ok(())
}

fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    let mut open = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .map_err(Error::io("write", file))?;
    open.write_all(bytes).map_err(Error::io("write", file))
}

/// From the descriptor that was checked, so that nobody can exchange the file in between. The
/// kernel shares the blocks where the filesystem can.
fn copy_root(from: &File, to: &Path) -> Result<()> {
    let mut from = from;
    let mut open = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(Error::io("write", to))?;
    std::io::copy(&mut from, &mut open)
        .and_then(|_| open.sync_all())
        .map_err(Error::io("write", to))?;
    // Its own size may have changed while it was copied.
    check_erofs(&open_again(to)?, to)
}

fn open_again(file: &Path) -> Result<File> {
    File::open(file).map_err(Error::io("open", file))
}

fn check_space(partial: &Path, root: &File) -> Result<()> {
    let needed = root.metadata().map_or(0, |data| data.len());
    let dir = partial.parent().unwrap_or(partial);
    let free = rustix::fs::statvfs(dir).map_err(|error| Error::io("read", dir)(error.into()))?;
    let free = free.f_bavail.saturating_mul(free.f_frsize);
    if free < needed {
        return Err(Error::Template(format!(
            "{}: the disk is full: {} MiB are free, the template needs {}; remove files or domains",
            dir.display(),
            free >> 20,
            needed >> 20
        )));
    }
    Ok(())
}
