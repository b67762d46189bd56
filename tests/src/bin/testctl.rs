//! `testctl`: sends requests to the compositor's private test interface and prints the answers.
//!
//! Runs inside the test host. Each request is one JSON object; each answer is printed as one line.
//! Requests come from the command line, or, without any, one per line from standard input. The
//! object `{"op":"sleep","ms":N}` is handled here: it only waits. For people there are the short
//! forms `testctl windows` and `testctl screenshot FILE.png`. The socket is
//! `$BULKHEAD_TEST_SOCKET`.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// Answers are at most this long (the compositor's own limit for one packet).
const ANSWER_BYTES: usize = 1 << 20;

fn main() -> ExitCode {
    let socket = std::env::var("BULKHEAD_TEST_SOCKET")
        .unwrap_or_else(|_| "/run/user/1000/bulkhead/test.sock".to_owned());
    let words: Vec<String> = std::env::args().skip(1).collect();
    let requests = match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--help"] => {
            eprintln!("usage: testctl [windows | screenshot FILE.png | REQUEST-JSON…]");
            return ExitCode::from(2);
        }
        ["windows"] => vec![serde_json::json!({"op": "windows"}).to_string()],
        ["screenshot", path] => {
            vec![serde_json::json!({"op": "screenshot", "path": path}).to_string()]
        }
        _ => words,
    };
    match run(&socket, requests) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("testctl: {socket}: {error}");
            ExitCode::from(2)
        }
    }
}

/// Sends every request in order; false when one of them was refused.
fn run(socket: &str, requests: Vec<String>) -> std::io::Result<bool> {
    let address = SocketAddrUnix::new(socket)?;
    let connection = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::connect(&connection, &address)?;
    let lines: Box<dyn Iterator<Item = std::io::Result<String>>> = if requests.is_empty() {
        Box::new(std::io::stdin().lock().lines())
    } else {
        Box::new(requests.into_iter().map(Ok))
    };
    let mut all_accepted = true;
    let mut answer = vec![0u8; ANSWER_BYTES];
    for line in lines {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let request: serde_json::Value = serde_json::from_str(&line)?;
        if request["op"] == "sleep" {
            std::thread::sleep(Duration::from_millis(request["ms"].as_u64().unwrap_or(0)));
            continue;
        }
        rustix::net::send(&connection, line.as_bytes(), SendFlags::NOSIGNAL)?;
        let (_, length) = rustix::net::recv(&connection, &mut answer[..], RecvFlags::empty())?;
        if length == 0 {
            return Err(std::io::Error::other(
                "the compositor closed the connection",
            ));
        }
        let text = String::from_utf8_lossy(&answer[..length.min(ANSWER_BYTES)]).into_owned();
        let value: serde_json::Value = serde_json::from_str(&text)?;
        all_accepted &= value["ok"] == true;
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", text.trim_end())?;
    }
    Ok(all_accepted)
}
