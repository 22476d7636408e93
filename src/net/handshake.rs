//! The hello: who is there, and whether the two belong together (rules H1, H2).

use quinn::{Connection, ConnectionError};
use stockmesh_proto::ReplicaId;
use stockmesh_proto::limits::HELLO_BYTES_MAX;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::{Hello, Message, Refusal, RefusalCode};
use tokio::time::Instant;

use super::certificate::CertificateFingerprint;
use super::frames::{FrameError, read_message, write_message};
use super::identity::Identity;
use super::own_dials::LEADS_HERE;
use super::refusal::{CloseCode, explain};
use super::shared::Shared;
use super::trust::{may_take_ids, retired, revoked};
use crate::limits::{HANDSHAKE_TIME_MAX, REFUSAL_TIME_MAX};

/// Name and version of this software.
pub(super) const SOFTWARE: &str = concat!("stockmesh ", env!("CARGO_PKG_VERSION"));

/// Features that this version demands of a peer.
const FEATURES_REQUIRED: u64 = 0;
/// Features that this version knows.
const FEATURES_KNOWN: u64 =
    FEATURE_RIGHTS | FEATURE_MESSAGES | FEATURE_MEMBERSHIP | FEATURE_PULLS | FEATURE_RETIREMENT | FEATURE_SURPLUS;
/// The node answers questions for rights (rule B4).
const FEATURE_RIGHTS: u64 = 1;

/// The node takes messages of the application and answers pings (rule A1).
const FEATURE_MESSAGES: u64 = 2;

/// The node takes datagrams of membership, and exchanges member lists (rule N3).
const FEATURE_MEMBERSHIP: u64 = 4;

/// Whether a peer takes part in membership.
pub(super) fn knows_membership(hello: &Hello) -> bool {
    (hello.features_known | hello.features_required) & FEATURE_MEMBERSHIP != 0
}

/// The node answers surveys and serves pulls (rules J1, J2).
const FEATURE_PULLS: u64 = 8;

/// The node takes part in retiring replicas, and takes holds of those that leave (rules Q1, Q8).
const FEATURE_RETIREMENT: u64 = 16;

/// The node bears that a link is ended as surplus, and leaves the peer alone for a while then (rule T4).
const FEATURE_SURPLUS: u64 = 32;

/// Whether a peer's link may be ended as surplus.
pub(super) fn knows_surplus(hello: &Hello) -> bool {
    (hello.features_known | hello.features_required) & FEATURE_SURPLUS != 0
}

/// Whether a peer may be asked for rights.
pub(super) fn knows_rights(hello: &Hello) -> bool {
    (hello.features_known | hello.features_required) & FEATURE_RIGHTS != 0
}

/// Whether a peer may be sent messages of the application.
pub(super) fn knows_messages(hello: &Hello) -> bool {
    (hello.features_known | hello.features_required) & FEATURE_MESSAGES != 0
}

/// Whether a peer may be surveyed and pulled from.
pub(super) fn knows_pulls(hello: &Hello) -> bool {
    (hello.features_known | hello.features_required) & FEATURE_PULLS != 0
}

/// Whether a peer takes part in retiring replicas.
pub(super) fn knows_retirement(hello: &Hello) -> bool {
    (hello.features_known | hello.features_required) & FEATURE_RETIREMENT != 0
}

/// The link did not come up. The text says why and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(super) struct HandshakeError {
    pub(super) reason: String,
}

impl HandshakeError {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

impl From<ConnectionError> for HandshakeError {
    fn from(error: ConnectionError) -> Self {
        Self::new(explain(&error))
    }
}

/// What the two sides told each other.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) theirs: Hello,
    /// This node's replica id, as the peer knows it now.
    pub(super) told: ReplicaId,
}

/// The dialler's side: says hello and waits for the answer. A link counts as up only then, since the TLS handshake
/// ends here before the peer has judged this node's certificate.
pub(super) async fn greet(
    connection: &Connection,
    identity: &Identity,
    deadline: Instant,
    shared: &Shared,
) -> Result<Greeting, HandshakeError> {
    let exchange = async {
        let (mut send, mut receive) = connection.open_bi().await?;
        let own = hello(connection, identity, shared);
        write_message(&mut send, &Message::Hello(own.clone())).await.map_err(|error| ended(connection, &error))?;
        match read_message(&mut receive, HELLO_BYTES_MAX, None).await {
            Ok(Some(Message::Hello(theirs))) => {
                let verdict = admissible(connection, &theirs, identity, shared);
                match verdict.and_then(|()| judge(&own, &theirs, shared)) {
                    Ok(()) => Ok(Greeting { theirs, told: own.replica }),
                    Err(refusal) => {
                        connection.close(code_of(&refusal).code(), refusal.reason.as_bytes());
                        Err(HandshakeError::new(refusal.reason))
                    }
                }
            }
            Ok(Some(Message::Refuse(refusal))) => {
                if refusal.code == RefusalCode::Retired && may_take_ids(connection, shared) {
                    let _ = shared.committer.retired_here(own.replica).await;
                }
                Err(HandshakeError::new(refusal.reason))
            }
            Ok(_) => Err(HandshakeError::new("the peer answered the hello with something else")),
            Err(error) => Err(ended(connection, &error)),
        }
    };
    until(deadline, exchange).await
}

/// The other side: waits for the hello and answers it, or refuses with the reason.
pub(super) async fn welcome(
    connection: &Connection,
    identity: &Identity,
    deadline: Instant,
    shared: &Shared,
) -> Result<Greeting, HandshakeError> {
    let exchange = async {
        let (mut send, mut receive) = connection.accept_bi().await?;
        let theirs = match read_message(&mut receive, HELLO_BYTES_MAX, None).await {
            Ok(Some(Message::Hello(theirs))) => theirs,
            Ok(_) => return Err(HandshakeError::new("the peer began with something else than a hello")),
            Err(error) => return Err(ended(connection, &error)),
        };
        let own = hello(connection, identity, shared);
        let told = own.replica;
        if shared.own_dials.meets_itself(connection) {
            // No peer that could be told anything; the dialling side of this node knows now.
            connection.close(CloseCode::Refused.code(), LEADS_HERE.as_bytes());
            return Err(HandshakeError::new(LEADS_HERE));
        }
        let verdict = admissible(connection, &theirs, identity, shared).and_then(|()| judge(&theirs, &own, shared));
        let answer = match &verdict {
            Ok(()) => Message::Hello(own),
            Err(refusal) => Message::Refuse(refusal.clone()),
        };
        write_message(&mut send, &answer).await.map_err(|error| ended(connection, &error))?;
        let _ = send.finish();
        match verdict {
            Ok(()) => Ok(Greeting { theirs, told }),
            Err(refusal) => {
                // Closing at once would overtake the reason.
                let _ = tokio::time::timeout(REFUSAL_TIME_MAX, send.stopped()).await;
                connection.close(code_of(&refusal).code(), refusal.reason.as_bytes());
                Err(HandshakeError::new(refusal.reason))
            }
        }
    };
    until(deadline, exchange).await
}

async fn until(
    deadline: Instant,
    exchange: impl Future<Output = Result<Greeting, HandshakeError>>,
) -> Result<Greeting, HandshakeError> {
    let late = |_| HandshakeError::new(format!("no hello within {} s", HANDSHAKE_TIME_MAX.as_secs()));
    tokio::time::timeout_at(deadline, exchange).await.map_err(late)?
}

/// What the connection's end says is more telling than what the stream saw of it.
fn ended(connection: &Connection, error: &FrameError) -> HandshakeError {
    let reason = connection.close_reason().map(|reason| explain(&reason));
    HandshakeError::new(reason.unwrap_or_else(|| error.to_string()))
}

fn hello(connection: &Connection, identity: &Identity, shared: &Shared) -> Hello {
    let read_only = identity.is_read_only();
    Hello {
        cluster: shared.cluster.clone(),
        replica: shared.table.own(),
        location: shared.location.clone(),
        shards: u32::from(shared.table.count().get()),
        clock_ms: shared.wall.now_ms(),
        features_required: FEATURES_REQUIRED,
        // A read-only member has no rights to give, whatever it had before (rule K2).
        features_known: if read_only { FEATURES_KNOWN & !FEATURE_RIGHTS } else { FEATURES_KNOWN },
        software: SOFTWARE.to_owned(),
        read_only,
        observed: Some(connection.remote_address()),
    }
}

/// With which code a connection ends whose hello was refused.
fn code_of(refusal: &Refusal) -> CloseCode {
    if refusal.code == RefusalCode::Retired { CloseCode::Retired } else { CloseCode::Refused }
}

/// Whether the peer's certificate lets it in, as what its hello says it is. Its authority and its time the TLS handshake
/// has judged.
fn admissible(connection: &Connection, theirs: &Hello, identity: &Identity, shared: &Shared) -> Result<(), Refusal> {
    let refuse = |code, reason: String| Err(Refusal { code, reason });
    if let Some(reason) = retired(theirs.replica, shared) {
        return Err(Refusal { code: RefusalCode::Retired, reason });
    }
    let chain = Identity::chain_of_peer(connection);
    let certificate = chain.first().map(|certificate| CertificateFingerprint::of_der(certificate));
    if let Some(reason) = certificate.and_then(|certificate| revoked(certificate, shared)) {
        return refuse(RefusalCode::Revoked, reason);
    }
    let now = tokio::time::Instant::now();
    if let Some(left) = certificate.and_then(|certificate| shared.penalties.left(certificate, now)) {
        let reason = format!(
            "the node was over its limits, and is let in again in {} s: find out what it sends so much of",
            left.as_secs() + 1
        );
        return refuse(RefusalCode::TooMuch, reason);
    }
    let certified = match identity.certified(&chain) {
        Ok(certified) => certified,
        Err(error) => return refuse(RefusalCode::OtherNode, error.to_string()),
    };
    if let Some(location) = certified.location.filter(|location| *location != theirs.location) {
        let reason = format!(
            "the certificate is of a node at {location}, the node says that it is at {}: set its `location`, or issue \
             another certificate",
            theirs.location
        );
        return refuse(RefusalCode::OtherNode, reason);
    }
    if certified.read_only != theirs.read_only {
        let role = |read_only| if read_only { "a read-only member" } else { "a full member" };
        let reason = format!(
            "by its certificate the node is {}, by its hello {}: update it, or give it the same lists of keys as the others",
            role(certified.read_only),
            role(theirs.read_only)
        );
        return refuse(RefusalCode::ReadOnly, reason);
    }
    Ok(())
}

/// Whether the two belong together. The texts name the dialler first, so that both sides read the same.
fn judge(dialler: &Hello, listener: &Hello, shared: &Shared) -> Result<(), Refusal> {
    let refuse = |code, reason: String| Err(Refusal { code, reason });
    if shared.is_offline() {
        return refuse(RefusalCode::Offline, "the node is offline for now; dial again later".into());
    }
    if dialler.cluster != listener.cluster {
        return refuse(
            RefusalCode::OtherCluster,
            format!(
                "the dialling node is of cluster {}, the other of cluster {}: check the setting `cluster` of both",
                dialler.cluster, listener.cluster
            ),
        );
    }
    if dialler.shards != listener.shards {
        return refuse(
            RefusalCode::OtherShardCount,
            format!(
                "the dialling node has {} shards, the other {}: all nodes of a cluster need the same `shards`",
                dialler.shards, listener.shards
            ),
        );
    }
    if dialler.replica == listener.replica {
        return refuse(
            RefusalCode::SameReplica,
            format!(
                "both nodes are replica {}: one data directory is a copy of the other; stop one and empty its directory",
                dialler.replica
            ),
        );
    }
    let missing =
        |needs: &Hello, knows: &Hello| needs.features_required & !(knows.features_known | knows.features_required);
    let unknown = missing(dialler, listener) | missing(listener, dialler);
    if unknown != 0 {
        return refuse(
            RefusalCode::UnknownFeature,
            format!("a node requires features {unknown:#x} that the other does not know: update the older one"),
        );
    }
    let skew_ms = dialler.clock_ms.abs_diff(listener.clock_ms);
    if skew_ms > shared.drift_ms_max {
        return refuse(
            RefusalCode::ClockSkew,
            format!(
                "the clocks differ by {skew_ms} ms, {} ms are allowed: set the clock of the node that is off",
                shared.drift_ms_max
            ),
        );
    }
    Ok(())
}
