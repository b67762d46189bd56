//! Every limit in one place, with the fault that it stops.
//!
//! Policy files are the user's own and trusted in what they say, but one wrong link or one runaway
//! generator must not make the manager eat memory. What a call says comes from a guest, and a guest
//! is hostile.

/// The longest domain name, in bytes; as in Qubes (`qubes/vm/__init__.py`, `validate_name`).
pub const MAX_NAME: usize = 31;

/// The longest tag, in bytes. Qubes has no limit; tags such as `created-by-NAME` fit.
pub const MAX_TAG: usize = 64;

/// The longest service name, in bytes.
pub const MAX_SERVICE: usize = 64;

/// The longest argument, in bytes, without its `+`. A service may be a file that is named
/// `SERVICE+ARGUMENT` (Qubes: `/etc/qubes-rpc`), and a file name has at most 255 bytes.
pub const MAX_ARGUMENT: usize = 255 - MAX_SERVICE - 1;

/// The longest target that a guest may name, in bytes: `@dispvm:` and a domain's name.
pub const MAX_TARGET: usize = "@dispvm:".len() + MAX_NAME;

/// The longest name of a user in the target, in bytes; as in `useradd`.
pub const MAX_USER: usize = 32;

/// The largest policy file, in bytes.
pub const MAX_FILE_BYTES: u64 = 256 * 1024;

/// The most lines of one policy file.
pub const MAX_LINES: usize = 8192;

/// The longest line of a policy file, in bytes.
pub const MAX_LINE_BYTES: usize = 2048;

/// The most words on one line: five columns and five parameters of which none may come twice, and
/// some room so that the error can say which word is one too many.
pub const MAX_WORDS: usize = 16;

/// How deep includes may nest; a folder's own files are at depth 0.
pub const MAX_INCLUDE_DEPTH: usize = 8;

/// The most files that are read for one policy, each inclusion counted. Stops a small set of files
/// that include each other twice over and over.
pub const MAX_FILES: usize = 512;

/// The most rules of one policy. Bounds the time of one evaluation.
pub const MAX_RULES: usize = 16_384;

/// The most entries of one folder that are looked at.
pub const MAX_FOLDER_ENTRIES: usize = 4096;

/// The longest path after `!include`, in bytes.
pub const MAX_PATH: usize = 255;

/// The most domains of a snapshot. Bounds the list of targets that a question offers.
pub const MAX_DOMAINS: usize = 4096;
