//! Golden vectors: the bytes of every message and record, frozen in `vectors/`, and the figures of the hashes.
//!
//! Each vector is a text file: lines `what:` and `rules:` (of `PROTOCOL.md`), an empty line, and the frozen lines. The
//! tests build the same values in code. If one differs, the failure prints the file as the code would have it: for a new
//! vector, keep that text; for an old one, the change breaks the format.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Only the core itself is free of I/O; these tests read the frozen files.
#![allow(clippy::disallowed_methods)]

mod clients;
mod files;
mod values;
mod vectors;

mod bytes;
mod hashes;
mod rights;
mod size;
mod text;
