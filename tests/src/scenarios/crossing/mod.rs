//! What crosses from one domain to another, and what does not.

pub(super) mod copy;
