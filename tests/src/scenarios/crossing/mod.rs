//! What crosses from one domain to another, and what does not.

pub(super) mod clipboard;
pub(super) mod copy;
