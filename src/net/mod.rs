//! The network: mutually authenticated QUIC links, reconciliation with random peers, and pushes.
//!
//! Modules in reading order: `identity` (certificates and TLS), `frames` (frames on streams), `refusal` (why a link
//! ends), `link` and `registry` (what is known of links and peers), `shared` (what all
//! tasks share), `handshake`, `handshakes` (how many there may be), `session` (drives the core's state
//! machine), `push`, `rights` (asking for them and giving them), `serve` (one link's tasks), `dial`, and `node`, which starts them all.

mod dial;
mod frames;
mod handshake;
mod handshakes;
mod identity;
mod link;
mod node;
mod push;
mod refusal;
mod registry;
mod rights;
mod serve;
mod session;
mod shared;

pub(crate) use dial::check_address;
pub use identity::{Identity, IdentityError};
pub(crate) use node::{Node, NodeSettings};
pub use registry::{LinkState, PeerStatus, Refused};
