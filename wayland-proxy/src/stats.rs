//! Counters of the whole process, for performance tests and for the curious.

use std::cell::Cell;
use std::fmt::Write as _;
use std::path::Path;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the proxy has done since it started.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[$doc])* pub $name: Cell<u64>,)*
        }

        impl Stats {
            /// All counters as one JSON object.
            pub fn to_json(&self) -> String {
                let mut json = String::from("{");
                $(let _ = write!(json, "\"{}\":{},", stringify!($name), self.$name.get());)*
                json.pop();
                json.push_str("}\n");
                json
            }
        }
    };
}

counters! {
    /// Applications that connected.
    clients,
    /// Applications that were disconnected for an error of theirs or of the host.
    clients_ended_by_error,
    /// Command buffers submitted to the kernel.
    execbuffers,
    /// Pieces of Wayland data sent to the host.
    sends,
    /// Pieces of Wayland data received from the host.
    receives,
    /// Requests taken from applications.
    requests,
    /// Events given to applications.
    events,
    /// Commits of surfaces.
    commits,
    /// Commits that brought a new picture.
    frames,
    /// Bytes of pixels that applications said they had changed.
    damaged_bytes,
    /// Bytes of pixels copied for the host.
    bytes_copied,
    /// Pictures copied as a whole.
    full_copies,
    /// Host memory allocated for pictures, now.
    blob_bytes,
    /// Allocations of host memory for pictures.
    blobs_allocated,
    /// Bytes moved through pipes, both directions.
    pipe_bytes,
    /// Pastes that went from one application to the other without the host.
    local_pastes,
    /// Times an application had to wait until the host released a picture.
    stalls,
}

impl Stats {
    /// Adds to a counter.
    pub fn add(counter: &Cell<u64>, amount: u64) {
        counter.set(counter.get().wrapping_add(amount));
    }

    /// Takes from a counter.
    pub fn sub(counter: &Cell<u64>, amount: u64) {
        counter.set(counter.get().saturating_sub(amount));
    }

    /// Writes the counters to a file, replacing it whole.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        std::fs::write(&temporary, self.to_json())?;
        std::fs::rename(&temporary, path)
    }
}
