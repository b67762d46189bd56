//! Why the machine does not start, in words for the person in front of it.

use std::path::PathBuf;

use crate::{gpt::GptError, parameters::ParameterError};

/// Why the machine does not start. Each text says what was found and what helps.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The boot file was built wrongly or changed.
    #[error(
        "The boot file does not say which system it belongs to: {0}.\nWrite the image to the disk again."
    )]
    Parameters(#[from] ParameterError),
    /// No disk has the root.
    #[error(
        "No disk holds the system that this boot file belongs to (partition {partition}).\nDisks found: {found}.\nIf the disk is connected, write the image to it again."
    )]
    NoRoot {
        /// The partition's name.
        partition: String,
        /// The disks that there are, and what is wrong with them.
        found: String,
    },
    /// Two disks have the root: nobody can say whose data is meant.
    #[error(
        "Two disks hold the same Bulkhead system: {first} and {second}.\nUnplug the one that you do not want to use, and start again."
    )]
    TwoRoots {
        /// One disk.
        first: String,
        /// The other.
        second: String,
    },
    /// The disk is smaller than its partitions, or has no room for data.
    #[error(
        "The disk {disk} is too small: it has {has_mib} MiB, and Bulkhead needs at least {needs_mib} MiB.\nWrite the image to a larger disk."
    )]
    DiskTooSmall {
        /// The disk.
        disk: String,
        /// Its size.
        has_mib: u64,
        /// What would do.
        needs_mib: u64,
    },
    /// The partition table.
    #[error("The partition table of {disk} cannot be used: {source}.")]
    Table {
        /// The disk.
        disk: String,
        /// What is wrong.
        source: GptError,
    },
    /// There is no data partition beside the root.
    #[error(
        "The disk {disk} has no data partition: it was removed, or its type was changed.\nNothing was written. Restore the partition table, or write the image again (that loses all data)."
    )]
    NoData {
        /// The disk.
        disk: String,
    },
    /// The data partition was never formatted by us, but is not empty.
    #[error(
        "The data partition {partition} was never used by this system, but it is not empty: {what}.\nNothing was written. If you do not need it, clear it from another system (wipefs -a), then start again."
    )]
    NotEmpty {
        /// The partition's device.
        partition: PathBuf,
        /// What was found.
        what: String,
    },
    /// The data partition's file system does not mount.
    #[error(
        "The data partition {partition} is damaged: {reason}.\nNothing was written to it and nothing was deleted. Make a copy of the disk first, then repair it\nfrom another system (xfs_repair), and start again."
    )]
    DataDamaged {
        /// The partition's device.
        partition: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The data partition cannot be formatted.
    #[error(
        "The data partition {partition} cannot be prepared: {reason}.\nThe disk may be broken or write-protected."
    )]
    Format {
        /// The partition's device.
        partition: PathBuf,
        /// What the program said.
        reason: String,
    },
    /// The root does not match its hash.
    #[error(
        "The system on this disk is damaged or was changed: {reason}.\nIt was not started. Your data was not touched. Write the image's root to the disk again."
    )]
    RootDamaged {
        /// What was seen.
        reason: String,
    },
    /// The same, found when the system was running already.
    #[error(
        "The system on this disk is damaged or was changed: {reason}.\nNothing of the damaged part was run, and everything was stopped. What domains had saved is kept.\nWrite the image's root to the disk again."
    )]
    RootDamagedLater {
        /// What was seen.
        reason: String,
    },
    /// A step that should not fail.
    #[error("{step}: {source}")]
    Step {
        /// What was being done.
        step: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Makes a [`BootError::Step`] out of a system's error.
pub(crate) fn step<E: Into<std::io::Error>>(
    what: impl Into<String>,
) -> impl FnOnce(E) -> BootError {
    let step = what.into();
    move |error| BootError::Step {
        step,
        source: error.into(),
    }
}
