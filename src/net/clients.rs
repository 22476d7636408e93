//! Clients: programs that connect as what they are, and not as peers (section 19 of the protocol). This floor lets them in
//! and hands them up; what they ask for is answered above, where the store is.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Endpoint, VarInt};
use tokio::time::Instant;
use tracing::info;

use super::certificate::CertificateFingerprint;
use super::client_links::{Entry, Host};
use super::identity::{Identity, SERVER_NAME};
use super::refusal::{CloseCode, explain};
use super::shared::{Shared, SharedInner};
use super::tls::ALPN_OF_CLIENTS;
use super::trust::untrusted_client;
use crate::limits::{CLIENT_WINDOW_BYTES, CONNECT_TIME_MAX, DIAL_TARGETS_MAX};

impl Host for SharedInner {
    /// That of a read-only member does not (rule K2).
    fn may_write(&self, connection: &Connection) -> bool {
        let identity = self.current.borrow().identity.clone();
        identity.certified(&Identity::chain_of_peer(connection)).is_ok_and(|certified| !certified.read_only)
    }

    fn note_refusal(&self, address: SocketAddr, reason: String) {
        self.registry.note_refusal(address, reason);
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
    let host: Weak<dyn Host> = Arc::<SharedInner>::downgrade(&shared.0);
    let client = match shared.clients.enter(entry.clone(), host) {
        Ok(client) => client,
        Err(reason) => return refuse(CloseCode::Refused, reason),
    };
    // Only now that it is among those that are looked at when the trust changes, so that one of the two sees the other.
    if let Some(reason) = untrusted_client(&entry, shared) {
        return refuse(CloseCode::NotTrusted, reason);
    }
    if shared.is_offline() {
        return refuse(CloseCode::Offline, "the node is offline for now; try again later".into());
    }
    info!(address = %connection.remote_address(), certificate = %fingerprint, "a client connected");
    if let Some(client) = shared.clients.hand_up(client) {
        // Before it is dropped, which closes it for another reason.
        let refused = refuse(CloseCode::Refused, "the node serves no clients now".into());
        drop(client);
        return refused;
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
