//! `bulkhead-rpc`, `bulkhead-copy`, `bulkhead-move`, `bulkhead-open`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "bulkhead-rpc".into());
    match bulkhead_rpc::program::run(&name, arguments.collect()) {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            let name = std::path::Path::new(&name).file_name().unwrap_or(&name);
            eprintln!("{}: {failure}", name.display());
            ExitCode::from(failure.status)
        }
    }
}
