//! Clusters of real processes over QUIC: nodes that find each other from one address, are killed, restarted, cut off, and
//! come and go under load. Each ends converged, with nothing lost that was acknowledged.
//!
//! `STOCKMESH_SECONDS=60` makes the phases as long as a campaign wants them; they are shorter by default.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss, clippy::cast_lossless)]

mod churn;
mod failures;
mod growth;
mod node;
// The tests of real faults use all of it.
#[allow(dead_code)]
mod process;
