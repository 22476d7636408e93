//! The clients that a node has: how many, and until when.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use metrics::{counter, gauge};
use parking_lot::Mutex;
use quinn::Connection;
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tracing::warn;

use super::refusal::CloseCode;
use crate::certificate::CertificateFingerprint;
use crate::limits::{CLIENTS_MAX, CLIENTS_OF_CERTIFICATE_MAX};

/// An open connection of a client.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) connection: Connection,
    /// The client's certificate, and what it sent along.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) fingerprint: CertificateFingerprint,
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

/// What a client needs of the node that let it in.
pub(super) trait Host: Send + Sync {
    /// Whether the certificate of a connection allows it to change anything.
    fn may_write(&self, connection: &Connection) -> bool;
    /// Keeps a reason for the operator.
    fn note_refusal(&self, address: SocketAddr, reason: String);
}

/// A client that was let in, and counts as one for as long as this lives.
#[derive(Debug)]
pub(crate) struct ClientLink {
    pub(crate) connection: Connection,
    number: u64,
    entries: Arc<Mutex<Entries>>,
    /// Weak, since clients that wait are kept there.
    host: Weak<dyn Host>,
}

impl ClientLink {
    /// Whether the client's certificate allows it to change anything.
    pub(crate) fn may_write(&self) -> bool {
        self.host.upgrade().is_some_and(|host| host.may_write(&self.connection))
    }

    /// Closes the connection of a client that broke a rule, and keeps the reason for the operator.
    pub(crate) fn punish(&self, reason: &str) {
        let address = self.connection.remote_address();
        counter!("stockmesh_client_violations_total").increment(1);
        warn!(%address, reason, "a client broke a rule");
        if let Some(host) = self.host.upgrade() {
            host.note_refusal(address, format!("a client broke a rule: {reason}"));
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
    pub(super) fn review(&self, untrusted: impl Fn(&Entry) -> Option<String>) {
        let open: Vec<Entry> = self.entries.lock().open.values().cloned().collect();
        for entry in open {
            if let Some(reason) = untrusted(&entry) {
                entry.connection.close(CloseCode::NotTrusted.code(), reason.as_bytes());
            }
        }
    }

    /// Hands a client to whoever serves it; gives it back if nobody does.
    pub(super) fn hand_up(&self, client: ClientLink) -> Option<ClientLink> {
        match &self.waiting {
            Some(waiting) => waiting.try_send(client).err().map(mpsc::error::TrySendError::into_inner),
            None => Some(client),
        }
    }

    /// Closes all connections.
    pub(super) fn close_all(&self, code: CloseCode, reason: &str) {
        for entry in self.entries.lock().open.values() {
            entry.connection.close(code.code(), reason.as_bytes());
        }
    }

    /// Takes a place for a client, if there is one.
    pub(super) fn enter(&self, entry: Entry, host: Weak<dyn Host>) -> Result<ClientLink, String> {
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
        Ok(ClientLink { connection, number, entries: Arc::clone(&self.entries), host })
    }
}
