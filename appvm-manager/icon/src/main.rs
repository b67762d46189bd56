//! `bulkhead-icon`: see the library.

use std::io::{Read, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().len() > 1 {
        eprintln!(
            "bulkhead-icon: it takes no arguments: a picture comes in on standard input, 48x48 \
             RGBA pixels go out on standard output"
        );
        return ExitCode::from(2);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulkhead-icon: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    bulkhead_icon::sandbox::enter()?;
    let mut untrusted_bytes = Vec::new();
    std::io::stdin()
        .take(bulkhead_icon::MAX_INPUT as u64 + 1)
        .read_to_end(&mut untrusted_bytes)?;
    let pixels = bulkhead_icon::decode::decode(&untrusted_bytes)?;
    let mut out = std::io::stdout();
    out.write_all(&pixels)?;
    out.flush()?;
    Ok(())
}
