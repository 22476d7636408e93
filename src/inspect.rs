//! Looks into a stopped store, and changes nothing of its content.

use std::path::Path;
use std::sync::Arc;

use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::{ClusterId, Fingerprint, Location, ReplicaId, ShardCount};

use crate::query::{Products, Query};
use crate::recovery::Loaded;
use crate::settings::Settings;
use crate::storage::{DataDirectory, StorageError};
use crate::table::Table;

/// A directory cannot be inspected. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// There is no store.
    #[error("{} holds no store", path.display())]
    NoStore {
        /// The directory.
        path: std::path::PathBuf,
    },
    /// The disk failed, the directory is in use, or nothing of the store can be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The settings cannot be read, so nothing else can be understood.
    #[error("the settings of the store cannot be read: {0}")]
    Settings(String),
}

/// What a stopped store holds.
#[derive(Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// The id under which the directory writes.
    pub replica: ReplicaId,
    /// Ids under which it wrote before.
    pub former_replicas: Vec<ReplicaId>,
    /// The cluster.
    pub cluster: ClusterId,
    /// The home location.
    pub location: Location,
    /// The cluster's number of shards.
    pub shards: u16,
    /// Number of products.
    pub products: u64,
    /// Number of slots.
    pub slots: u64,
    /// Fingerprint of the whole state.
    pub fingerprint: Fingerprint,
    /// The number of the last batch.
    pub last_batch: u64,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// What is damaged, and what it covers. Empty if every checksum, number and fingerprint fits.
    pub damage: Vec<String>,
    table: Arc<Table>,
}

impl Inspection {
    /// The products, in SKU order.
    pub fn products(&self) -> Products {
        Query::new(Arc::clone(&self.table)).iter()
    }
}

/// Reads a stopped store and checks its checksums, numbers and fingerprints. Needs no tokio runtime; costs a read of
/// all data, and memory for all of it.
///
/// # Errors
/// If there is no store, it is in use, or nothing of it can be read. Damage that leaves something readable is part of
/// the result.
///
/// ```
/// use stockmesh::{Store, inspect};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let directory = tempfile::tempdir()?;
/// let store = Store::builder().data_dir(directory.path()).open().await?;
/// store.product("MUG-01")?.receive(12).await?;
/// let fingerprint = store.status().fingerprint;
/// store.close().await?;
///
/// let inspection = inspect(directory.path())?;
/// assert!(inspection.damage.is_empty());
/// assert_eq!((inspection.products, inspection.fingerprint), (1, fingerprint));
/// assert_eq!(inspection.products().next().map(|product| product.on_hand()), Some(12));
/// # Ok(())
/// # }
/// ```
pub fn inspect(path: impl AsRef<Path>) -> Result<Inspection, InspectError> {
    let path = path.as_ref();
    // Before the lock is taken, which leaves a file behind.
    if !path.is_dir() || !DataDirectory::holds_store(path) {
        return Err(InspectError::NoStore { path: path.to_owned() });
    }
    let directory = DataDirectory::open(path)?;
    let mut engine = directory.open_engine()?;
    let any = ShardCount::new(stockmesh_proto::limits::SHARDS_DEFAULT)
        .map_err(|error| InspectError::Settings(error.to_string()))?;
    let loaded = Loaded::read(&mut engine, any)?;
    let settings = Settings::from_stored(&loaded.settings).map_err(InspectError::Settings)?;
    let settings = settings.ok_or_else(|| InspectError::Settings("there are none".into()))?;
    let (report, damage) = (loaded.report.clone(), loaded.damage.clone());
    let table = Arc::new(loaded.into_table(settings.replica));
    let (products, slots) = table.sizes();
    Ok(Inspection {
        replica: settings.replica,
        former_replicas: settings.former,
        cluster: settings.cluster,
        location: settings.location,
        shards: settings.shards.get(),
        products,
        slots,
        fingerprint: table.tree().root(),
        last_batch: report.last_batch,
        journal_bytes: report.journal_bytes,
        damage,
        table,
    })
}
