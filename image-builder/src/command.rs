//! Calling other programs: found or named with their package, output kept for the error message.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::error::Error;

/// How much of a failed program's output an error message shows.
const SHOWN_LINES: usize = 25;

/// Looks a program up in PATH and in the folders for administrators' programs.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file())
}

/// A command for `name`, or an error that names the package to install.
pub fn program(name: &str, package: &str) -> Result<Command, Error> {
    find_program(name)
        .map(Command::new)
        .ok_or_else(|| Error::MissingTool {
            tool: name.to_owned(),
            package: package.to_owned(),
        })
}

/// Runs a command to its end and returns what it wrote on its standard output.
pub fn run(command: &mut Command, what: &str) -> Result<Vec<u8>, Error> {
    let line = describe(command);
    tracing::debug!(command = %line, "running");
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::Command {
            what: what.to_owned(),
            command: line.clone(),
            status: error.to_string(),
            output: String::new(),
        })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let both = [output.stdout, output.stderr].concat();
    Err(Error::Command {
        what: what.to_owned(),
        command: line,
        status: output.status.to_string(),
        output: tail(&String::from_utf8_lossy(&both)),
    })
}

fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let start = lines.len().saturating_sub(SHOWN_LINES);
    lines.get(start..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_end_of_the_output() {
        let error = run(
            Command::new("sh").args(["-c", "seq 1 99; exit 3"]),
            "counting",
        )
        .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("counting failed"), "{text}");
        assert!(text.contains("99") && !text.contains("\n50\n"), "{text}");
    }

    #[test]
    fn a_missing_program_names_its_package() {
        let error = program("no-such-program-here", "nice-package").unwrap_err();
        assert!(error.to_string().contains("nice-package"));
    }
}
