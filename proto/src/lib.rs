//! The deterministic core of stockmesh: lattices, clocks, shards, reconciliation, gossip and the wire format.
//!
//! It does no I/O, starts no thread or task, and reads no clock and no entropy: time and random numbers are arguments,
//! effects are returned as data. So the very code that runs in production also runs in tests, models and fuzzers. The
//! protocol's numbered rules, which comments here cite, are in `PROTOCOL.md` beside this crate.
//!
//! Modules in reading order, each resting on those above it only.

pub mod limits;

pub mod hlc;
pub mod id;

pub mod counter;
pub mod price;
pub mod register;
pub mod version;

pub mod fingerprint;
pub mod product;

pub mod delta;
mod product_map;
pub mod shard;

pub mod check;
pub mod operation;
pub mod wire;

pub mod gossip;
pub mod reconcile;

pub use fingerprint::Fingerprint;
pub use id::{ClusterId, Dot, InvalidInput, Location, Quantity, ReplicaId, ShardCount, ShardIndex, Sku};
pub use iso_currency::Currency;
pub use price::Price;
pub use rust_decimal::Decimal;
pub use shard::Shard;
pub use version::VersionVector;
