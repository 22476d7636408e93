//! Bodies of the fuzz targets. libFuzzer runs them on nightly, `cargo fuzz run decode`; `cargo test` replays their
//! corpora on stable.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::{env, fs};

#[cfg(feature = "store")]
pub mod csv;
pub mod decode;
pub mod differential;
mod input;
pub mod membership;
pub mod memory;
pub mod merge;
pub mod operations;
pub mod plans;
pub mod rights;
pub mod session;

/// A target's body: panics if a rule is broken.
pub type Target = fn(&[u8]);

/// Every target by name, which is also the name of its folder under `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    #[cfg(feature = "store")]
    ("csv", csv::run),
    ("decode", decode::run),
    ("differential", differential::run),
    ("membership", membership::run),
    ("memory", memory::run),
    ("merge", merge::run),
    ("operations", operations::run),
    ("plans", plans::run),
    ("rights", rights::run),
    ("session", session::run),
];

/// All files of a folder, in the order of their names.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// Runs a target once for each file of the folders that the command line names: `fuzz/coverage` looks at what that reaches.
pub fn replay(target: Target) {
    for folder in env::args_os().skip(1) {
        files(Path::new(&folder)).iter().for_each(|path| target(&fs::read(path).unwrap()));
    }
}
