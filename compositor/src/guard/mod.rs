//! Checks in front of smithay's handlers. A request from a guest passes here first; what smithay
//! would panic on, loop on, or keep without bound is refused or made harmless, and what a domain
//! holds is counted.
//!
//! Each check answers the request to hand on (perhaps with numbers cut to what arithmetic can
//! bear), or nothing when it was refused or means nothing. A refusal is a protocol error: it ends
//! the client that sent it and nothing else.

mod account;
mod layer;
mod shm;
mod subsurface;
mod surface;
mod viewport;
mod xdg;

pub(crate) use account::{Accounts, domain_of};

/// Lengths and coordinates from guests are cut to this; products of two of them fit in 64 bits and
/// sums of thousands in 32.
const MAX_COORDINATE: i32 = 1 << 20;

/// A coordinate that sums and differences can bear.
fn coordinate(untrusted: i32) -> i32 {
    untrusted.clamp(-MAX_COORDINATE, MAX_COORDINATE)
}

/// A length that sums and differences can bear; negative lengths are empty.
fn length(untrusted: i32) -> i32 {
    untrusted.clamp(0, MAX_COORDINATE)
}

/// Implements `Dispatch` for [`crate::state::State`]: first the check, then smithay.
macro_rules! guarded {
    ($interface:ty, $data:ty => $smithay:ty, $check:path $(, destroyed: $destroyed:path)?) => {
        impl smithay::reexports::wayland_server::Dispatch<$interface, $data>
            for crate::state::State
        {
            fn request(
                state: &mut Self,
                client: &smithay::reexports::wayland_server::Client,
                resource: &$interface,
                request: <$interface as smithay::reexports::wayland_server::Resource>::Request,
                data: &$data,
                dh: &smithay::reexports::wayland_server::DisplayHandle,
                init: &mut smithay::reexports::wayland_server::DataInit<'_, Self>,
            ) {
                let Some(request) = $check(state, client, resource, request, init) else { return };
                <$smithay as smithay::reexports::wayland_server::Dispatch<
                    $interface,
                    $data,
                    Self,
                >>::request(state, client, resource, request, data, dh, init);
            }

            fn destroyed(
                state: &mut Self,
                client: smithay::reexports::wayland_server::backend::ClientId,
                resource: &$interface,
                data: &$data,
            ) {
                $( $destroyed(state, &client, resource); )?
                <$smithay as smithay::reexports::wayland_server::Dispatch<
                    $interface,
                    $data,
                    Self,
                >>::destroyed(state, client, resource, data);
            }
        }
    };
}
pub(crate) use guarded;
