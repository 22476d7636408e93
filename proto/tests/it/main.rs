//! Property tests of the core: every law that the protocol rests on, and random schedules of whole clusters.
//!
//! Cases are chosen so that a debug build takes well under a minute; `PROPTEST_CASES=2560` runs ten times as many.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod delta;
mod gossip;
mod hostile;
mod laws;
mod membership;
mod operations;
mod reconcile;
mod rights;
mod schedules;
mod support;
mod traps;
mod wire;
