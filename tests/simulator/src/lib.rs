//! A simulator of whole nodes: the production code of the store, its gossip, membership and QUIC, several nodes in one
//! process. Time is tokio's paused clock, datagrams and disks are in memory, and everything random follows from one seed,
//! so that a run can be repeated in any process.
//!
//! Modules in reading order: `chance` (the seed), `trace` (what happened), `network`, `endpoint` (QUIC on it), `disks`,
//! `plan` (what is to happen), `generator` (what a seed makes of it), `books` and `sums` (what callers were told), `operations` (what callers do), `crossings` and `watching` (subscribers),
//! `world` (the nodes), `copies` (who goes on from an old copy), `twins` (who goes on beside its copy), `departures` (who goes), `probing` (whether all are of use at the end) and
//! `retiring` (whether who is dead can be retired then), `checkers` (what must hold), `stuck` (time that stands still), `run` (one seed), `minimise` (leaves out what a failure does not need).

pub mod chance;
pub mod trace;
pub mod network;
pub mod endpoint;
pub mod disks;
pub mod plan;
mod generator;
pub mod sums;
pub mod books;
pub mod operations;
pub mod crossings;
pub mod watching;
pub mod world;
mod copies;
mod twins;
mod departures;
mod probing;
mod retiring;
pub mod checkers;
mod stuck;
pub mod run;
pub mod minimise;
