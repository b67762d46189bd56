//! End-to-end scenarios: what a scenario is, how scenarios are chosen by name, and how they run.
//!
//! A scenario drives a real host ([`crate::machine`]) in which real KVM guests run, the bootable
//! disk image, or programs on this machine. It leaves its screenshots and logs under
//! `target/e2e/NAME/`.

pub mod context;
pub mod desktop;
pub mod disk;
pub mod here;
pub mod own_host;
pub mod picture;
pub mod runner;
pub mod space;

/// Why a scenario failed, in words a person can act on.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure with its explanation.
    pub fn new(text: impl Into<String>) -> Failure {
        Failure(text.into())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure(error.to_string())
    }
}

impl From<crate::machine::MachineError> for Failure {
    fn from(error: crate::machine::MachineError) -> Failure {
        Failure(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Failure {
        Failure(format!("JSON: {error}"))
    }
}

/// What a scenario returns.
pub type Outcome = Result<(), Failure>;

/// One end-to-end scenario.
pub struct Scenario {
    /// Its name: `path-…`, `image-…`, by the part it proves.
    pub name: &'static str,
    /// One line that says what it proves.
    pub about: &'static str,
    /// Where it takes place, and what it does there.
    pub run: Place,
}

/// Where a scenario takes place.
#[derive(Clone, Copy)]
pub enum Place {
    /// In the test host, which the next scenario uses too.
    Host(fn(&context::Context<'_>) -> Outcome),
    /// On the bootable disk image, in machines of the scenario's own.
    Disk(fn(&disk::DiskContext<'_>) -> Outcome),
    /// In test hosts that the scenario boots itself, with devices of its own.
    OwnHost(fn(&own_host::OwnHostContext<'_>) -> Outcome),
    /// On this machine, without emulation: what is measured in milliseconds.
    Here(fn(&here::HereContext<'_>) -> Outcome),
}

/// Fails with a message when a condition does not hold.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        let held: bool = $condition;
        if !held {
            return Err($crate::e2e::Failure::new(format!(
                "{} [{}:{}]",
                format_args!($($message)+),
                file!(),
                line!()
            )));
        }
    };
}

/// Whether a scenario's name matches a pattern in which `*` stands for any text.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => {
            let Some(tail) = name.strip_prefix(head) else {
                return false;
            };
            (0..=tail.len())
                .filter(|at| tail.is_char_boundary(*at))
                .any(|at| name_matches(rest, &tail[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::name_matches;

    #[test]
    fn patterns_choose_scenarios() {
        assert!(name_matches("path-boot", "path-boot"));
        assert!(!name_matches("path-boot", "path-boots"));
        assert!(name_matches("path-*", "path-boot"));
        assert!(name_matches("*-b*t", "path-boot"));
        assert!(!name_matches("image-*", "path-boot"));
        assert!(name_matches("*", ""));
    }
}
