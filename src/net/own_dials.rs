//! Notices when a node dials itself: of the addresses of a name, one is often its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use parking_lot::Mutex;
use quinn::Connection;
use tokio::time::Instant;

use crate::limits::{OWN_ADDRESS_TIME, OWN_ADDRESSES_MAX};

/// Both ends of a connection, and nobody else, can tell this from its keys (RFC 8446, section 7.5).
type Token = [u8; 16];

/// Tells the dialler, which is the node itself.
pub(super) const LEADS_HERE: &str = "the address leads back to this node itself";

/// Dials of this node that are under way, and addresses that turned out to be its own.
#[derive(Debug, Default)]
pub(super) struct OwnDials {
    /// Whether the other end was met here.
    under_way: Mutex<BTreeMap<Token, bool>>,
    addresses: Mutex<BTreeMap<SocketAddr, Instant>>,
}

/// A dial that is under way, until it is dropped.
pub(super) struct OwnDial<'a> {
    all: &'a OwnDials,
    token: Option<Token>,
}

impl OwnDial<'_> {
    /// Whether the connection came back to this node.
    pub(super) fn was_met(&self) -> bool {
        self.token.is_some_and(|token| self.all.under_way.lock().get(&token).is_some_and(|met| *met))
    }
}

impl Drop for OwnDial<'_> {
    fn drop(&mut self) {
        if let Some(token) = self.token {
            self.all.under_way.lock().remove(&token);
        }
    }
}

fn token_of(connection: &Connection) -> Option<Token> {
    let mut token = Token::default();
    connection.export_keying_material(&mut token, b"EXPORTER stockmesh own dial", b"").ok().map(|()| token)
}

impl OwnDials {
    /// Notes a connection that this node dialled, before it says anything on it.
    pub(super) fn begin(&self, connection: &Connection) -> OwnDial<'_> {
        let token = token_of(connection);
        self.under_way.lock().extend(token.map(|token| (token, false)));
        OwnDial { all: self, token }
    }

    /// Whether an incoming connection is one that this very node dialled. Its dialler is told then.
    pub(super) fn meets_itself(&self, connection: &Connection) -> bool {
        let Some(token) = token_of(connection) else { return false };
        let mut under_way = self.under_way.lock();
        under_way.get_mut(&token).map(|met| *met = true).is_some()
    }

    /// Remembers that an address is this node's own. For a while, as another node may have it one day.
    pub(super) fn note(&self, address: SocketAddr) {
        let mut addresses = self.addresses.lock();
        addresses.retain(|_, since| since.elapsed() < OWN_ADDRESS_TIME);
        if addresses.len() < OWN_ADDRESSES_MAX {
            addresses.insert(address, Instant::now());
        }
    }

    /// Whether an address is known to lead to this node.
    pub(super) fn leads_here(&self, address: SocketAddr) -> bool {
        self.addresses.lock().get(&address).is_some_and(|since| since.elapsed() < OWN_ADDRESS_TIME)
    }
}
