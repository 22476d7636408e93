//! What must hold, one invariant in each file.

mod acknowledged;
mod bounded;
mod converged;
mod durable_first;
mod holds;
mod ids;
mod nothing_left;
mod on_disk;
mod oversold;
mod refused;
mod registers;
mod subscriptions;
mod validity;

pub use bounded::memory as check_memory;
pub use converged::wait as wait_converged;
pub use nothing_left::{memory as check_memory_left, tasks as wait_no_tasks};

use crate::world::World;

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub checker: &'static str,
    /// What was found.
    pub what: String,
}

/// Looks whether an invariant holds. What is found broken is said in words.
pub trait Checker {
    /// What it is called in reports.
    fn name(&self) -> &'static str;

    /// Now and then, while there are faults.
    ///
    /// # Errors
    /// If the invariant is broken.
    fn now_and_then(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }

    /// When a node was opened, before it has heard of anybody.
    ///
    /// # Errors
    /// If the invariant is broken.
    fn at_opening(&mut self, _: &World, _node: u16) -> Result<(), String> {
        Ok(())
    }

    /// When the faults have ended and all agree.
    ///
    /// # Errors
    /// If the invariant is broken.
    fn at_end(&mut self, _: &World) -> Result<(), String> {
        Ok(())
    }
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(acknowledged::Acknowledged),
        Box::new(refused::Refused),
        Box::new(validity::Validity),
        Box::new(oversold::Oversold),
        Box::new(holds::Holds),
        Box::new(registers::Registers),
        Box::new(on_disk::OnDisk),
        Box::new(ids::Ids),
        Box::new(durable_first::DurableFirst),
        Box::new(subscriptions::Subscriptions),
        Box::new(bounded::Bounded::default()),
    ]
}

/// Asks all of them.
///
/// # Errors
/// The first that is broken.
pub fn ask(
    checkers: &mut [Box<dyn Checker>],
    ask: impl Fn(&mut dyn Checker) -> Result<(), String>,
) -> Result<(), Broken> {
    for checker in checkers {
        let checker = checker.as_mut();
        ask(checker).map_err(|what| Broken { checker: checker.name(), what })?;
    }
    Ok(())
}
