//! What the tests share: nodes of one authority, writers whose acknowledged operations are counted, and waiting.

pub(crate) mod alone;
pub(crate) mod members;
pub(crate) mod metrics;
#[path = "../../processes/own_address.rs"]
mod own_address;
pub(crate) mod proxy;
pub(crate) mod raw;
pub(crate) mod writers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use stockmesh::certificates::{Authority, Issued, NodeDetails, Validity};
use stockmesh::{Builder, Identity, LinkState, Store};

pub(crate) use own_address::own_address;

/// How long a cluster of tests may take for anything that it should do at once, on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// Few shards, so that many writes meet in each.
pub(crate) const SHARDS: u32 = 16;

/// An authority and what nodes of it have in common.
pub(crate) struct Mesh {
    authority: Authority,
    /// By the node's name: a node that is opened again has the certificate that it had.
    identities: Mutex<BTreeMap<String, Identity>>,
}

impl Mesh {
    pub(crate) fn new() -> Self {
        Self::of_authority("tests")
    }

    pub(crate) fn of_authority(name: &str) -> Self {
        let authority = Authority::new(name, Validity::from_days(365).unwrap()).unwrap();
        Self { authority, identities: Mutex::default() }
    }

    pub(crate) fn authority_pem(&self) -> &str {
        self.authority.certificate_pem()
    }

    pub(crate) fn issue(&self, name: &str) -> Issued {
        self.authority.issue(name, &[], Validity::from_days(365).unwrap()).unwrap()
    }

    pub(crate) fn issue_node(&self, details: &NodeDetails<'_>) -> Issued {
        self.authority.issue_node(details, Validity::from_days(365).unwrap()).unwrap()
    }

    /// A certificate with these URIs and no others, as another authority's tools might make it.
    pub(crate) fn issue_with(&self, uris: &[&str]) -> Issued {
        let key = rcgen::KeyPair::from_pem(&self.authority.key_pem()).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(self.authority_pem(), key).unwrap();
        let mut parameters = rcgen::CertificateParams::new(["stockmesh".to_owned()]).unwrap();
        parameters.subject_alt_names.extend(uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())));
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        Issued { certificate_pem: parameters.signed_by(&key, &issuer).unwrap().pem(), key_pem: key.serialize_pem() }
    }

    /// The identity of a read-only member.
    pub(crate) fn reader(&self, name: &str) -> Identity {
        self.identity(&self.issue_node(&NodeDetails { name, read_only: true, ..NodeDetails::default() }))
    }

    pub(crate) fn issue_for(&self, name: &str, validity: Validity) -> Issued {
        self.authority.issue(name, &[], validity).unwrap()
    }

    /// A certificate that was valid until an hour ago.
    pub(crate) fn issue_expired(&self, name: &str) -> Issued {
        let hour = Duration::from_secs(3_600);
        let now = SystemTime::now();
        self.authority.issue(name, &[], Validity::between(now - 48 * hour, now - hour).unwrap()).unwrap()
    }

    pub(crate) fn identity(&self, issued: &Issued) -> Identity {
        let Issued { certificate_pem, key_pem } = issued;
        Identity::from_pem_bytes(self.authority_pem().as_bytes(), certificate_pem.as_bytes(), key_pem.as_bytes())
            .unwrap()
    }

    /// Settings of a node that listens on a free port, in memory unless told otherwise.
    pub(crate) fn builder(&self, name: &str) -> Builder {
        let mut identities = self.identities.lock().unwrap();
        let identity = identities.entry(name.to_owned()).or_insert_with(|| self.identity(&self.issue(name))).clone();
        Store::builder()
            .in_memory()
            .location(name)
            .shards(SHARDS)
            .listen("127.0.0.1:0".parse().unwrap())
            .identity(identity)
            .reconcile_every(Duration::from_millis(200))
    }

    pub(crate) async fn node(&self, name: &str) -> Store {
        self.builder(name).open().await.unwrap()
    }

    pub(crate) async fn nodes(&self, count: usize) -> Vec<Store> {
        let mut stores = Vec::new();
        for number in 0..count {
            stores.push(self.node(&format!("node-{number}")).await);
        }
        stores
    }
}

pub(crate) fn address(store: &Store) -> SocketAddr {
    store.local_addr().unwrap()
}

/// Lets `dialler` dial `listener` from now on.
pub(crate) fn dial(dialler: &Store, listener: &Store) {
    dialler.add_peer(address(listener).to_string()).unwrap();
}

/// Each node dials all that come before it.
pub(crate) fn full_mesh(stores: &[Store]) {
    for (number, store) in stores.iter().enumerate() {
        stores[..number].iter().for_each(|earlier| dial(store, earlier));
    }
}

/// Each node dials the one before it, and no other.
pub(crate) fn line(stores: &[Store]) {
    stores.windows(2).for_each(|pair| dial(&pair[1], &pair[0]));
}

/// Peers of `store` whose links are up.
pub(crate) fn links_up(store: &Store) -> usize {
    store.status().peers.iter().filter(|peer| peer.state == LinkState::Up).count()
}

/// How many times as long everything may take, as under a sanitizer. Only what is waited for may come later: what is
/// claimed of it stays.
fn slowness() -> u32 {
    std::env::var("STOCKMESH_SLOWNESS").map_or(1, |times| times.parse().unwrap())
}

/// Polls until `reached`, and panics with `what` if it takes longer than `limit`. Returns how long it took.
pub(crate) async fn wait_within(limit: Duration, what: &str, mut reached: impl FnMut() -> bool) -> Duration {
    let (begun, limit) = (Instant::now(), limit * slowness());
    while !reached() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    begun.elapsed()
}

pub(crate) async fn wait_until(what: &str, reached: impl FnMut() -> bool) -> Duration {
    wait_within(PATIENCE, what, reached).await
}

/// Waits until every node has so many links.
pub(crate) async fn wait_linked(stores: &[Store], links: usize) {
    wait_until("all links are up", || stores.iter().all(|store| links_up(store) >= links)).await;
}

/// Whether all hold the same. Each is read once: all that any of them wrote before is then at every one.
pub(crate) fn agree(stores: &[Store]) -> bool {
    let read: Vec<_> = stores.iter().map(|store| store.status().fingerprint).collect();
    read.windows(2).all(|pair| pair[0] == pair[1])
}

/// Waits until all hold the same.
pub(crate) async fn wait_converged(stores: &[Store]) {
    let begun = Instant::now();
    while !agree(stores) {
        if begun.elapsed() > PATIENCE * slowness() {
            let told: Vec<String> = stores.iter().map(|store| format!("{:#?}", store.status())).collect();
            panic!("the nodes do not converge:\n{}", told.join("\n"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Units on hand of a product that may not have arrived yet.
pub(crate) fn on_hand(store: &Store, sku: &str) -> i128 {
    store.get(sku).map(|view| view.on_hand()).unwrap_or_default()
}

/// Whether a refusal that `store` remembers has all these words.
pub(crate) fn refused_with(store: &Store, words: &[&str]) -> bool {
    store.status().refusals.iter().any(|refused| words.iter().all(|word| refused.reason.contains(word)))
}

/// Whether a configured peer of `store` shows an error that has all these words.
pub(crate) fn peer_error_with(store: &Store, words: &[&str]) -> bool {
    let errors = store.status().peers.into_iter().filter_map(|peer| peer.last_error);
    errors.into_iter().any(|error| words.iter().all(|word| error.contains(word)))
}

/// Memory that this process holds, in bytes.
pub(crate) fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}
