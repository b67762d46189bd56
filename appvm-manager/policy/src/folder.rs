//! Where policy files come from: folders on disk, or texts in the program.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use crate::error::{FileProblem, LoadError, Problem};
use crate::limits::{MAX_FILE_BYTES, MAX_FOLDER_ENTRIES, MAX_PATH};

/// The policy that comes with the program, as a file.
pub const DEFAULT_POLICY: &str = include_str!("../default.policy");

/// The name under which [`DEFAULT_POLICY`] takes part, as in Qubes.
pub const DEFAULT_POLICY_FILE: &str = "90-default.policy";

/// A `policy.d`.
#[derive(Debug, Clone)]
pub struct Folder(Source);

#[derive(Debug, Clone)]
enum Source {
    Disk(PathBuf),
    Memory(BTreeMap<String, String>),
}

impl Folder {
    /// A folder of files. It must exist when the policy is loaded.
    pub fn on_disk(path: impl Into<PathBuf>) -> Self {
        Folder(Source::Disk(path.into()))
    }

    /// Texts with paths such as `30-user.policy` and `include/admin`.
    pub fn in_memory<P, T>(files: impl IntoIterator<Item = (P, T)>) -> Self
    where
        P: Into<String>,
        T: Into<String>,
    {
        let files = files
            .into_iter()
            .map(|(path, text)| (path.into(), text.into()))
            .collect();
        Folder(Source::Memory(files))
    }

    /// The policy that comes with the program: [`DEFAULT_POLICY`].
    pub fn built_in() -> Self {
        Folder::in_memory([(DEFAULT_POLICY_FILE, DEFAULT_POLICY)])
    }

    /// The policy files of a folder in here (`""`: of this folder), in the order of their names'
    /// bytes (`parser.py`, `filter_filepaths`): names that end in `.policy` and do not begin with a
    /// dot; such a name with other characters than `a-z0-9_.-` is an error, since its place in the
    /// order would depend on who lists it.
    pub(crate) fn policy_files(&self, folder: &str) -> Result<BTreeSet<String>, LoadError> {
        let files: BTreeSet<String> = self
            .files(folder)?
            .into_iter()
            .filter(|name| name.ends_with(".policy") && !name.starts_with('.'))
            .collect();
        let fine =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'.' | b'-');
        match files.iter().find(|name| !name.bytes().all(fine)) {
            Some(name) => Err(LoadError::File {
                file: crate::token::shown(name),
                problem: FileProblem::Name,
            }),
            None => Ok(files),
        }
    }

    /// The names of all files directly in a folder. A name that is not UTF-8 is shown with
    /// replacement characters, which no policy file may have.
    fn files(&self, folder: &str) -> Result<Vec<String>, LoadError> {
        let root = match &self.0 {
            Source::Memory(files) => {
                let names = files.keys().filter_map(|path| {
                    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                    (parent == folder).then(|| name.to_owned())
                });
                return Ok(names.collect());
            }
            Source::Disk(root) => root,
        };
        let path = root.join(folder);
        let failed = |error| LoadError::Folder {
            folder: path.clone(),
            error,
        };
        let mut names = Vec::new();
        for (count, entry) in fs::read_dir(&path).map_err(failed)?.enumerate() {
            if count >= MAX_FOLDER_ENTRIES {
                return Err(LoadError::FullFolder { folder: path });
            }
            let entry = entry.map_err(failed)?;
            // Follows links, as reading does; a link to nowhere is reported when it is read.
            let is_folder = fs::metadata(entry.path()).is_ok_and(|data| data.is_dir());
            if !is_folder {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(names)
    }

    /// Whether a path from [`inside`] is a folder in here.
    pub(crate) fn has_folder(&self, folder: &str) -> bool {
        match &self.0 {
            Source::Memory(files) => files.keys().any(|path| {
                folder.is_empty()
                    || path
                        .strip_prefix(folder)
                        .is_some_and(|rest| rest.starts_with('/'))
            }),
            Source::Disk(root) => {
                let path = root.join(folder);
                path.is_dir() && leads_inside(root, &path).unwrap_or(false)
            }
        }
    }

    /// The content of the file at a path from [`inside`].
    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, FileProblem> {
        let root = match &self.0 {
            Source::Memory(files) => {
                let text = files.get(path).ok_or_else(|| {
                    FileProblem::Read(std::io::Error::from(std::io::ErrorKind::NotFound))
                })?;
                return if text.len() as u64 > MAX_FILE_BYTES {
                    Err(FileProblem::TooLarge)
                } else {
                    Ok(text.clone().into_bytes())
                };
            }
            Source::Disk(root) => root,
        };
        let path = root.join(path);
        if !leads_inside(root, &path).map_err(FileProblem::Read)? {
            return Err(FileProblem::Outside);
        }
        // Asked before opening: opening a pipe would wait for a writer.
        if !fs::metadata(&path).map_err(FileProblem::Read)?.is_file() {
            return Err(FileProblem::NotAFile);
        }
        let file = fs::File::open(&path).map_err(FileProblem::Read)?;
        let mut text = Vec::new();
        file.take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut text)
            .map_err(FileProblem::Read)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(FileProblem::TooLarge);
        }
        Ok(text)
    }
}

/// Whether a path, with its links followed, is still below `root`.
fn leads_inside(root: &Path, path: &Path) -> std::io::Result<bool> {
    Ok(path.canonicalize()?.starts_with(root.canonicalize()?))
}

/// The path of an include, made plain: relative to the policy folder, without `.`; a path that is
/// absolute or goes up is refused, even where it would come back.
pub(crate) fn inside(path: &str) -> Result<String, Problem> {
    if path.len() > MAX_PATH {
        return Err(Problem::LongPath);
    }
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return Err(Problem::PathOutside(crate::token::shown(path)));
    }
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(inside("include/a").unwrap(), "include/a");
        assert_eq!(inside("./include//a").unwrap(), "include/a");
        for bad in ["/etc/passwd", "../a", "include/../a", "a/..", "//a"] {
            assert!(matches!(inside(bad), Err(Problem::PathOutside(_))), "{bad}");
        }
        assert!(matches!(
            inside(&"a".repeat(MAX_PATH + 1)),
            Err(Problem::LongPath)
        ));
    }

    #[test]
    fn memory_has_folders_too() {
        let folder = Folder::in_memory([("b.policy", ""), ("a.policy", ""), ("include/x", "")]);
        let names: Vec<String> = folder.policy_files("").unwrap().into_iter().collect();
        assert_eq!(names, ["a.policy", "b.policy"]);
        assert!(folder.has_folder("include"));
        assert!(!folder.has_folder("inc"));
    }
}
