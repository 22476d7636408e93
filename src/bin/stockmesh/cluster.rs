//! Several nodes in one process, linked by real QUIC over loopback: the stage of `demo` and `replay`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use stockmesh::certificates::{Authority, Validity};
use stockmesh::{Fingerprint, Identity, Store};
use tempfile::TempDir;

use crate::table::{Align, Table, grouped};

/// Most nodes in one process: each has a directory, a socket and a link to every other.
pub(crate) const MAX_NODES: u16 = 64;

/// How often fingerprints are compared while waiting: finer than anybody can tell, coarse enough to cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One node of the cluster.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) store: Store,
}

/// Some nodes that know each other.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    /// Removed when the cluster is dropped, that is, after the stores were closed.
    _temporary: Option<TempDir>,
}

/// How waiting for agreement ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Convergence {
    /// The fingerprint of all nodes, if they agree.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// How long it took, or how long was waited.
    pub(crate) waited: Duration,
}

impl Cluster {
    /// Starts nodes `node-1` and so on, in temporary directories or under `data_dir`, which must be new or empty.
    pub(crate) async fn start(count: u16, data_dir: Option<&Path>) -> anyhow::Result<Self> {
        let (root, temporary) = root_directory(data_dir)?;
        // Nobody keeps the authority's key, so nobody else can ever join.
        let authority = Authority::new("stockmesh, one run", Validity::from_days(60)?)?;
        let mut nodes = Vec::with_capacity(usize::from(count));
        for number in 1..=count {
            let name = format!("node-{number}");
            let store =
                start_node(&name, &root, &authority).await.with_context(|| format!("{name} cannot be started"))?;
            nodes.push(Node { name, store });
        }
        let cluster = Self { nodes, _temporary: temporary };
        cluster.introduce()?;
        Ok(cluster)
    }

    /// Tells each node of all others. Addresses are only known once all listen, as the system picks the ports.
    fn introduce(&self) -> anyhow::Result<()> {
        for peer in &self.nodes {
            let address = peer.store.local_addr().with_context(|| format!("{} does not listen", peer.name))?;
            for node in self.nodes.iter().filter(|node| node.name != peer.name) {
                node.store.add_peer(address.to_string())?;
            }
        }
        Ok(())
    }

    /// Waits until all nodes have one fingerprint. Only tells anything if nobody writes any more.
    pub(crate) async fn converge(&self, timeout: Duration) -> Convergence {
        let start = Instant::now();
        loop {
            let fingerprint = self.common_fingerprint();
            let waited = start.elapsed();
            if fingerprint.is_some() || waited >= timeout {
                return Convergence { fingerprint, waited };
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn common_fingerprint(&self) -> Option<Fingerprint> {
        let mut fingerprints = self.nodes.iter().map(|node| node.store.status().fingerprint);
        let first = fingerprints.next()?;
        fingerprints.all(|other| other == first).then_some(first)
    }

    /// A table of what each node holds.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new(&[
            ("node", Align::Left),
            ("products", Align::Right),
            ("units on hand", Align::Right),
            ("fingerprint", Align::Left),
        ]);
        for node in &self.nodes {
            let status = node.store.status();
            table.row([
                node.name.clone(),
                grouped(status.products),
                grouped(units_on_hand(&node.store)),
                status.fingerprint.to_string(),
            ]);
        }
        table
    }

    /// Closes all stores; the first error is given after all were tried.
    pub(crate) async fn close(self) -> anyhow::Result<()> {
        let mut result = Ok(());
        for node in &self.nodes {
            let closed = node.store.close().await;
            result = result.and(closed.with_context(|| format!("{} did not close cleanly", node.name)));
        }
        result
    }
}

/// Units of all products together.
pub(crate) fn units_on_hand(store: &Store) -> i128 {
    store.query().iter().fold(0, |units, product| units.saturating_add(product.on_hand()))
}

fn root_directory(data_dir: Option<&Path>) -> anyhow::Result<(PathBuf, Option<TempDir>)> {
    let Some(path) = data_dir else {
        let temporary =
            tempfile::Builder::new().prefix("stockmesh-").tempdir().context("a temporary directory cannot be made")?;
        return Ok((temporary.path().to_owned(), Some(temporary)));
    };
    let usable = || format!("--data-dir {}: must be a directory that can be made", path.display());
    std::fs::create_dir_all(path).with_context(usable)?;
    let occupied = std::fs::read_dir(path).with_context(usable)?.next().is_some();
    // What lies there would be counted with what this run writes.
    ensure!(!occupied, "--data-dir {}: must be empty", path.display());
    Ok((path.to_owned(), None))
}

async fn start_node(name: &str, root: &Path, authority: &Authority) -> anyhow::Result<Store> {
    let issued = authority.issue(name, &[], Validity::from_days(60)?)?;
    let identity = Identity::from_pem_bytes(
        authority.certificate_pem().as_bytes(),
        issued.certificate_pem.as_bytes(),
        issued.key_pem.as_bytes(),
    )?;
    let store = Store::builder()
        .data_dir(root.join(name))
        .location(name)
        .listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .identity(identity)
        .open()
        .await?;
    Ok(store)
}
