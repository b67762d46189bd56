//! `hostile-calls ATTACK`: a guest program that floods the host's door for calls between domains.
//!
//! `hostile-calls list` names the attacks. `hostile-calls latency N` is the honest neighbour: it makes N
//! calls of the host's clock, one after another, and prints the median in microseconds.

use std::io::{self, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use bulkhead_protocol::connection::Connection;
use bulkhead_protocol::{CALL_PORT, CallRequest, ExitReason, HOST_CID, Message, read_message};

type Attack = fn() -> io::Result<u64>;

const ATTACKS: &[(&str, Attack)] = &[
    ("calls", calls),
    ("huge-names", huge_names),
    ("half-open", half_open),
    ("noise", noise),
];
/// How long an attack that has no number of its own goes on.
const TIME: Duration = Duration::from_secs(8);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let result = match name.as_str() {
        "list" => {
            for (name, _) in ATTACKS {
                println!("{name}");
            }
            return ExitCode::SUCCESS;
        }
        "latency" => {
            let count = arguments.next().and_then(|count| count.parse().ok());
            latency(count.unwrap_or(20))
        }
        _ => match ATTACKS.iter().find(|(known, _)| *known == name) {
            Some((_, attack)) => attack(),
            None => {
                eprintln!("hostile-calls: no attack `{name}`; see `hostile-calls list`");
                return ExitCode::from(2);
            }
        },
    };
    match result {
        Ok(number) => {
            println!("{number}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn connect() -> io::Result<Connection> {
    let connection = Connection::to_vsock(HOST_CID, CALL_PORT)?;
    connection.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(connection)
}

fn call(target: &str, service: &str) -> io::Result<Vec<u8>> {
    let request = CallRequest {
        target: target.to_owned(),
        service: service.to_owned(),
        drop: None,
    };
    Message::Call(request).encode().map_err(io::Error::other)
}

/// Whole calls, 10,000 of them or as many as are taken in time; each is answered with no.
fn calls() -> io::Result<u64> {
    let frame = call("personal", "no.Such")?;
    let end = Instant::now() + TIME;
    let mut made = 0;
    while made < 10_000 && Instant::now() < end {
        let Ok(mut connection) = connect() else {
            continue;
        };
        if connection.write_all(&frame).is_ok() {
            // Whatever the answer is, and if there is one.
            let _ = read_message(&mut connection);
            made += 1;
        }
    }
    Ok(made)
}

/// Names as long as a frame can be, and announced to be longer.
fn huge_names() -> io::Result<u64> {
    let long = call(&"x".repeat(20_000), &"y".repeat(20_000))?;
    let end = Instant::now() + TIME;
    let mut made = 0;
    while Instant::now() < end {
        for frame in [&long[..], &[0xff; 64]] {
            let Ok(mut connection) = connect() else {
                continue;
            };
            if connection.write_all(frame).is_ok() {
                let _ = connection.read(&mut [0; 64]);
                made += 1;
            }
        }
    }
    Ok(made)
}

/// As many connections as the kernel gives, each with a part of a request, held for a while.
fn half_open() -> io::Result<u64> {
    let frame = call("personal", "no.Such")?;
    let half = frame.get(..frame.len() / 2).unwrap_or_default();
    let end = Instant::now() + TIME;
    let mut held = Vec::new();
    while Instant::now() < end && held.len() < 900 {
        let Ok(mut connection) = connect() else {
            break;
        };
        if connection.write_all(half).is_ok() {
            held.push(connection);
        }
    }
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    Ok(held.len() as u64)
}

/// Bytes that mean nothing, as fast as they are taken.
fn noise() -> io::Result<u64> {
    let end = Instant::now() + TIME;
    let mut written = 0;
    while Instant::now() < end {
        let Ok(mut connection) = connect() else {
            continue;
        };
        while connection.write_all(&[0xa5; 16 * 1024]).is_ok() && Instant::now() < end {
            written += 16 * 1024;
        }
    }
    Ok(written)
}

fn latency(count: usize) -> io::Result<u64> {
    let frame = call("@adminvm", "qubes.GetDate")?;
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        let mut connection = connect()?;
        connection.write_all(&frame)?;
        loop {
            match read_message(&mut connection).map_err(io::Error::other)? {
                Message::Exit(ExitReason::Code(0)) => break,
                Message::Started { .. } | Message::Data { .. } => {}
                other => {
                    let text = format!("unexpected `{}`", other.name());
                    return Err(io::Error::other(text));
                }
            }
        }
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(u64::try_from(median.as_micros()).unwrap_or(u64::MAX))
}
