//! Files from one domain to another, as one stream of bytes through the host.
//!
//! In the source domain a [`Sender`] walks files and writes the stream; in the target domain a
//! [`Receiver`] reads it and writes below `~/Incoming/SOURCE/`. The host only passes bytes on. It
//! may read the [`Manifest`] at the beginning, to show what is about to be copied; it needs nothing
//! else of this crate.
//!
//! Neither end trusts the other. Whatever the receiver reads is `untrusted_…` until it is checked:
//! it must never write outside of its temporary folder, follow a link, replace what is there, make
//! anything executable, use memory that grows with the stream, or leave something half made. The
//! sender must never follow a link out of what the user named, and what it shows of the receiver's
//! answer is cleaned.
//!
//! Everything is synchronous, on [`std::io::Read`] and [`std::io::Write`]. Whoever opens the pipes
//! decides how long silence may last: a read that fails with `TimedOut` or `WouldBlock` ends the
//! transfer.
//!
//! Start reading at [`format`](mod@format) (the bytes), then [`receive`] (the side that has to be
//! careful) and [`names`].

pub mod format;
pub mod landed;
pub mod limits;
pub mod links;
pub mod meter;
pub mod names;
pub mod receive;
pub mod send;
pub mod watch;

pub use format::{FormatError, Item, Kind, Manifest, Status, Verdict};
pub use limits::Limits;
pub use receive::{
    Incoming, ReceiveError, Received, Receiver, clean_up_partial, receive_and_answer,
};
pub use send::{SendError, Sender, Sent};
pub use watch::{Cancel, Progress, Watch};
