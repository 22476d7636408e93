//! Opens a store: every setting is checked here, and named with its value and rule if it is wrong.

mod check;
mod membership;
mod topology;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use stockmesh_proto::grant::{DemandShare, GrantPolicy};
use stockmesh_proto::limits::{DRIFT_MS_MAX, REFERENCE_WINDOW_MS_DEFAULT, REFERENCES_MAX_DEFAULT, SHARDS_DEFAULT};
use stockmesh_proto::{ClusterId, InvalidInput, Location, ShardCount};

use membership::MembershipChoice;

use crate::clock::WallClock;
use crate::commit::{Commits, Worker};
use crate::error::OpenError;
use crate::expiry::expire_for_ever;
use crate::inheriting::inherit_for_ever;
use crate::limits::LEDGER_RETENTION_DEFAULT;
#[cfg(feature = "testing")]
use crate::net::{EndpointMaker, FaultyNetwork, TestNetwork};
use crate::net::{Identity, Node, NodeSettings, PeerLimits, RevocationFile};
use crate::recovery::{DamagePolicy, Recovered, Wanted, recover, recover_directory};
use crate::replica::Replica;
#[cfg(feature = "testing")]
use crate::storage::Disk;
use crate::storage::{DataDirectory, Engine, Mark, MemoryDisk, StorageError};
use crate::store::Store;
use topology::Topology;

/// The cluster id when none is set.
const CLUSTER_DEFAULT: &str = "stockmesh";
/// The home location when none is set.
const LOCATION_DEFAULT: &str = "main";
const RECONCILE_EVERY_DEFAULT: Duration = Duration::from_secs(1);

/// Where the store keeps its data.
#[derive(Debug)]
enum Place {
    Unset,
    Memory,
    Directory(PathBuf),
    /// The store's and the mark's disks, for tests.
    #[cfg(feature = "testing")]
    Disks(Box<dyn Disk>, Box<dyn Disk>),
}

/// Settings of a store. No setter fails; [`Builder::open`] checks everything.
///
/// ```
/// use std::time::Duration;
/// use stockmesh::Store;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Store::builder()
///     .in_memory()
///     .cluster("shops")
///     .location("berlin")
///     .shards(16)
///     .reconcile_every(Duration::from_millis(500))
///     .open()
///     .await?;
/// assert_eq!(store.status().location.as_str(), "berlin");
///
/// // A wrong setting is named, with its value and the rule.
/// let error = Store::builder().in_memory().shards(100).open().await.unwrap_err();
/// assert!(error.to_string().contains("power of two"), "{error}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing until `open` is called"]
pub struct Builder {
    place: Place,
    location: String,
    cluster: String,
    shards: u32,
    listen: Option<SocketAddr>,
    identity: Option<Identity>,
    revocations: Option<PathBuf>,
    peer_limits: PeerLimits,
    peers: Vec<String>,
    topology: Topology,
    reconcile_every: Duration,
    drift_max: Duration,
    damage: DamagePolicy,
    restored: bool,
    policy: Arc<dyn GrantPolicy>,
    reference_window: Duration,
    references_max: usize,
    ledger_retention: Duration,
    wall: WallClock,
    #[cfg(feature = "testing")]
    network: Option<TestNetwork>,
    #[cfg(feature = "clients")]
    clients: bool,
    membership: MembershipChoice,
}

impl Store {
    /// Settings of a store to open.
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl Builder {
    fn new() -> Self {
        Self {
            place: Place::Unset,
            location: LOCATION_DEFAULT.into(),
            cluster: CLUSTER_DEFAULT.into(),
            shards: SHARDS_DEFAULT,
            listen: None,
            identity: None,
            revocations: None,
            peer_limits: PeerLimits::default(),
            peers: Vec::new(),
            topology: Topology::default(),
            reconcile_every: RECONCILE_EVERY_DEFAULT,
            drift_max: Duration::from_millis(DRIFT_MS_MAX),
            damage: DamagePolicy::default(),
            restored: false,
            policy: Arc::new(DemandShare::default()),
            reference_window: Duration::from_millis(REFERENCE_WINDOW_MS_DEFAULT),
            references_max: REFERENCES_MAX_DEFAULT,
            ledger_retention: LEDGER_RETENTION_DEFAULT,
            wall: WallClock::default(),
            #[cfg(feature = "testing")]
            network: None,
            #[cfg(feature = "clients")]
            clients: false,
            membership: MembershipChoice::default(),
        }
    }

    /// The directory that holds the data; made if it is missing. One store at a time may have it open.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.place = Place::Directory(path.into());
        self
    }

    /// Keeps everything in memory, and loses it when the store is dropped: for tests. Takes memory for the journal too.
    pub fn in_memory(mut self) -> Self {
        self.place = Place::Memory;
        self
    }

    /// Keeps everything on these disks, the store's and its mark's: for tests that make them fail.
    #[cfg(feature = "testing")]
    pub fn disks(mut self, store: Box<dyn Disk>, mark: Box<dyn Disk>) -> Self {
        self.place = Place::Disks(store, mark);
        self
    }

    /// Shifts this node's clock: for tests of nodes whose clock is off.
    #[cfg(feature = "testing")]
    pub fn clock_offset_ms(mut self, offset_ms: i64) -> Self {
        self.wall = WallClock::shifted(offset_ms);
        self
    }

    /// Puts this node on a network that loses, delays and cuts off: for tests.
    #[cfg(feature = "testing")]
    pub fn network(mut self, network: &FaultyNetwork) -> Self {
        self.network = Some(TestNetwork::Faulty(network.clone()));
        self
    }

    /// Makes this a node of a simulation: with the clock of this number, and an endpoint on a simulated network.
    #[cfg(feature = "testing")]
    pub fn simulated(mut self, node: u32, endpoint: Arc<EndpointMaker>) -> Self {
        self.wall = WallClock::simulated(node);
        self.network = Some(TestNetwork::Simulated(endpoint));
        self
    }

    /// The home location, which operations use unless they name another. By default `main`.
    pub fn location(mut self, location: &str) -> Self {
        location.clone_into(&mut self.location);
        self
    }

    /// The cluster's id: nodes link only within a cluster. By default `stockmesh`.
    pub fn cluster(mut self, cluster: &str) -> Self {
        cluster.clone_into(&mut self.cluster);
        self
    }

    /// The cluster's number of shards, a power of two from 1 to 4,096, the same at every node and for ever. By default
    /// 256, for catalogues of about a million products.
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = shards;
        self
    }

    /// The address to accept links on; port 0 takes a free one, which [`Store::local_addr`] tells. Needs an identity.
    /// With an identity and no address, a free port on all interfaces is taken.
    pub fn listen(mut self, address: SocketAddr) -> Self {
        self.listen = Some(address);
        self
    }

    /// This node's certificate, and the authority that it trusts.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// A text file of certificates that are not let in: the SHA-256 fingerprint of one per line in hexadecimal, as
    /// `stockmesh cert fingerprint` tells it; `#` begins a comment. At most 1 MiB. Needs an identity.
    ///
    /// The file is looked at every 2 s, and open links of certificates that were added are closed. A list that became
    /// unreadable is not used, but the one from before: this is logged, and counted in
    /// `stockmesh_revocations_errors_total`. Each node has a list of its own. Replace the file as a whole, by renaming: of
    /// one that is written in place, a part might be read.
    pub fn revocations(mut self, path: impl Into<PathBuf>) -> Self {
        self.revocations = Some(path.into());
        self
    }

    /// What one peer may send to this node, see [`PeerLimits`]. A peer beyond it is read later; one that opens streams and
    /// reconciliations without waiting for the others loses its link for half a minute. This is told in
    /// [`Status::refusals`](crate::Status::refusals) and counted in `stockmesh_peers_over_limits_total`.
    pub fn peer_limits(mut self, limits: PeerLimits) -> Self {
        self.peer_limits = limits;
        self
    }

    /// A peer to keep a link with, as `host:port`; an IPv6 address stands in brackets. The name is resolved at every
    /// dial, and dialling goes on for ever, with pauses that grow to 10 s. May be called for up to 1,024 peers; not
    /// every node needs to know every other. Needs an identity.
    pub fn peer(mut self, address: impl Into<String>) -> Self {
        self.peers.push(address.into());
        self
    }

    /// How often to reconcile with a random peer, 10 ms to a day, with a quarter of jitter. By default every second.
    /// Writes are pushed at once anyway; this bounds how long a lost push stays unnoticed. If both sides are equal it
    /// costs one round trip, of 16 bytes or so per 16 shards.
    pub fn reconcile_every(mut self, every: Duration) -> Self {
        self.reconcile_every = every;
        self
    }

    /// Drift bound: how far a price's stamp may run ahead of this node's clock, up to a day. By default a minute.
    pub fn drift_max(mut self, drift: Duration) -> Self {
        self.drift_max = drift;
        self
    }

    /// What to do if the data is damaged. By default the store is not opened.
    pub fn damage(mut self, policy: DamagePolicy) -> Self {
        self.damage = policy;
        self
    }

    /// Says that the directory was restored from a backup, or copied: it goes on under a new replica id at once, and not
    /// only when a peer shows it its own future. Until it has met one, a copy would sell what the original has sold since.
    /// The rights and holds of the old id stay with it. For one opening, not for every.
    pub fn restored(mut self) -> Self {
        self.restored = true;
        self
    }

    /// How much this node grants to a peer that asks for rights to sell. By default what the peer needs and a share for
    /// its demand, see [`DemandShare`].
    pub fn grant_policy(mut self, policy: impl GrantPolicy + 'static) -> Self {
        self.policy = Arc::new(policy);
        self
    }

    /// How long references of operations are remembered, see [`Product::reference`](crate::Product::reference): up to a
    /// year, 7 days by default.
    pub fn reference_window(mut self, window: Duration) -> Self {
        self.reference_window = window;
        self
    }

    /// How many references are remembered at the most, the latest: a million by default, 100 million at the most. Each
    /// takes about 200 bytes of memory; that of a batch counts once more for every fourth of its operations, if one of
    /// them gives or resolves a hold, or is a stocktake. Beyond it the oldest are forgotten before their time.
    pub fn references_max(mut self, references: usize) -> Self {
        self.references_max = references;
        self
    }

    /// How long the ledger keeps stock movements, see [`Store::movements`]: 400 days by default, up to a hundred years.
    /// What is needed to remember references is kept longer if need be.
    pub fn ledger_retention(mut self, retention: Duration) -> Self {
        self.ledger_retention = retention;
        self
    }

    /// Whether programs with a certificate of the cluster's authority may act on this node over the network, as
    /// [`clients::Client`](crate::clients::Client) does: read, and write as this node. Off by default. Needs an identity.
    #[cfg(feature = "clients")]
    pub fn clients(mut self, clients: bool) -> Self {
        self.clients = clients;
        self
    }

    /// Opens the store: locks the directory, recovers what it holds, starts to listen and to dial.
    ///
    /// Costs a read of all data: about a second for a million products. Needs a tokio runtime. Does not wait for peers.
    ///
    /// # Errors
    /// If a setting is wrong, the directory is in use, damaged, or of another cluster, or the address is taken. Nothing
    /// on disk was changed then, see [`OpenError`], but where the address is taken: the store was open for a moment, so it
    /// may have a new replica id, if one was asked for, and fewer holds that had expired.
    pub async fn open(self) -> Result<Store, OpenError> {
        let wanted = Wanted {
            cluster: ClusterId::new(&self.cluster)?,
            shards: ShardCount::new(self.shards)?,
            location: Location::new(&self.location)?,
            references: (milliseconds(self.reference_window), self.references_max),
            restored: self.restored,
        };
        self.check()?;
        let topology = self.topology.checked()?;
        let labels = self.membership.labels()?;
        let revocations = self.revocations.map(RevocationFile::open).transpose()?;
        let (place, policy, recovering) = (self.place, self.damage, wanted.clone());
        let opening = crate::blocking::run(move || open_place(place, policy, &recovering));
        let lost = |error: tokio::task::JoinError| OpenError::Thread(std::io::Error::other(error));
        let (recovered, directory) = opening.await.map_err(lost)??;
        let Recovered { table, engine, clock, settings, rows, books, lossy } = recovered;
        let drift_ms_max = milliseconds(self.drift_max);
        let (committer, commits) = Worker::start(
            Arc::clone(&table),
            (engine, directory),
            clock,
            (self.wall, drift_ms_max),
            ((settings.former, settings.retired), books, self.ledger_retention),
        )
        .map_err(OpenError::Thread)?;
        committer.set_read_only(self.identity.as_ref().is_some_and(Identity::is_read_only));
        tokio::spawn(expire_for_ever(committer.downgrade(), committer.next_expiry_ms(), self.wall));
        tokio::spawn(inherit_for_ever(committer.downgrade(), Arc::clone(&table)));
        let node = match self.identity {
            None => None,
            Some(identity) => {
                let listen = self.listen.unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
                let node = NodeSettings {
                    listen,
                    identity,
                    revocations,
                    peer_limits: self.peer_limits,
                    cluster: wanted.cluster.clone(),
                    location: wanted.location.clone(),
                    reconcile_every: self.reconcile_every,
                    drift_ms_max,
                    wall: self.wall,
                    policy: self.policy,
                    #[cfg(feature = "testing")]
                    network: self.network,
                    #[cfg(feature = "clients")]
                    clients: self.clients,
                    lossy,
                    topology,
                    membership: self.membership.settings(labels, rows),
                };
                match start_node(node, &self.peers, &table, &committer, commits) {
                    Ok(node) => Some(node),
                    Err(error) => {
                        // Whoever tries again with another address finds the directory free.
                        committer.close().await;
                        return Err(error);
                    }
                }
            }
        };
        let store = Store::new(Replica::new(table, committer, node, wanted.cluster, wanted.location));
        #[cfg(feature = "clients")]
        crate::clients::serve(&store);
        Ok(store)
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn start_node(
    settings: NodeSettings,
    peers: &[String],
    table: &Arc<crate::table::Table>,
    committer: &crate::commit::Committer,
    commits: Commits,
) -> Result<Node, OpenError> {
    let address = settings.listen;
    let node = Node::start(settings, Arc::clone(table), committer.clone(), commits)
        .map_err(|cause| OpenError::Listen { address, cause })?;
    for peer in peers {
        node.add_peer(peer);
    }
    Ok(node)
}

fn open_place(
    place: Place,
    policy: DamagePolicy,
    wanted: &Wanted,
) -> Result<(Recovered, Option<DataDirectory>), OpenError> {
    match place {
        Place::Unset => Err(InvalidInput::new("data_dir", "", "must be set").into()),
        Place::Memory => {
            let disks = (Box::new(MemoryDisk::new()), Box::new(MemoryDisk::new()));
            Ok((recover(Engine::create(disks.0, disks.1, Mark::default())?, wanted)?, None))
        }
        #[cfg(feature = "testing")]
        Place::Disks(store, mark) => {
            let is_new =
                store.is_empty().map_err(StorageError::Disk)? && mark.is_empty().map_err(StorageError::Disk)?;
            let engine =
                if is_new { Engine::create(store, mark, Mark::default())? } else { Engine::open(store, mark)? };
            Ok((recover(engine, wanted)?, None))
        }
        Place::Directory(path) => {
            let directory = DataDirectory::open(&path).map_err(|error| match error {
                StorageError::Locked { path } => OpenError::Locked { path },
                error => error.into(),
            })?;
            let recovered = recover_directory(&directory, wanted, policy)?;
            Ok((recovered, Some(directory)))
        }
    }
}
