//! Clusters over real QUIC on loopback: they converge whatever happens to the links, refuse whom they should, and bear
//! peers that break the rules.
//!
//! Deadlines are generous, so that a loaded machine does not fail a test; nothing is proven by sleeping.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss, clippy::cast_lossless)]

mod binding;
mod clients;
mod convergence;
mod discovery;
mod drift;
mod hostile;
mod identity;
mod joining;
mod lifecycle;
mod limits;
mod links;
mod lossy;
mod membership;
mod messages;
mod raw_keys;
mod readers;
mod refusals;
mod rights;
mod roles;
mod slow;
mod stranded;
mod support;
mod topology;
