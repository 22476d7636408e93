//! Typed scripts for what the core decides rather than merges: which shards are pulled from whom, whom to link with, whom
//! to ask for rights and how many to grant, and whom a push goes to.

mod asking;
mod joining;
mod linking;

use arbitrary::{Arbitrary, Result, Unstructured};

/// Runs one script of one kind.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    // Bytes that end too early end the script.
    let _ended: Result<()> = (|| match u8::arbitrary(&mut input)? % 4 {
        0 => joining::run(&mut input),
        1 => linking::run(&mut input),
        2 => asking::back_off(&mut input),
        _ => asking::share(&mut input),
    })();
}
