//! What a store promises of acknowledged writes, under failing disks, losses of power, killed processes, damaged files,
//! restored copies and a disk that is slow to sync.
//!
//! `cargo test --features testing --test durability` runs all of it in about a minute. The long campaign kills the
//! writing process a hundred times: `STOCKMESH_KILLS=100 cargo test --features testing --test durability killed`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss, clippy::cast_lossless)]

mod chance;
mod cluster;
mod gate;
mod model;
mod script;

mod closing;
mod damage;
mod directory;
mod faults;
mod folding;
mod granting;
mod halves;
mod holding;
mod killed;
mod lost_rows;
mod movements;
mod power_cut;
mod receiver;
mod remembered;
mod replicated;
mod restored;
mod trimmed;
mod unsynced;
