//! The deterministic core of stockmesh: lattices, clocks, shards, reconciliation, gossip and the wire format.
//!
//! It does no I/O, starts no thread or task, and reads no clock and no entropy: time and random numbers are arguments,
//! effects are returned as data. So the very code that runs in production also runs in tests, models and fuzzers. The
//! protocol's numbered rules, which comments here cite, are in `PROTOCOL.md` beside this crate.
//!
//! # What is where
//!
//! - A [`Shard`] is a part of the key space: products, a version vector of the writes they contain, and a fingerprint.
//!   All that changes it is [merged](Shard::merge); what may be claimed then is [told separately](Shard::claim).
//! - [`operation::Writer`] turns users' operations into slots with new dots, [`reconcile::Session`] makes two replicas
//!   equal, [`gossip`] packs, spreads and checks pushes, [`topology`] chooses the links over which all of it goes, [`check`] judges what came from elsewhere, and [`wire`] is the
//!   encoding of it all.
//! - A replica that lacks much pulls from several peers at once: [`joining`] tells what from whom.
//! - A replica that lacks rights to sell asks for them: [`demand`] tells what it sells, [`asking`] whom it asks and when
//!   not to, and [`grant`] what it is given.
//! - [`member`] says who a member of the cluster is, and [`membership`] finds out which members live.
//!
//! ```
//! use std::ops::Bound;
//! use stockmesh_proto::counter::Counters;
//! use stockmesh_proto::product::{Product, StockSlot};
//! use stockmesh_proto::{Location, ReplicaId, Shard, Sku};
//!
//! let replica = ReplicaId::from_random(7);
//! let counters = Counters { added: 100, removed: 3, ..Counters::default() };
//! let slot = StockSlot { location: Location::new("berlin")?, replica, sequence: 1, counters };
//!
//! // One replica writes, and claims its own write.
//! let mut here = Shard::new(0);
//! here.merge(&[(Sku::new("MUG-01")?, Product::of_stock(slot))]);
//! here.claim_range(replica, 1, 1);
//!
//! // Another one lacks it: it gets the slots that its vector does not cover, merges them, and claims what came whole.
//! let mut there = Shard::new(0);
//! let chunk = here.extract(there.version(), Bound::Unbounded, 1 << 16);
//! assert!(chunk.next.is_none());
//! there.merge(&chunk.products);
//! there.claim(&chunk.version);
//!
//! assert_eq!(there.get("MUG-01").map(|product| product.on_hand()), Some(97));
//! assert_eq!((there.fingerprint(), there.version()), (here.fingerprint(), here.version()));
//! // Once more changes nothing.
//! assert_eq!(there.merge(&chunk.products).slots_changed, 0);
//! # Ok::<(), stockmesh_proto::InvalidInput>(())
//! ```
//!
//! # The ideas
//!
//! Shapiro et al. 2011, "Conflict-free Replicated Data Types" (counters, registers, joins); Almeida et al. 2018, "Delta
//! State Replicated Data Types"; Kulkarni et al. 2014, "Logical Physical Clocks"; Balegas et al. 2015, "Extending
//! Eventually Consistent Cloud Databases for Enforcing Numeric Invariants", for the rights
//! to sell.
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
pub mod slot;
mod inheritance;
pub mod product;
pub mod counted;
pub mod rights;

pub mod delta;
mod product_map;
pub mod shard;

pub mod hold;
pub mod member;
pub mod movement;
pub mod operation;
pub mod wire;

pub mod check;

pub mod gossip;
pub mod topology;

pub mod demand;
pub mod grant;
pub mod asking;

pub mod retirement;

pub mod reconcile;
pub mod joining;

pub mod membership;

pub use fingerprint::Fingerprint;
pub use id::{ClusterId, Dot, InvalidInput, Location, Quantity, Reference, ReplicaId, ShardCount, ShardIndex, Sku};
pub use iso_currency::Currency;
pub use price::Price;
pub use rust_decimal::Decimal;
pub use shard::Shard;
pub use version::VersionVector;
