//! `bulkhead console`.

use std::io::{self, IsTerminal};
use std::os::unix::net::UnixStream as StdStream;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::args;
use crate::bus::manager;
use crate::error::Error;
use crate::terminal::RawMode;

/// Ctrl-].
const ESCAPE: u8 = 0x1d;

pub async fn console(args: args::Console) -> Result<u8, Error> {
    let name = args.name.as_str();
    let failed = |error| Error::Io("the console", error);
    let socket: std::os::fd::OwnedFd = manager().await?.open_console(name).await?.into();
    let socket = StdStream::from(socket);
    socket.set_nonblocking(true).map_err(failed)?;
    let (mut reader, mut writer) = UnixStream::from_std(socket).map_err(failed)?.into_split();
    let raw = if io::stdin().is_terminal() {
        eprintln!("Console of `{name}`; Ctrl-] leaves it.");
        let raw = RawMode::enter().map_err(failed)?;
        // The shell printed its prompt long ago: ask for another one.
        writer.write_all(b"\r").await.map_err(failed)?;
        Some(raw)
    } else {
        None
    };
    let mut input = tokio::io::stdin();
    let mut output = tokio::io::stdout();
    let (mut typed, mut shown) = ([0; 1024], [0; 4096]);
    let mut input_open = true;
    loop {
        tokio::select! {
            count = input.read(&mut typed), if input_open => {
                let typed = &typed[..count.map_err(failed)?];
                if typed.is_empty() {
                    // A script's input has ended; what the guest answers still comes.
                    input_open = false;
                    continue;
                }
                let end = typed.iter().position(|&byte| raw.is_some() && byte == ESCAPE);
                writer.write_all(&typed[..end.unwrap_or(typed.len())]).await.map_err(failed)?;
                if end.is_some() {
                    drop(raw);
                    eprintln!("\nLeft the console of `{name}`.");
                    return Ok(0);
                }
            }
            count = reader.read(&mut shown) => {
                let count = count.map_err(failed)?;
                if count == 0 {
                    drop(raw);
                    let text = format!("domain `{name}` has closed its console; it may have ended");
                    return Err(Error::Other(text));
                }
                output.write_all(&shown[..count]).await.map_err(failed)?;
                output.flush().await.map_err(failed)?;
            }
        }
    }
}
