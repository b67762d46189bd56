//! What can go wrong, in one line.

use std::io;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manager said so; its text is ready for a person.
    #[error("{text}")]
    Manager { name: String, text: String },
    #[error(
        "no session bus ({0}); run inside a desktop session or under \
         `dbus-run-session -- bulkhead session`"
    )]
    NoBus(zbus::Error),
    #[error("the manager does not run; start it with `bulkhead session` (or bulkheadd alone)")]
    NoManager,
    #[error("the manager went away while it worked; see its messages and start it again")]
    ManagerGone,
    #[error("the manager: {0}")]
    Bus(zbus::Error),
    #[error("{0}: {1}")]
    Io(&'static str, io::Error),
    #[error("{0}")]
    Other(String),
    /// The command could not be run in the guest.
    #[error("{text}")]
    Command { status: u8, text: String },
}

impl Error {
    /// The exit status, where it differs from the usual.
    pub fn status(&self) -> Option<u8> {
        match self {
            Error::Manager { name, .. } if name.ends_with(".Lost") => Some(254),
            Error::ManagerGone => Some(254),
            Error::Command { status, .. } => Some(*status),
            _ => None,
        }
    }
}

impl From<zbus::Error> for Error {
    fn from(error: zbus::Error) -> Self {
        match &error {
            zbus::Error::MethodError(name, text, _) => match name.as_str() {
                "org.freedesktop.DBus.Error.ServiceUnknown"
                | "org.freedesktop.DBus.Error.NameHasNoOwner" => Error::NoManager,
                "org.freedesktop.DBus.Error.NoReply" => Error::ManagerGone,
                name => Error::Manager {
                    name: name.to_owned(),
                    text: text.clone().unwrap_or_else(|| name.to_owned()),
                },
            },
            zbus::Error::FDO(fdo) => match **fdo {
                zbus::fdo::Error::ServiceUnknown(_) | zbus::fdo::Error::NameHasNoOwner(_) => {
                    Error::NoManager
                }
                zbus::fdo::Error::NoReply(_) => Error::ManagerGone,
                _ => Error::Bus(error),
            },
            _ => Error::Bus(error),
        }
    }
}
