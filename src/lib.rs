//! stockmesh: an embedded, replicated inventory store.
//!
//! Modules in reading order, each resting on those above it only.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod clock;
pub mod storage;
mod error;

mod table;
mod view;
mod query;
mod subscribe;

mod settings;
mod commit;
mod recovery;

mod net;

mod replica;
mod product;
mod batch;
mod status;
mod store;
mod builder;

mod inspect;

#[cfg(feature = "certificates")]
pub mod certificates;
#[cfg(feature = "transactions")]
pub mod transactions;

pub use batch::Batch;
pub use builder::Builder;
pub use error::{CloseError, GetError, OpenError, ReplicationError, WriteError};
pub use inspect::{InspectError, Inspection, inspect};
pub use net::{Identity, IdentityError, LinkState, PeerStatus, Refused};
pub use product::{Product, Reason};
pub use query::{Products, Query};
pub use recovery::DamagePolicy;
pub use status::{Durability, Status};
pub use store::Store;
pub use subscribe::{Change, Changes, Filter};
pub use view::{ProductView, StockView};

pub use stockmesh_proto::{ClusterId, Currency, Decimal, Fingerprint, InvalidInput, Location, Price, ReplicaId, Sku};
