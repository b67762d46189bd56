//! One file per protocol: what a checked request means for the desktop. Requests reach these only
//! through [`crate::guard`].

mod activation;
mod compositor;
mod decoration;
mod kde_decoration;
mod layer_shell;
mod outputs;
mod seat;
mod xdg_shell;

use smithay::{
    delegate_cursor_shape, delegate_fractional_scale, delegate_output,
    wayland::{fractional_scale::FractionalScaleHandler, tablet_manager::TabletSeatHandler},
};

use crate::state::State;

impl FractionalScaleHandler for State {}
// No tablet protocol is offered; smithay's cursor shapes ask for this.
impl TabletSeatHandler for State {}

delegate_output!(State);
delegate_fractional_scale!(State);
delegate_cursor_shape!(State);
