//! Runs `stockmesh_fuzz::csv` under libFuzzer; on stable it replays files.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| stockmesh_fuzz::csv::run(data));

#[cfg(not(fuzzing))]
fn main() {
    stockmesh_fuzz::replay(stockmesh_fuzz::csv::run);
}
