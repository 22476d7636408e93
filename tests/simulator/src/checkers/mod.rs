//! What must hold, one invariant in each file.

mod acknowledged;
mod bounded;
mod converged;
mod durable_first;
mod healthy;
mod holds;
mod listings;
mod ids;
mod nothing_left;
mod on_disk;
mod oversold;
mod refused;
mod registers;
mod subscriptions;
mod validity;
mod vectors;

pub use bounded::memory as check_memory;
pub use converged::wait as wait_converged;
pub use nothing_left::{memory as check_memory_left, tasks as wait_no_tasks};

use std::collections::BTreeMap;

use stockmesh::{ProductView, ReplicaId, Store};

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
        Box::new(listings::Listings),
        Box::new(on_disk::OnDisk),
        Box::new(ids::Ids),
        Box::new(durable_first::DurableFirst),
        Box::new(vectors::Vectors),
        Box::new(healthy::Healthy),
        Box::new(subscriptions::Subscriptions::default()),
        Box::new(bounded::Bounded::default()),
    ]
}

/// By product, what a store knows that a replica has on hand.
fn counts(store: &Store, replica: ReplicaId) -> BTreeMap<String, i128> {
    let of = |view: ProductView| {
        let own = view.by_replica().into_iter().find(|(of, _)| *of == replica);
        (view.sku().to_string(), own.map_or(0, |(_, stock)| stock.on_hand))
    };
    store.query().iter().map(of).filter(|(_, units)| *units != 0).collect()
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
