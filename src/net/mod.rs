//! The network: mutually authenticated QUIC links, reconciliation with random peers, and pushes.
//!
//! Modules in reading order: `address` (what may be dialled), `discovery` (where nodes may be found), `certificate` and
//! `validity` (what one says of itself), `identity` (certificates and TLS), `revocation` (certificates that are not let
//! in), `frames` (frames on streams), `refusal` (why a link ends), `mail` (what applications send each other), `members`
//! (who belongs to the cluster), `link` and `registry` (what is known of links and peers), `targets` and `own_dials` (what
//! is known of those that are dialled), `rights` (who waits for them), `shared` (what all tasks share), `trust` (whether
//! links may go on), `expiring` (the end of the own certificate), `handshake`, `handshakes` (how many there may be),
//! `session` (drives the core's state machine), `verdict` (on peers that break rules), `push`, `exchange` (asking for
//! rights and giving them), `messages`, `serve` (one link's tasks), `dial`, `topology` (keeps the links that the core
//! chooses), `sources` (listens to discovery), and `node`, which starts them all.

mod address;
mod certificate;
mod dial;
mod discovery;
mod exchange;
mod expiring;
mod frames;
mod handshake;
mod handshakes;
mod identity;
mod link;
mod mail;
mod members;
mod messages;
mod node;
mod own_dials;
mod push;
mod refusal;
mod registry;
mod revocation;
mod rights;
mod serve;
mod session;
mod shared;
mod sources;
mod targets;
#[cfg(feature = "testing")]
mod testing;
mod topology;
mod trust;
mod validity;
mod verdict;

pub(crate) use address::check_address;
pub use certificate::{CertificateFingerprint, InvalidFingerprint};
pub use discovery::{Candidate, Discovery, DiscoveryError, Dns, Found};
pub use identity::{Identity, IdentityError};
pub use mail::{PeerMessage, SendError};
pub use members::{Member, MemberState};
pub(crate) use node::{Node, NodeSettings};
pub use registry::{LinkState, PeerStatus, Refused};
pub(crate) use revocation::RevocationFile;
pub(crate) use sources::TopologySettings;
pub use targets::{DialStatus, SourceStatus};
