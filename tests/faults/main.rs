//! Clusters of real processes, each in a network namespace of its own, under faults of the real network, of real file systems
//! and of the processes themselves. Each ends converged, with nothing lost that was acknowledged and nothing oversold.
//!
//! Needs root, and `ip` and `nft` (Debian: `iproute2`, `nftables`); the loss of power needs `mkfs.ext4` and `xfs_io` (`e2fsprogs`,
//! `xfsprogs`) besides. Where something is missing a test says what, and passes.
//!
//! `STOCKMESH_SECONDS=60` makes the phases as long as a campaign wants them; they are shorter by default. With `--nocapture`
//! each scenario prints how soon the fault was noticed, how soon all held the same afterwards, and what was sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss, clippy::cast_lossless)]

#[path = "../processes/node.rs"]
mod node;
// Not all of it is of use here.
#[allow(dead_code)]
#[path = "../processes/process.rs"]
mod process;

mod tools;

mod air;
mod mount;
mod sky;

mod world;

mod full_disk;
mod partitions;
mod pauses;
mod power;
mod weather;
