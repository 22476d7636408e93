//! Bodies of the fuzz targets. libFuzzer runs them on nightly, `cargo fuzz run decode`; `cargo test` replays their
//! corpora on stable.
#![allow(clippy::unwrap_used, clippy::panic)]

pub mod csv;
pub mod decode;
pub mod differential;
mod input;
pub mod memory;
pub mod merge;
pub mod rights;
pub mod session;

/// A target's body: panics if a rule is broken.
pub type Target = fn(&[u8]);

/// Every target by name, which is also the name of its folder under `corpus/`.
pub const TARGETS: [(&str, Target); 7] = [
    ("csv", csv::run),
    ("decode", decode::run),
    ("differential", differential::run),
    ("memory", memory::run),
    ("merge", merge::run),
    ("rights", rights::run),
    ("session", session::run),
];
