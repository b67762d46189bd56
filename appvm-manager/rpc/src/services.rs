//! Names of the services that the programs here call and answer.

/// Takes files.
pub const COPY: &str = "qubes.Filecopy";
/// Opens a web address.
pub const OPEN_URL: &str = "qubes.OpenURL";
/// Opens a file.
pub const OPEN_FILE: &str = "qubes.OpenInVM";
/// The host's, which shows a text.
pub const NOTIFY: &str = "bulkhead.Notify";
