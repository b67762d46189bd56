//! The one output that guests see.

use smithay::wayland::output::OutputHandler;

use crate::state::State;

impl OutputHandler for State {}
