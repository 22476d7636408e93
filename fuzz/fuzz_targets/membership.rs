//! Runs `stockmesh_fuzz::membership` under libFuzzer; on stable it replays files.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| stockmesh_fuzz::membership::run(data));

#[cfg(not(fuzzing))]
fn main() {
    stockmesh_fuzz::replay(stockmesh_fuzz::membership::run);
}
