//! Clients: programs that connect as what they are, and not as peers (section 19 of the protocol). This floor lets them in
//! and hands them up; what they ask for is answered above, where the store is.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};

use metrics::{counter, gauge};
use parking_lot::Mutex;
use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Endpoint, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::certificate::CertificateFingerprint;
use super::identity::{Identity, SERVER_NAME};
use super::refusal::{CloseCode, explain};
use super::shared::{Shared, SharedInner};
use super::tls::ALPN_OF_CLIENTS;
use super::trust::revoked;
use crate::limits::{CLIENT_WINDOW_BYTES, CLIENTS_MAX, CLIENTS_OF_CERTIFICATE_MAX, CONNECT_TIME_MAX, DIAL_TARGETS_MAX};

/// An open connection of a client.
#[derive(Clone, Debug)]
struct Entry {
    connection: Connection,
    /// The client's certificate, and what it sent along.
    chain: Vec<CertificateDer<'static>>,
    fingerprint: CertificateFingerprint,
}

#[derive(Debug, Default)]
struct Entries {
    open: BTreeMap<u64, Entry>,
    last: u64,
}

/// The clients of a node.
#[derive(Debug)]
pub(super) struct Clients {
    entries: Arc<Mutex<Entries>>,
    /// `None` if no clients are wanted.
    waiting: Option<mpsc::Sender<ClientLink>>,
    queue: Mutex<Option<mpsc::Receiver<ClientLink>>>,
}

/// A client that was let in, and counts as one for as long as this lives.
#[derive(Debug)]
pub(crate) struct ClientLink {
    pub(crate) connection: Connection,
    number: u64,
    entries: Arc<Mutex<Entries>>,
    /// Weak, since clients that wait are kept there.
    shared: Weak<SharedInner>,
}

impl ClientLink {
    /// Whether the client's certificate allows it to change anything.
    pub(crate) fn may_write(&self) -> bool {
        self.shared.upgrade().is_some_and(|shared| may_write(&self.connection, &shared))
    }

    /// Closes the connection of a client that broke a rule, and keeps the reason for the operator.
    pub(crate) fn punish(&self, reason: &str) {
        let address = self.connection.remote_address();
        counter!("stockmesh_client_violations_total").increment(1);
        warn!(%address, reason, "a client broke a rule");
        if let Some(shared) = self.shared.upgrade() {
            shared.registry.note_refusal(address, format!("a client broke a rule: {reason}"));
        }
        self.connection.close(CloseCode::Violation.code(), reason.as_bytes());
    }
}

impl Drop for ClientLink {
    fn drop(&mut self) {
        // Whoever served it is gone, so nobody would answer.
        self.connection.close(CloseCode::Closing.code(), b"the node does not serve this client any more");
        self.entries.lock().open.remove(&self.number);
        gauge!("stockmesh_clients").decrement(1.0);
    }
}

/// Whether the certificate of a connection allows to write: that of a read-only member does not (rule K2).
fn may_write(connection: &Connection, shared: &SharedInner) -> bool {
    let identity = shared.current.borrow().identity.clone();
    identity.certified(&Identity::chain_of_peer(connection)).is_ok_and(|certified| !certified.read_only)
}

impl Clients {
    pub(super) fn new(are_wanted: bool) -> Self {
        // There are never more than may be connected.
        let (waiting, queue) = mpsc::channel(CLIENTS_MAX);
        let (waiting, queue) = if are_wanted { (Some(waiting), Some(queue)) } else { (None, None) };
        Self { entries: Arc::default(), waiting, queue: Mutex::new(queue) }
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.waiting.is_some()
    }

    /// Where clients come out; for whoever takes it first.
    pub(super) fn queue(&self) -> Option<mpsc::Receiver<ClientLink>> {
        self.queue.lock().take()
    }

    /// Closes those that are not trusted any more. What certificate this node has plays no part: they judged it when they
    /// connected.
    pub(super) fn review(&self, shared: &Shared) {
        let open: Vec<Entry> = self.entries.lock().open.values().cloned().collect();
        for entry in open {
            if let Some(reason) = entry.untrusted(shared) {
                entry.connection.close(CloseCode::NotTrusted.code(), reason.as_bytes());
            }
        }
    }

    /// Closes all connections.
    pub(super) fn close_all(&self, code: CloseCode, reason: &str) {
        for entry in self.entries.lock().open.values() {
            entry.connection.close(code.code(), reason.as_bytes());
        }
    }

    /// Takes a place for a client, if there is one.
    fn enter(&self, entry: Entry, shared: &Shared) -> Result<ClientLink, String> {
        let connection = entry.connection.clone();
        let mut entries = self.entries.lock();
        if entries.open.len() >= CLIENTS_MAX {
            return Err(format!("this node has {CLIENTS_MAX} clients already: try again later"));
        }
        let same = entries.open.values().filter(|other| other.fingerprint == entry.fingerprint).count();
        if same >= CLIENTS_OF_CERTIFICATE_MAX {
            return Err(format!(
                "this node has {CLIENTS_OF_CERTIFICATE_MAX} clients with the certificate {} already",
                entry.fingerprint
            ));
        }
        entries.last += 1;
        let number = entries.last;
        entries.open.insert(number, entry);
        gauge!("stockmesh_clients").increment(1.0);
        Ok(ClientLink { connection, number, entries: Arc::clone(&self.entries), shared: Arc::downgrade(&shared.0) })
    }
}

impl Entry {
    fn untrusted(&self, shared: &Shared) -> Option<String> {
        let identity = shared.current.borrow().identity.clone();
        let of_authority = || {
            let error = identity.trusts(&self.chain, true).err()?;
            Some(format!("the node does not trust the certificate {} any more ({error})", self.fingerprint))
        };
        revoked(self.fingerprint, shared).or_else(of_authority)
    }
}

/// Whether a connection is a client's: it said so in the TLS handshake (rule X1).
pub(super) fn is_client(connection: &Connection) -> bool {
    let data = connection.handshake_data().and_then(|any| any.downcast::<HandshakeData>().ok());
    data.and_then(|data| data.protocol).is_some_and(|protocol| protocol == ALPN_OF_CLIENTS)
}

/// Lets a client in and hands it up, or says why not.
pub(super) fn admit(connection: Connection, shared: &Shared) -> Result<(), String> {
    // It asks, and is answered: nothing that it sends needs much room, and what waits for it should not take much.
    connection.set_receive_window(VarInt::from_u32(CLIENT_WINDOW_BYTES));
    connection.set_send_window(u64::from(CLIENT_WINDOW_BYTES));
    let refuse = |code: CloseCode, reason: String| {
        connection.close(code.code(), reason.as_bytes());
        Err(reason)
    };
    let chain = Identity::chain_of_peer(&connection);
    let Some(certificate) = chain.first() else {
        return refuse(CloseCode::Refused, "the client has no certificate".into());
    };
    let fingerprint = CertificateFingerprint::of_der(certificate);
    let entry = Entry { connection: connection.clone(), chain, fingerprint };
    let client = match shared.clients.enter(entry.clone(), shared) {
        Ok(client) => client,
        Err(reason) => return refuse(CloseCode::Refused, reason),
    };
    // Only now that it is among those that are looked at when the trust changes, so that one of the two sees the other.
    if let Some(reason) = entry.untrusted(shared) {
        return refuse(CloseCode::NotTrusted, reason);
    }
    if shared.is_offline() {
        return refuse(CloseCode::Offline, "the node is offline for now; try again later".into());
    }
    info!(address = %connection.remote_address(), certificate = %fingerprint, "a client connected");
    if shared.clients.waiting.as_ref().is_none_or(|waiting| waiting.try_send(client).is_err()) {
        return refuse(CloseCode::Refused, "the node serves no clients now".into());
    }
    Ok(())
}

/// A connection to a node, as its client.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// Kept, since the connection ends with it.
    pub(crate) endpoint: Endpoint,
    pub(crate) connection: Connection,
}

/// Connects to a node as its client: to the first of the addresses of a name that answers.
///
/// # Errors
/// Why it could not be, for people. Nothing was sent then.
pub(crate) async fn dial_as_client(address: &str, identity: &Identity) -> Result<Dialled, String> {
    let deadline = Instant::now() + CONNECT_TIME_MAX;
    let resolving = tokio::time::timeout_at(deadline, tokio::net::lookup_host(address));
    let resolved = resolving.await.map_err(|_| "its name is not resolved in time".to_owned())?;
    let resolved: Vec<SocketAddr> =
        resolved.map_err(|error| format!("it cannot be resolved: {error}"))?.take(DIAL_TARGETS_MAX).collect();
    let mut last = "it resolves to no address".to_owned();
    for (target, left) in resolved.iter().zip((1..=resolved.len()).rev()) {
        // So that an address that is silent leaves time for the others.
        let share = deadline.saturating_duration_since(Instant::now()) / u32::try_from(left).unwrap_or(u32::MAX);
        match tokio::time::timeout(share, dial_one(*target, identity)).await {
            Ok(Ok(dialled)) => return Ok(dialled),
            Ok(Err(reason)) => last = reason,
            Err(_) => last = "no answer: no node listens there, or no UDP reaches it".to_owned(),
        }
    }
    Err(last)
}

async fn dial_one(target: SocketAddr, identity: &Identity) -> Result<Dialled, String> {
    let local = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let endpoint = Endpoint::client(SocketAddr::new(local, 0)).map_err(|error| format!("no socket: {error}"))?;
    let connecting = endpoint.connect_with(identity.as_client(), target, SERVER_NAME);
    let connecting = connecting.map_err(|error| format!("{target} cannot be dialled: {error}"))?;
    let connection = connecting.await.map_err(|error| match alert_of(&error) {
        Some(NO_COMMON_PROTOCOL) => {
            "the node takes no clients: `clients` is switched off there, or its software is older".to_owned()
        }
        _ => explain(&error),
    })?;
    Ok(Dialled { endpoint, connection })
}

/// RFC 8446, section 6.2.
const NO_COMMON_PROTOCOL: u64 = 120;

fn alert_of(error: &quinn::ConnectionError) -> Option<u64> {
    let code = match error {
        quinn::ConnectionError::ConnectionClosed(close) => u64::from(close.error_code),
        quinn::ConnectionError::TransportError(error) => u64::from(error.code),
        _ => return None,
    };
    code.checked_sub(0x100)
}
