//! Exhaustive model checking of the core: every interleaving of small clusters, with messages lost, repeated and late.
//!
//! `cargo run --release -p stockmesh-model` searches all models, which takes some thirteen minutes on two processors, prints
//! what each search came to, and fails with a path of actions if a rule is broken. `cargo test -p stockmesh-model` searches
//! smaller ones, and shows of each model that it finds what is broken on purpose.
//!
//! The state of a replica is the core's own, and the core alone changes it. A model owns the messages on their way, the
//! disks, and what is still to be done.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod breaks;
mod campaign;
mod check;
mod conversation;
mod log;
mod models;
mod node;
mod replica;
mod sent;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if campaign::run(&names) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
