//! Calls into the storage engine, which may panic on damaged files.

use std::any::Any;
use std::fmt::Display;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::StorageError;

/// Why the engine did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// It reported an error.
    Engine(Box<redb::Error>),
    /// It panicked, as it does on some damaged files.
    Panic(String),
}

impl Failure {
    /// Tells a failing disk, which may work tomorrow, from a damaged store, which will not.
    pub(super) fn while_opening(self) -> StorageError {
        match self {
            Self::Engine(error) => match *error {
                redb::Error::Io(error) if !means_damage(&error) => StorageError::Disk(error),
                other => StorageError::Damaged(other.to_string()),
            },
            Self::Panic(_) => StorageError::Damaged(self.to_string()),
        }
    }
}

impl Display for Failure {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Engine(error) => write!(formatter, "{error}"),
            Self::Panic(message) => write!(formatter, "the engine panicked: {message}"),
        }
    }
}

fn means_damage(error: &io::Error) -> bool {
    // The first is what the engine says of content that makes no sense, the others of offsets that come from such content.
    use io::ErrorKind::{FileTooLarge, InvalidData, InvalidInput, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof | InvalidInput | FileTooLarge)
}

/// Runs a call into the engine and turns a panic into a failure. The engine's state is not used for writing after that.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, redb::Error>) -> Result<T, Failure> {
    #[cfg(feature = "testing")]
    let _told = crate::simulation::Guarded::begin();
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| Failure::Engine(Box::new(error))),
        Err(panic) => Err(Failure::Panic(panic_message(panic.as_ref()))),
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_damage() {
        let failure = guarded::<()>(|| panic!("bad page")).unwrap_err();
        assert_eq!(failure.to_string(), "the engine panicked: bad page");
        assert!(matches!(failure.while_opening(), StorageError::Damaged(_)));
    }

    /// So that it does not count such a panic as one that nobody caught.
    #[cfg(feature = "testing")]
    #[test]
    fn a_simulation_sees_which_panics_become_errors() {
        use crate::simulation::is_guarded;
        assert!(!is_guarded());
        let failure = guarded::<()>(|| if is_guarded() { panic!("seen") } else { Ok(()) }).unwrap_err();
        assert_eq!((failure.to_string().as_str(), is_guarded()), ("the engine panicked: seen", false));
    }
}
