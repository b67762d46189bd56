//! Which applications a template has: its desktop files and icons, read as hostile data.
//!
//! A template's `apps/` folder holds copies of files from packages that nobody here has looked at:
//! `applications/*.desktop` and `icons/NAME.{png,svg}`. This crate turns them into plain values
//! that can stand beside trusted text: cleaned and capped names, a checked list of arguments that
//! runs in the guest, and icons as 48×48 pixels.
//!
//! It trusts the folder that it is given. It trusts nothing in it: no name in there becomes a path
//! outside of `apps/`, no link is followed, every size and count has a limit, and pictures are
//! decoded only in a process that can do nothing else (`bulkhead-icon`). It must never run a shell,
//! and never fail as a whole because one file is wrong: a wrong file is left out, with one line in
//! the log.
//!
//! Start reading at [`template`] (one folder), then [`desktop`] (one file), [`exec`] (one command
//! line) and [`icons`] (pictures).

pub mod desktop;
pub mod exec;
pub mod folder;
pub mod icons;
pub mod template;

pub use desktop::{Entry, EntryError};
pub use icons::{IconError, Icons, Picture};
pub use template::{Application, IconFile, Template};
