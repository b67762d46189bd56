//! What the manager's daemon and the agents inside its guests say to each other.
//!
//! Three kinds of connection, all over virtio-vsock streams:
//!
//! * **control**: the agent connects to the host ([`HOST_CID`], [`CONTROL_PORT`]) once it runs. It
//!   says [`Message::Hello`], later [`Message::Ready`] and [`Message::ProxyStatus`]; the daemon
//!   answers [`Message::Welcome`] and may ask for [`Message::Power`].
//! * **exec**: the daemon connects to the guest ([`EXEC_PORT`]) once per command. It sends one
//!   [`Message::Exec`]; then both sides carry stdin, stdout and stderr as [`Message::Data`] with
//!   credit ([`Message::Credit`]) for each stream, so that a reader that stops never blocks a
//!   signal, and no side ever holds more than [`WINDOW_BYTES`] for a stream.
//!
//! * **call**: a program of the guest connects to the host ([`CALL_PORT`]) and sends one
//!   [`Message::Call`]. Where the policy allows it, the daemon runs the service in the target over an
//!   exec connection and relays the frames of both, so that credit goes from end to end.
//!
//! Trust: the daemon believes nothing that arrives. Every frame is bounded by [`MAX_FRAME`], every
//! decoding error is typed, and no decoder allocates more than one frame. The agent trusts its
//! daemon, but checks the same way, because the code is the same.
//!
//! Never here: sockets' addresses, policy, files.
//!
//! Start reading at [`message`], then [`frame`] (bytes) and [`pump`] (flow control).

pub mod client;
pub mod connection;
pub mod frame;
pub mod label;
pub mod message;
pub mod name;
pub mod port;
pub mod pump;
pub mod text;

pub use frame::{Decoder, FrameError, MAX_FRAME, MAX_PAYLOAD, ReadError, read_message};
pub use label::{Label, UnknownLabel};
pub use message::{
    CallRequest, ExecRequest, ExitReason, Hello, Message, Power, Ready, Stream, User, WindowSize,
};
pub use name::{DomainName, InvalidName};
pub use port::{CONNECT_SERVICE, InvalidPort, TcpPort};

/// The version that both sides must share; it changes with every incompatible change.
pub const PROTOCOL_VERSION: u32 = 1;
/// The host's address on a guest's vsock.
pub const HOST_CID: u32 = 2;
/// The host port to which the agent connects.
pub const CONTROL_PORT: u32 = 1024;
/// The host port to which a guest's programs connect for services of other domains.
pub const CALL_PORT: u32 = 1026;
/// The guest port on which the agent runs commands.
pub const EXEC_PORT: u32 = 1025;
/// How many bytes of one stream may be under way without having been taken by the reader.
pub const WINDOW_BYTES: u32 = 256 * 1024;
/// The most data that one frame carries.
pub const MAX_DATA: usize = 32 * 1024;
