//! Why an image could not be built, said so that a user knows what to do.

use std::path::{Path, PathBuf};

use crate::{apt::AptError, kernel::KernelError, modules::ModuleError};

/// Why an image could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was being done, as in "reading".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program that we need is not installed.
    #[error(
        "`{tool}` is not installed; install Debian's package `{package}` or run `cargo xtask setup`"
    )]
    MissingTool {
        /// The program's name.
        tool: String,
        /// The package that has it.
        package: String,
    },
    /// A program that we called failed.
    #[error("{what} failed ({status}): {command}\n{output}")]
    Command {
        /// What we wanted from it.
        what: String,
        /// Its command line.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it wrote.
        output: String,
    },
    /// A recipe does not make sense.
    #[error("{file}: {message}")]
    Recipe {
        /// The recipe's file.
        file: PathBuf,
        /// What is wrong, with the line where that is known.
        message: String,
    },
    /// No template has that name.
    #[error("there is no template `{name}`; known templates: {known} (files in {folder})")]
    UnknownTemplate {
        /// The name asked for.
        name: String,
        /// Names that exist.
        known: String,
        /// Where they come from.
        folder: PathBuf,
    },
    /// The mirror or a package.
    #[error(transparent)]
    Apt(#[from] AptError),
    /// The kernel package.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel's modules.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// A program of ours that an image cannot do without is not in the workspace.
    #[error("program `{bin}` of crate `{package}` does not exist, and {needed_by} needs it")]
    MissingProgram {
        /// The crate.
        package: String,
        /// The program.
        bin: String,
        /// The image.
        needed_by: &'static str,
    },
}

/// Makes an [`Error::Io`] out of an I/O error, with the path it concerns.
pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}
