//! stockmesh: an embedded, replicated inventory store.
//!
//! Every node holds the catalogue, reads and sells without a round trip, goes on while it is cut off, and converges
//! with all others once any path exists. Stock is counted in counters that only their own replica raises, prices are
//! registers where the last writer wins (Shapiro et al. 2011, "Conflict-free Replicated Data Types"). Nodes talk over
//! QUIC with certificates on both sides.
//!
//! # The API on one screen
//!
//! ```no_run
//! use std::time::Duration;
//! use stockmesh::{Change, Currency, Filter, Identity, Price, Reason, Store};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = Store::builder()
//!     .data_dir("berlin.db") // or `in_memory()`
//!     .location("berlin")
//!     .listen("0.0.0.0:7400".parse()?)
//!     .identity(Identity::from_pem("ca.pem", "berlin.pem", "berlin.key")?)
//!     .peer("paris.example:7400")
//!     .open()
//!     .await?;
//!
//! // Writes: durable on this node's disk when they return.
//! let mug = store.product("MUG-01")?;
//! mug.receive(100).await?;
//! mug.sell(2).await?; // never more than there is, over all nodes
//! mug.reference("order-7")?.sell(1).deadline(Duration::from_millis(200)).await?; // a retry is not sold twice
//! let hold = mug.hold(5, Duration::from_secs(900)).await?;
//! hold.commit_part(4).await?; // or release; or it expires
//! mug.adjust(-3, Reason::Damaged).await?; // a fact, whatever there is
//! mug.set_price(Price::new("9.99".parse()?, Currency::EUR)?).await?;
//! mug.at("shop")?.stocktake(95).await?;
//! store.batch().receive("A", 5)?.sell("B", 1)?.transfer("C", "berlin", "shop", 2)?.commit().await?;
//!
//! // Reads: from memory, no await.
//! let view = store.get("MUG-01")?;
//! println!("{} of {} available at {:?}", view.available(), view.on_hand(), view.price());
//! for product in store.query().prefix("MUG").available_below(10).iter() {
//!     println!("order more of {}", product.sku());
//! }
//! let mut changes = store.subscribe(Filter::prefix("MUG").below(10));
//! while let Some(change) = changes.next().await {
//!     match change {
//!         Change::Product(view) => println!("{} changed", view.sku()),
//!         Change::LowStock { product, available, .. } => println!("{available} left of {}", product.sku()),
//!         _ => {}
//!     }
//! }
//! store.movements("MUG-01")?.write_csv(&mut std::io::stdout()).await?; // the ledger of this node
//!
//! // The cluster.
//! println!("{:?}", store.status().peers);
//! store.await_replicated(2, Duration::from_secs(5)).await?;
//! store.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//!
//! - **Units** are whole numbers: arguments of 64 bits, at most 10^12 each; sums of 128 bits, below zero if more went
//!   out than came in. Prices are exact decimals. There are no floats.
//! - **Errors** say what they mean for the data. [`WriteError`] tells *nothing was changed* from *indeterminate*.
//! - **Cost:** a read is a lock and a look-up; a write is a sync of the disk, shared with all writes that wait at the
//!   same time. So many writers at once, or one [`Batch`], are much faster than one write after the other.
//! - **A tokio runtime** must be there; syncing and recovery run on threads of their own.
//! - **Overselling:** [`Product::sell`], [`Product::hold`] and [`Product::transfer`] never take more than there is, over
//!   all nodes and through any cut; [`Product::adjust`] and [`Product::stocktake`] record facts. See the README for
//!   guarantees and their limits.
//! - **Metrics** go to the facade of the crate `metrics`, under names that begin with `stockmesh_`; logs to `tracing`.
//!
//! # Features
//!
//! `certificates` issues the certificates of a cluster, `transactions` reads CSV files, `clients` lets programs act on a
//! running node over the network, `mdns` finds nodes on the local network, `cli` is the program, and `testing` has disks that fail on purpose.
//!
//! Modules in reading order, each resting on those above it only.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod limits;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod simulation;
mod chance;
mod blocking;
mod sync;
mod watch;
mod clock;
mod certificate;
mod witness;
#[doc(hidden)]
pub mod storage;
mod error;
mod member;

mod table;
mod view;
mod query;
mod subscribe;

mod retirements;
mod settings;
mod commit;
mod recovery;
mod expiry;
mod inheriting;

mod net;

mod sales;
mod replica;
mod hold;
mod withdraw;
mod product;
mod batch;
mod ledger;
mod messages;
mod joining;
mod status;
mod retire;
mod leave;
mod store;
#[cfg(feature = "clients")]
pub mod clients;
mod builder;

mod inspect;

pub mod discovery {
    //! Where nodes of the cluster may be found: sources of addresses for [`Builder::discover`](crate::Builder::discover).

    pub use crate::net::{Candidate, Discovery, DiscoveryError, Dns, Found};
}
#[cfg(feature = "certificates")]
pub mod certificates;
#[cfg(feature = "transactions")]
pub mod transactions;

pub use batch::{Batch, Committed};
pub use builder::Builder;
pub use certificate::{CertificateFingerprint, InvalidFingerprint, NodeName};
pub use error::{
    CloseError, GetError, LeaveError, Left, OpenError, ReloadError, ReplicationError, RetireError, RevocationsError,
    WriteError,
};
pub use hold::{Hold, HoldId, HoldState, Resolved};
pub use inspect::{InspectError, Inspection, inspect};
pub use joining::{JoinProgress, Joining};
pub use leave::{HoldsAtLeave, Leave};
pub use ledger::{LedgerError, Movement, MovementKind, Movements};
pub use member::{Member, MemberState, MembershipTiming};
pub use messages::{Broadcast, Delivery, Messages, PeerMessage, SendError};
pub use net::{DialStatus, Identity, IdentityError, LinkState, PeerLimits, PeerStatus, Refused, SourceStatus};
#[cfg(feature = "testing")]
#[doc(hidden)]
pub use net::{EndpointMaker, FaultyNetwork};
pub use product::{Product, Reason};
pub use query::{Products, Query};
pub use recovery::DamagePolicy;
pub use retire::{Retire, Retired};
pub use status::{Durability, Status};
pub use storage::StorageError;
pub use store::Store;
pub use subscribe::{Change, Changes, Filter};
pub use view::{ProductView, StockView};
pub use withdraw::{HoldUnits, Sell, Transfer};
pub use witness::{Incarnation, Witness};

/// Models of all that several threads do at once.
#[cfg(test)]
#[cfg(stockmesh_shuttle)]
#[path = "../tests/concurrency/mod.rs"]
mod concurrency;

/// Compiles and runs the README's examples.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use stockmesh_proto::grant::{DemandShare, GrantPolicy, GrantRequest, NeedOnly};
pub use stockmesh_proto::operation::{OperationRefused, OversellPolicy, Shortfall};
pub use stockmesh_proto::{
    ClusterId, Currency, Decimal, Fingerprint, InvalidInput, Location, Price, Reference, ReplicaId, Sku,
};
