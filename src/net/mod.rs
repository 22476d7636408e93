//! The network: mutually authenticated QUIC links, reconciliation with random peers, and pushes.
//!
//! Modules in reading order: `certificate` and `validity` (what one says of itself), `identity` (certificates and TLS),
//! `revocation` (certificates that are not let in), `frames` (frames on streams), `refusal` (why a link ends), `faulty` (a network that loses, for tests), `mail`
//! (what applications send each other), `members` (who belongs to the cluster), `link` and `registry` (what is known of
//! links and peers), `rights` (who waits for
//! them), `shared` (what all tasks share), `trust` (whether links may go on), `expiring` (the end of the own certificate),
//! `handshake`, `handshakes` (how many there may be), `session` (drives the core's state machine), `verdict` (on peers that
//! break rules), `push`, `exchange` (asking for rights and giving them), `messages`, `retire` (replicas that
//! never return), `hand_over` (holds of nodes that leave), `serve` (one link's tasks), `dial`,
//! `clients` (programs that connect; optional), `node`, which starts them all, and `departing` (what it does about nodes that go).

mod certificate;
#[cfg(feature = "clients")]
mod clients;
mod departing;
mod dial;
mod exchange;
mod expiring;
#[cfg(feature = "testing")]
mod faulty;
mod frames;
mod hand_over;
mod handshake;
mod handshakes;
mod identity;
mod link;
mod mail;
mod members;
mod messages;
mod node;
mod push;
mod refusal;
mod registry;
mod retire;
mod revocation;
mod rights;
mod serve;
mod session;
mod shared;
mod trust;
mod validity;
mod verdict;

pub use certificate::{CertificateFingerprint, InvalidFingerprint};
#[cfg(feature = "clients")]
pub(crate) use clients::{ClientLink, Dialled, dial_as_client};
pub(crate) use dial::check_address;
#[cfg(feature = "testing")]
pub use faulty::FaultyNetwork;
#[cfg(feature = "clients")]
pub(crate) use frames::{FrameError, read_frame, write_frame};
pub use identity::{Identity, IdentityError};
pub use mail::{PeerMessage, SendError};
pub use members::{Member, MemberState};
pub(crate) use node::{Node, NodeSettings};
#[cfg(feature = "clients")]
pub(crate) use refusal::{CloseCode, explain};
pub use registry::{LinkState, PeerStatus, Refused};
pub(crate) use retire::RetireRequest;
pub(crate) use revocation::RevocationFile;
