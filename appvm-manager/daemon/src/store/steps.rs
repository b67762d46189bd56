//! Where a change can be cut off. Tests stop at each of these places; otherwise nothing happens.

#[cfg(not(test))]
pub fn done() -> crate::Result<()> {
    Ok(())
}

#[cfg(not(test))]
pub fn decided() {}

#[cfg(test)]
pub use tests::{Stop, decided, done, stop_at};

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    use crate::{Error, Result};

    /// What happens at the chosen place.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Stop {
        /// The power goes: nothing runs any more.
        PowerCut,
        /// A file operation fails.
        Failure,
    }

    thread_local! {
        static LEFT: Cell<Option<(Stop, u32)>> = const { Cell::new(None) };
        static DECIDED: Cell<bool> = const { Cell::new(false) };
    }

    struct Cut;

    pub fn done() -> Result<()> {
        let Some((stop, left)) = LEFT.get() else {
            return Ok(());
        };
        LEFT.set((left > 0).then(|| (stop, left.saturating_sub(1))));
        match (left, stop) {
            (0, Stop::PowerCut) => resume_unwind(Box::new(Cut)),
            (0, Stop::Failure) => Err(Error::Setting("a failure that was asked for".into())),
            _ => Ok(()),
        }
    }

    pub fn decided() {
        DECIDED.set(true);
    }

    /// Runs `change`, stopped at its step number `at`. Gives its result, unless the power was cut,
    /// whether it had been decided, and whether it came to its end without being stopped.
    pub fn stop_at<T>(
        stop: Stop,
        at: u32,
        change: impl FnOnce() -> Result<T>,
    ) -> (Option<Result<T>>, bool, bool) {
        DECIDED.set(false);
        LEFT.set(Some((stop, at)));
        let result = catch_unwind(AssertUnwindSafe(change));
        let unstopped = LEFT.replace(None).is_some();
        let result = match result {
            Ok(result) => Some(result),
            Err(panic) if panic.is::<Cut>() => None,
            Err(panic) => resume_unwind(panic),
        };
        (result, DECIDED.get(), unstopped)
    }
}
