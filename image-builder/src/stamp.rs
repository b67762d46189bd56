//! What is already up to date: one stamp file per image holds a hash of all inputs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use sha2::{Digest, Sha256};

use crate::error::{Error, io};

/// The inputs of an image, hashed in the order in which they were named.
pub struct Inputs {
    hash: Sha256,
}

impl Inputs {
    /// Starts with the name of the step and a version to raise when the step's code changes what
    /// it makes.
    #[must_use]
    pub fn new(step: &str, version: u32) -> Self {
        let mut inputs = Self {
            hash: Sha256::new(),
        };
        inputs.text("step", step);
        inputs.text("version", &version.to_string());
        inputs
    }

    /// Adds a text.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        for part in [name, value] {
            self.hash.update((part.len() as u64).to_le_bytes());
            self.hash.update(part.as_bytes());
        }
        self
    }

    /// Adds a file by path, size and time of its last change: enough for files that our own steps
    /// make, and quick for large ones.
    pub fn file(&mut self, path: &Path) -> Result<&mut Self, Error> {
        let metadata = fs::metadata(path).map_err(io("looking at", path))?;
        let changed = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .unwrap_or_default();
        let value = format!("{} {}", metadata.len(), changed.as_nanos());
        Ok(self.text(&path.to_string_lossy(), &value))
    }

    /// The hash of all that was added.
    #[must_use]
    pub fn finish(self) -> String {
        hex(&self.hash.finalize())
    }
}

/// The stamp of one image.
pub struct Stamp {
    file: PathBuf,
    value: String,
}

impl Stamp {
    /// The stamp `name` in `folder`, for these inputs.
    #[must_use]
    pub fn new(folder: &Path, name: &str, inputs: Inputs) -> Self {
        Self {
            file: folder.join(name),
            value: inputs.finish(),
        }
    }

    /// Whether all outputs exist and were made from the same inputs.
    #[must_use]
    pub fn is_current(&self, outputs: &[&Path]) -> bool {
        outputs.iter().all(|output| output.exists())
            && fs::read_to_string(&self.file).is_ok_and(|old| old == self.value)
    }

    /// Records that the outputs are made. Call it last.
    pub fn record(&self) -> Result<(), Error> {
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder).map_err(io("creating", folder))?;
        }
        fs::write(&self.file, &self.value).map_err(io("writing", &self.file))
    }
}

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_knows_its_inputs_and_outputs() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let inputs = |packages: &str| {
            let mut inputs = Inputs::new("root", 1);
            inputs.text("packages", packages);
            inputs
        };
        let stamp = Stamp::new(folder.path(), "root", inputs("a b"));
        assert!(!stamp.is_current(&[&output]));
        fs::write(&output, "made").unwrap();
        stamp.record().unwrap();
        assert!(stamp.is_current(&[&output]));
        assert!(!Stamp::new(folder.path(), "root", inputs("a b c")).is_current(&[&output]));
        fs::remove_file(&output).unwrap();
        assert!(!stamp.is_current(&[&output]));
    }

    #[test]
    fn names_and_values_do_not_run_together() {
        let mut first = Inputs::new("x", 1);
        first.text("ab", "c");
        let mut second = Inputs::new("x", 1);
        second.text("a", "bc");
        assert_ne!(first.finish(), second.finish());
    }
}
