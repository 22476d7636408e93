//! Programs that act on a running node over the network: what a node does for them, and [`Client`], by which they ask.
//!
//! A client is no peer. It connects to the node's one address under a protocol of its own, with a certificate of the
//! cluster's authority, and asks; the node acts as if its embedder had called. A node takes clients only if told to,
//! with [`Builder::clients`](crate::Builder::clients).
//!
//! ```no_run
//! use std::time::Duration;
//! use stockmesh::Identity;
//! use stockmesh::clients::{Client, ClientError, Goods};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let identity = Identity::from_pem("ca.pem", "till.pem", "till.key")?;
//! let client = Client::connect("berlin.example:7400", identity).await?;
//!
//! let mugs = Goods::of("MUG-01")?.reference("order-7/1")?;
//! match client.sell(&mugs, 2).await {
//!     Ok(()) => println!("sold"),
//!     Err(ClientError::Insufficient { here, .. }) => println!("no: {here} are left here"),
//!     Err(error) => return Err(error.into()),
//! }
//! let hold = client.hold(&Goods::of("PLATE-07")?.at("shop")?, 5, Duration::from_secs(900)).await?;
//! client.commit_hold(hold.id.0, Some(4)).await?;
//! for product in client.get(&["MUG-01", "PLATE-07"]).await?.products {
//!     println!("{}: {} available", product.sku, product.available);
//! }
//! println!("{} links", client.status().await?.peers.len());
//! # Ok(())
//! # }
//! ```
//!
//! Modules in reading order: `tell` (what the store knows, as it is told), `turns` (requests under one reference, one at a
//! time), `answer` (requests become calls of the store), `serve` (one client's streams); and the other side: `error`,
//! `goods` (what a write is about), `connection` (one request, one answer), `client`, `listing` (answers that go on).

mod answer;
mod client;
mod connection;
mod error;
mod goods;
mod listing;
mod serve;
mod tell;
mod turns;

pub use client::Client;
pub use error::ClientError;
pub use goods::{Found, Goods};
pub use listing::{Listing, Watching};
pub(crate) use serve::serve;
pub use stockmesh_proto::wire::client::{
    Amount, Change, ChangeKind, DurabilityInfo, DurabilityState, FailureCode, HoldInfo, HoldStanding, Label,
    LocationStock, MemberCounts, MemberInfo, MemberStanding, PeerInfo, PeerState, ProductInfo, RefusalInfo,
    ResolvedInfo, Shown, StatusInfo, Text, Welcome,
};
