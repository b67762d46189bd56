//! `net-bench`: the network between guests beside that of others. See `bulkhead_tests::net_bench`.

use std::process::ExitCode;

use bulkhead_tests::net_bench::{guest, host};

fn main() -> ExitCode {
    // In a guest it is the first process, as which it has a name of its own.
    if std::process::id() == 1 {
        guest::run();
    }
    match host::run(std::env::args().skip(1)) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("net-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
