//! QUIC endpoints whose randomness follows from the seed, and the certificates of the nodes.
//!
//! The certificates are text, since a signature or a serial number of another length would change the size of datagrams.

use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig, TokioRuntime};
use stockmesh::{EndpointMaker, Identity, IdentityError};

use crate::chance::Chance;
use crate::network::Network;

/// Bytes of a connection's id.
const ID_BYTES: usize = 8;

/// How many nodes there may be in a run that write.
pub const NODES_MAX: u16 = 102;
/// The numbers of the nodes that only read.
pub const READERS: [u16; 2] = [103, 104];
/// The number of the machine that a copy of another's directory is opened at. Only large clusters have a node of that number.
pub const TWIN: u16 = 102;

struct ConnectionIds(Chance);

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.draw().to_be_bytes())
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Makes the endpoint of one opening of a node.
#[must_use]
pub fn maker(network: &Network, mut chance: Chance) -> Arc<EndpointMaker> {
    let network = network.clone();
    let (ids, seeds) = (chance.fork(), chance.fork());
    Arc::new(move |server, listen| {
        let mut seeds = seeds.clone();
        let mut seed = [0; 32];
        seed.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&seeds.draw().to_be_bytes()));
        let reset_key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &seed);
        let mut config = EndpointConfig::new(Arc::new(reset_key));
        let ids = ids.clone();
        config.rng_seed(Some(seed)).cid_generator(move || Box::new(ConnectionIds(ids.clone())));
        let socket = Arc::new(network.bind(listen)?);
        quinn::Endpoint::new_with_abstract_socket(config, Some(server), socket, Arc::new(TokioRuntime))
    })
}

/// The identity of a node, numbered from 1, made anew: what QUIC remembers of peers hangs on it.
///
/// # Errors
/// If there is no certificate for that number.
pub fn identity(node: u16) -> Result<Identity, IdentityError> {
    let begin = "-----BEGIN CERTIFICATE-----";
    let pem = CERTIFICATES.split(begin).nth(usize::from(node)).unwrap_or_default();
    let pem = format!("{begin}{pem}");
    Identity::from_pem_bytes(include_bytes!("../certificates/authority.pem"), pem.as_bytes(), pem.as_bytes())
}

/// Each followed by its key.
const CERTIFICATES: &str = include_str!("../certificates/nodes.pem");
