//! The program as processes: a node that `stockmesh node` runs, with certificates of `stockmesh cert`, and the commands
//! that act on it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod remote;
mod support;
