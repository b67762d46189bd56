//! Questions about what crosses between domains. Their window stands over all others, has the
//! keyboard alone, and is drawn by the host; no domain can open one like it.

pub mod model;
mod view;

pub use view::{HEIGHT, WIDTH, dialog};

use std::time::Duration;

/// How long a question is seen, without a key being pressed, until yes counts.
pub const MOMENT: Duration = Duration::from_millis(1000);
