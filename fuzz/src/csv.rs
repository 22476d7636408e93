//! Any bytes, read as a file of transactions, keep the reader's rules: no panic, bounded fields, rising lines, and the
//! same rows however the input arrives.

/// Reads the bytes as a file of transactions.
pub fn run(data: &[u8]) {
    stockmesh::transactions::exercise(data);
}
