//! What a scenario on this machine itself holds: a folder for what it leaves, and our programs.

use std::path::{Path, PathBuf};

use super::{Failure, Outcome};

/// One running scenario on this machine.
pub struct HereContext<'a> {
    programs: &'a Path,
    folder: PathBuf,
}

impl<'a> HereContext<'a> {
    /// A scenario with our programs of the folder `programs`.
    pub fn new(programs: &'a Path, folder: &Path) -> HereContext<'a> {
        HereContext {
            programs,
            folder: folder.to_owned(),
        }
    }

    /// The scenario's own folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One of our programs, built with optimisation.
    pub fn program(&self, name: &str) -> Result<PathBuf, Failure> {
        let file = self.programs.join(name);
        if file.is_file() {
            return Ok(file);
        }
        Err(Failure::new(format!(
            "{} is not built; run it without --no-build",
            file.display()
        )))
    }

    /// Keeps a file beside the scenario's pictures.
    pub fn log(&self, name: &str, bytes: &[u8]) -> Outcome {
        Ok(std::fs::write(self.folder.join(name), bytes)?)
    }
}
