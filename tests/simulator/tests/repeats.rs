//! The same seed is the same run, in another process too.

#![allow(clippy::unwrap_used)]

use std::process::Command;

fn hash(seed: u64) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stockmesh-sim"));
    command.args(["--hash", "--nodes", "3", "--minutes", "1", "--seed", &seed.to_string()]);
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "seed {seed} fails: {told}");
    told
}

#[test]
fn a_seed_is_the_same_run_in_every_process() {
    for seed in 0..4 {
        assert_eq!(hash(seed), hash(seed), "seed {seed}");
    }
    assert_ne!(hash(0), hash(1), "the seed decides");
}
