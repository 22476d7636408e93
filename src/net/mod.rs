//! The network: mutually authenticated QUIC links, reconciliation with random peers, and pushes.
//!
//! Modules in reading order: `address` (what may be dialled), `discovery` (where nodes may be found), `der`, `validity` and `certified` (what a certificate says), `raw_keys` (keys in place of certificates), `tls` (how links are
//! secured), `identity` (certificates),
//! `revocation` (certificates that are not let in), `frames` (frames on streams), `refusal` (why a link ends), `faulty` (a network that loses, for tests), `mail`
//! (what applications send each other), `members` (who belongs to the cluster), `meter` (what a peer sends), `penalties` (peers that
//! sent too much), `bindings` (whose a replica id is), `link` and `registry` (what is known of
//! links and peers), `sightings` (what membership is told), `targets` and `own_dials` (what is known of those that are dialled), `rights` (who waits for
//! them), `catch_up` (what this node still lacks), `shared` (what all tasks share), `trust` (whether links may go on), `expiring` (the end of the own certificate),
//! `handshake`, `handshakes` (how many there may be), `session` (drives the core's state machine), `pull` (from several
//! peers at once), `verdict` (on peers that
//! break rules), `push`, `exchange` (asking for rights and giving them), `messages`, `membership` (finding out who
//! lives), `fencing` and `retire` (replicas that
//! never return), `hand_over` (holds of nodes that leave), `serve` (one link's tasks), `dial`,
//! `topology` (keeps the links that the core chooses), `sources` (listens to discovery),
//! `clients` (programs that connect; optional), `accept` (who dials in), `turns` (whom this node reconciles with), `node`, which starts them all,
//! `confirming` (what peers confirm), and `departing` (what the node does about nodes that go).

use crate::certificate;

mod accept;
mod address;
mod bindings;
mod catch_up;
mod certified;
mod der;
#[cfg(feature = "clients")]
mod client_links;
#[cfg(feature = "clients")]
mod clients;
mod confirming;
mod departing;
mod dial;
mod discovery;
mod exchange;
mod expiring;
#[cfg(feature = "testing")]
mod faulty;
mod fencing;
mod frames;
mod hand_over;
mod handshake;
mod handshakes;
mod identity;
mod link;
mod mail;
mod members;
mod membership;
mod messages;
mod meter;
mod node;
mod own_dials;
mod penalties;
mod pull;
mod push;
mod raw_keys;
mod refusal;
mod registry;
mod retire;
mod retiring;
mod revocation;
mod rights;
#[cfg(feature = "testing")]
mod seeded;
mod serve;
mod session;
mod shared;
mod sightings;
mod tls;
mod sources;
mod stranded;
mod targets;
#[cfg(feature = "testing")]
mod testing;
mod topology;
mod turns;
mod trust;
mod validity;
mod verdict;
mod wishes;

pub(crate) use address::check_address;
pub use catch_up::JoinProgress;
#[cfg(feature = "clients")]
pub(crate) use client_links::ClientLink;
#[cfg(feature = "clients")]
pub(crate) use clients::{Dialled, dial_as_client};
pub use discovery::{Candidate, Discovery, DiscoveryError, Dns, Found};
#[cfg(feature = "testing")]
pub(crate) use faulty::TestNetwork;
#[cfg(feature = "testing")]
pub use faulty::{EndpointMaker, FaultyNetwork};
#[cfg(feature = "clients")]
pub(crate) use frames::{FrameError, read_frame, write_frame};
pub use identity::{Identity, IdentityError};
pub use mail::{PeerMessage, SendError};
pub(crate) use membership::MembershipSettings;
pub use meter::PeerLimits;
pub(crate) use node::{Node, NodeSettings};
#[cfg(feature = "clients")]
pub(crate) use refusal::{CloseCode, explain};
pub use registry::{LinkState, PeerStatus, Refused};
pub(crate) use revocation::RevocationFile;
pub(crate) use sources::TopologySettings;
pub use targets::{DialStatus, SourceStatus};
pub(crate) use wishes::{Asker, RetireRequest};
