//! Where everything lies: recipes in the source tree, images and caches under `target/images`.

use std::path::{Path, PathBuf};

/// The folders that a build reads and writes.
#[derive(Debug, Clone)]
pub struct Layout {
    workspace: PathBuf,
    target: PathBuf,
}

impl Layout {
    /// The layout of the workspace that this crate was built from.
    #[must_use]
    pub fn of_this_workspace() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        let workspace = manifest.parent().unwrap_or(manifest).to_path_buf();
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| workspace.join("target"), PathBuf::from);
        Self { workspace, target }
    }

    /// The same sources with another target folder.
    #[must_use]
    pub fn with_target(&self, target: &Path) -> Self {
        Self {
            workspace: self.workspace.clone(),
            target: target.to_path_buf(),
        }
    }

    /// The root of the source tree.
    #[must_use]
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// Cargo's target folder.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The folder with all images.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.target.join("images")
    }

    /// The guests' kernel and initramfs.
    #[must_use]
    pub fn guest(&self) -> PathBuf {
        self.images().join("guest")
    }

    /// The templates, one folder each.
    #[must_use]
    pub fn templates(&self) -> PathBuf {
        self.images().join("templates")
    }

    /// The test host's files.
    #[must_use]
    pub fn host(&self) -> PathBuf {
        self.images().join("host")
    }

    /// The parts of the desktop's disk image.
    #[must_use]
    pub fn desktop(&self) -> PathBuf {
        self.images().join("desktop")
    }

    /// The finished disk image and what belongs to it: for people to take away.
    #[must_use]
    pub fn disk_image(&self) -> PathBuf {
        self.target.join("image")
    }

    /// Downloads and unpacked kernels; can be deleted at any time.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.images().join(".cache")
    }

    /// Stamp files that say what an image was made from.
    #[must_use]
    pub fn stamps(&self) -> PathBuf {
        self.images().join(".stamps")
    }

    /// The recipes' folder.
    #[must_use]
    pub fn recipes(&self) -> PathBuf {
        self.workspace.join("image-builder")
    }
}
