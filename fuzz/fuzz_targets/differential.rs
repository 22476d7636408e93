//! Runs `stockmesh_fuzz::differential` under libFuzzer; on stable it does nothing, and `cargo test` replays the corpus.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| stockmesh_fuzz::differential::run(data));

#[cfg(not(fuzzing))]
fn main() {}
