//! The network: mutually authenticated QUIC links, reconciliation with random peers, and pushes.
//!
//! Modules in reading order: `certificate` and `validity` (what one says of itself), `identity` (certificates and TLS),
//! `revocation` (certificates that are not let in), `frames` (frames on streams), `refusal` (why a link ends), `mail`
//! (what applications send each other), `members` (who belongs to the cluster), `link` and `registry` (what is known of
//! links and peers), `sightings` (what membership is told), `rights` (who waits for
//! them), `shared` (what all tasks share), `trust` (whether links may go on), `expiring` (the end of the own certificate),
//! `handshake`, `handshakes` (how many there may be), `session` (drives the core's state machine), `verdict` (on peers that
//! break rules), `push`, `exchange` (asking for rights and giving them), `messages`, `membership` (finding out who
//! lives), `serve` (one link's tasks), `dial`, and `node`, which starts them all.

mod certificate;
mod dial;
mod exchange;
mod expiring;
mod frames;
mod handshake;
mod handshakes;
mod identity;
mod link;
mod mail;
mod members;
mod membership;
mod messages;
mod node;
mod push;
mod refusal;
mod registry;
mod revocation;
mod rights;
mod serve;
mod session;
mod shared;
mod sightings;
mod trust;
mod validity;
mod verdict;

pub use certificate::{CertificateFingerprint, InvalidFingerprint};
pub(crate) use dial::check_address;
pub use identity::{Identity, IdentityError};
pub use mail::{PeerMessage, SendError};
pub(crate) use membership::MembershipSettings;
pub(crate) use node::{Node, NodeSettings};
pub use registry::{LinkState, PeerStatus, Refused};
pub(crate) use revocation::RevocationFile;
