//! Any bytes, read as a file of transactions, keep the reader's rules: no panic, bounded fields, rising lines, and
//! the same rows however the input arrives.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stockmesh::transactions::exercise(data));
