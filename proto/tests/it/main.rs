//! Property tests of the core: every law that the protocol rests on, and random schedules of whole clusters.
//!
//! Cases are chosen so that a debug build takes well under a minute; `PROPTEST_CASES=2560` runs ten times as many.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clients;
mod delta;
mod gossip;
mod hostile;
mod joining;
mod laws;
mod membership;
mod operations;
mod read_only;
mod reconcile;
mod retirement;
mod rights;
mod schedules;
mod support;
mod topology;
mod traps;
mod wire;
