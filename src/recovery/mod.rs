//! Recovery: the state is the merge of all snapshots and of the whole journal, in any order, checked against the
//! fingerprints that the last record of each shard names (rules D1 to D5).

mod books;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stockmesh_proto::delta::Products;
use stockmesh_proto::hlc::{Clock, Stamp};
use stockmesh_proto::operation::Books;
use stockmesh_proto::wire::{BatchRecord, SnapshotRecord};
use stockmesh_proto::{ClusterId, Fingerprint, Location, ReplicaId, Shard, ShardCount, ShardIndex, VersionVector};
use tracing::{info, warn};

use crate::commit::{delete_holds, snapshot};
use crate::error::OpenError;
use crate::limits::{FORMER_REPLICAS_MAX, RECORD_BYTES_MAX};
use crate::retirements::Retirements;
use crate::settings::{self, Settings};
use crate::storage::{Damage, DataDirectory, Engine, LoadReport, Mark, StorageError, StoredRow, Transaction};
use crate::table::Table;

/// What to do with a store that is damaged: set with [`Builder::damage`](crate::Builder::damage).
///
/// ```
/// use stockmesh::{DamagePolicy, OpenError, Store};
///
/// async fn open(path: &str) -> Result<Store, OpenError> {
///     match Store::builder().data_dir(path).open().await {
///         Err(OpenError::Damaged { damage }) => {
///             eprintln!("damaged, the rest comes from the peers: {}", damage.join("; "));
///             Store::builder().data_dir(path).damage(DamagePolicy::NewIncarnation).open().await
///         }
///         opened => opened,
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DamagePolicy {
    /// Do not open it, and name what is damaged. Nothing is changed.
    #[default]
    Refuse,
    /// Keep what is intact, write under a new replica id from here on, and get the rest from the peers. Own writes
    /// that had not reached any peer, and that are not intact, are lost. The damaged file is kept beside the new one.
    NewIncarnation,
}

/// What the builder says of the store, for a new directory or to hold against what is stored.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) cluster: ClusterId,
    pub(crate) shards: ShardCount,
    pub(crate) location: Location,
    /// How long references are remembered, in milliseconds, and how many.
    pub(crate) references: (u64, usize),
    /// The directory is a copy, and must not go on under its id.
    pub(crate) restored: bool,
}

/// A store that was read from disk.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) table: Arc<Table>,
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    pub(crate) settings: Settings,
    /// All that the side table held at open, by key: parts of the store that keep rows there find theirs in it.
    pub(crate) rows: BTreeMap<String, Vec<u8>>,
    pub(crate) books: Books,
    /// Something of the state was lost, or had not arrived yet: the peers have it.
    pub(crate) lossy: bool,
}

/// Everything that was read, before anything is decided.
pub(crate) struct Loaded {
    shards: Vec<Shard>,
    count: ShardCount,
    /// By shard: the number of the last batch that touched it, and the fingerprint it left.
    expected: BTreeMap<ShardIndex, (u64, Fingerprint)>,
    pub(crate) settings: BTreeMap<String, Vec<u8>>,
    stamp_max: Stamp,
    pub(crate) damage: Vec<String>,
    /// Shards of which something is lost; all of them if it is not known which.
    lossy: BTreeSet<ShardIndex>,
    pub(crate) report: LoadReport,
}

impl Loaded {
    /// Reads everything an engine holds. The number of shards is `wanted` unless the settings, which come first, say
    /// otherwise.
    pub(crate) fn read(engine: &mut Engine, wanted: ShardCount) -> Result<Self, StorageError> {
        let mut loaded = Self {
            shards: Vec::new(),
            count: wanted,
            expected: BTreeMap::new(),
            settings: BTreeMap::new(),
            stamp_max: Stamp::default(),
            damage: Vec::new(),
            lossy: BTreeSet::new(),
            report: LoadReport::default(),
        };
        let report = engine.load(&mut |row| loaded.take(row))?;
        loaded.make_shards();
        for damage in &report.damage {
            loaded.note(damage);
        }
        loaded.report = report;
        loaded.check_fingerprints();
        Ok(loaded)
    }

    fn take(&mut self, row: StoredRow<'_>) {
        match row {
            StoredRow::Setting { key, value } => {
                self.settings.insert(key.to_owned(), value.to_owned());
            }
            StoredRow::Snapshot { shard, payload } => {
                self.make_shards();
                if let Err(why) = self.take_snapshot(shard, payload) {
                    self.damage.push(format!("the snapshot of shard {shard} cannot be read: {why}"));
                    self.lossy.extend(self.count.index(shard));
                }
            }
            StoredRow::Batch { number, payload } => {
                self.make_shards();
                if let Err(why) = self.take_batch(number, payload) {
                    self.damage.push(format!("batch {number} of the journal cannot be read: {why}"));
                    self.lossy.extend(self.count.indexes());
                }
            }
        }
    }

    fn make_shards(&mut self) {
        if self.shards.is_empty() {
            if let Ok(Some(settings)) = Settings::from_stored(&self.settings) {
                self.count = settings.shards;
            }
            let seed = crate::chance::random();
            self.shards = self.count.indexes().map(|_| Shard::new(seed)).collect();
        }
    }

    fn take_snapshot(&mut self, shard: u16, payload: &[u8]) -> Result<(), String> {
        let mut rest = payload;
        let mut named = None;
        while let Some((prefix, after)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
            if length > RECORD_BYTES_MAX {
                return Err(format!("a record claims {length} bytes"));
            }
            let (record, after) = after.split_at_checked(length).ok_or("a record is cut off")?;
            let record = SnapshotRecord::decode(record).map_err(|error| error.to_string())?;
            if record.shard.0 != shard {
                return Err(format!("a record of shard {} lies there", record.shard));
            }
            self.check_place(record.shard, &record.products)?;
            let state = self.shards.get_mut(record.shard.as_usize()).ok_or("the shard does not exist")?;
            self.stamp_max = self.stamp_max.max(state.merge(&record.products).stamp_max);
            named = Some((record.shard, record.batch, record.fingerprint, record.version));
            rest = after;
        }
        if !rest.is_empty() {
            return Err("a record is cut off".into());
        }
        let (shard, batch, fingerprint, version) = named.ok_or("it is empty")?;
        self.claim(shard, batch, fingerprint, &version);
        Ok(())
    }

    /// With settings that are lost or wrong, products would land in shards where no peer looks for them.
    fn check_place(&self, shard: ShardIndex, products: &Products) -> Result<(), String> {
        match products.iter().find(|(sku, _)| self.count.shard_of(sku) != shard) {
            Some((sku, _)) => Err(format!("product {sku} lies in shard {shard}, where it does not belong")),
            None => Ok(()),
        }
    }

    fn take_batch(&mut self, number: u64, payload: &[u8]) -> Result<(), String> {
        let record = BatchRecord::decode(payload).map_err(|error| error.to_string())?;
        if record.number != number {
            return Err(format!("it is numbered {} inside", record.number));
        }
        self.stamp_max = self.stamp_max.max(record.clock);
        for part in record.shards {
            self.check_place(part.shard, &part.products)?;
            let state = self.shards.get_mut(part.shard.as_usize()).ok_or("it names a shard that does not exist")?;
            self.stamp_max = self.stamp_max.max(state.merge(&part.products).stamp_max);
            self.claim(part.shard, number, part.fingerprint, &part.version);
        }
        Ok(())
    }

    fn claim(&mut self, shard: ShardIndex, batch: u64, fingerprint: Fingerprint, version: &VersionVector) {
        if let Some(state) = self.shards.get_mut(shard.as_usize()) {
            state.claim(version);
        }
        let expected = self.expected.entry(shard).or_default();
        if batch >= expected.0 {
            *expected = (batch, fingerprint);
        }
    }

    fn note(&mut self, damage: &Damage) {
        self.damage.push(damage.to_string());
        match damage {
            Damage::SnapshotRow { shard, .. } if self.count.index(*shard).is_some() => {
                self.lossy.extend(self.count.index(*shard));
            }
            // The state does not rest on the ledger.
            Damage::SettingsRow { .. } | Damage::LedgerRow { .. } | Damage::LedgerGap { .. } => {}
            _ => self.lossy.extend(self.count.indexes()),
        }
    }

    fn check_fingerprints(&mut self) {
        for (shard, (batch, expected)) in &self.expected {
            let found = self.shards.get(shard.as_usize()).map(Shard::fingerprint).unwrap_or_default();
            // Where rows are lost the fingerprint cannot fit; that is named already.
            if found != *expected && !self.lossy.contains(shard) {
                self.damage.push(format!("shard {shard} has fingerprint {found}, batch {batch} left it at {expected}"));
                self.lossy.insert(*shard);
            }
        }
    }

    /// Holds and references; what cannot be read of them is damage.
    fn read_books(&mut self, engine: &Engine, wanted: &Wanted) -> Result<Books, StorageError> {
        let mut books = Books::new(wanted.references.0, wanted.references.1);
        if let Ok(Some(settings)) = Settings::from_stored(&self.settings) {
            self.damage.extend(books::read_holds(&self.settings, settings.replica, &mut books).err());
        }
        books::read_references(engine, &mut books, &mut self.damage)?;
        Ok(books)
    }

    /// The table of what was read. Shards that lost something claim nothing: they ask their peers for everything.
    pub(crate) fn into_table(self, own: ReplicaId) -> Table {
        let Self { mut shards, count, lossy, .. } = self;
        for shard in lossy {
            if let Some(state) = shards.get_mut(shard.as_usize()) {
                state.disclaim();
            }
        }
        Table::from_shards(count, own, shards)
    }

    fn clock(&self) -> Clock {
        Clock::resume(self.stamp_max)
    }
}

/// Recovers a store in memory, or from another disk, without a directory.
pub(crate) fn recover(mut engine: Engine, wanted: &Wanted) -> Result<Recovered, OpenError> {
    let mut loaded = Loaded::read(&mut engine, wanted.shards)?;
    let books = loaded.read_books(&engine, wanted)?;
    if !loaded.damage.is_empty() {
        return Err(OpenError::Damaged { damage: loaded.damage });
    }
    adopt(engine, loaded, books, wanted)
}

/// Recovers the store of a data directory.
pub(crate) fn recover_directory(
    directory: &DataDirectory,
    wanted: &Wanted,
    policy: DamagePolicy,
) -> Result<Recovered, OpenError> {
    let mut engine = match directory.open_engine() {
        Ok(engine) => engine,
        Err(error @ (StorageError::Missing { .. } | StorageError::Damaged(_))) => {
            if policy == DamagePolicy::Refuse {
                return Err(OpenError::Damaged { damage: vec![error.to_string()] });
            }
            warn!(%error, "nothing of the store is intact: it begins anew and gets all from its peers");
            return rebuild(directory, None, wanted);
        }
        Err(error) => return Err(error.into()),
    };
    let mut loaded = Loaded::read(&mut engine, wanted.shards)?;
    let books = loaded.read_books(&engine, wanted)?;
    if loaded.damage.is_empty() {
        return adopt(engine, loaded, books, wanted);
    }
    if policy == DamagePolicy::Refuse {
        return Err(OpenError::Damaged { damage: loaded.damage });
    }
    for damage in &loaded.damage {
        warn!(%damage, "the store is damaged");
    }
    rebuild(directory, Some((engine, loaded)), wanted)
}

/// Takes an intact store as it is; a new one gets its settings.
fn adopt(mut engine: Engine, mut loaded: Loaded, mut books: Books, wanted: &Wanted) -> Result<Recovered, OpenError> {
    let stored =
        Settings::from_stored(&loaded.settings).map_err(|damage| OpenError::Damaged { damage: vec![damage] })?;
    let settings = match stored {
        Some(mut stored) => {
            stored.check(&wanted.cluster, wanted.shards)?;
            if stored.location != wanted.location {
                info!(from = %stored.location, to = %wanted.location, "the home location changes");
                stored.location = wanted.location.clone();
                engine.commit(&Transaction { settings: stored.to_stored(), ..Transaction::default() })?;
            }
            if wanted.restored {
                leave_id(&mut engine, &mut stored, &mut books)?;
            }
            stored
        }
        None => {
            let settings = fresh(wanted, Vec::new());
            engine.commit(&Transaction { settings: settings.to_stored(), ..Transaction::default() })?;
            settings
        }
    };
    let lossy = settings::is_catching_up(&loaded.settings);
    let (clock, rows) = (loaded.clock(), std::mem::take(&mut loaded.settings));
    let table = loaded.into_table(settings.replica);
    books::check(&books, &table);
    Ok(Recovered { table: Arc::new(table), engine, clock, settings, rows, books, lossy })
}

/// Takes a new id, since the directory is a copy: the holds stay with the old one (rules I2, B6).
fn leave_id(engine: &mut Engine, settings: &mut Settings, books: &mut Books) -> Result<(), OpenError> {
    let former = std::mem::replace(&mut settings.replica, ReplicaId::from_random(crate::chance::random()));
    settings.former.push(former);
    let superfluous = settings.former.len().saturating_sub(FORMER_REPLICAS_MAX);
    settings.former.drain(..superfluous);
    metrics::counter!("stockmesh_incarnations_total").increment(1);
    let mut stored = settings.to_stored();
    stored.extend(delete_holds(&books.take_holds()));
    engine.commit(&Transaction { settings: stored, ..Transaction::default() })?;
    warn!(%former, own = %settings.replica, "the directory is said to be a copy: it goes on under a new replica id");
    Ok(())
}

fn fresh(wanted: &Wanted, former: Vec<ReplicaId>) -> Settings {
    let Wanted { cluster, shards, location, .. } = wanted.clone();
    let (replica, retired) = (ReplicaId::from_random(crate::chance::random()), Retirements::new());
    Settings { replica, former, cluster, shards, location, retired }
}

/// Writes what is intact of a damaged store into a new file, under a new replica id, and puts it in place.
fn rebuild(
    directory: &DataDirectory,
    damaged: Option<(Engine, Loaded)>,
    wanted: &Wanted,
) -> Result<Recovered, OpenError> {
    let (old_engine, loaded) = damaged.unzip();
    let stored = loaded.as_ref().and_then(|loaded| Settings::from_stored(&loaded.settings).ok().flatten());
    let mut settings = fresh(wanted, Vec::new());
    if let Some(stored) = stored {
        stored.check(&wanted.cluster, wanted.shards)?;
        (settings.former, settings.retired) = (stored.former, stored.retired);
        settings.former.push(stored.replica);
    }
    let last =
        loaded.as_ref().map(|loaded| Mark { commit: loaded.report.last_commit, batch: loaded.report.last_batch });
    let clock = loaded.as_ref().map_or_else(Clock::default, Loaded::clock);
    let table = match loaded {
        Some(loaded) => loaded.into_table(settings.replica),
        None => Table::new(wanted.shards, settings.replica, crate::chance::random()),
    };
    let mut engine = directory.create_aside(last.unwrap_or_default())?;
    engine.load(&mut |_| ())?;
    let stored = [settings.to_stored(), settings::catching_up(true)].concat();
    engine.commit(&Transaction { settings: stored, ..Transaction::default() })?;
    // The old engine ends here, as its file must be closed before another is put in its place.
    if let Some(old_engine) = old_engine {
        save_ledger(&old_engine, &mut engine)?;
    }
    let batch = engine.figures().last_batch;
    for shard in wanted.shards.indexes() {
        let payload = snapshot(&table, shard, batch).map_err(|error| OpenError::Damaged {
            damage: vec![format!("shard {shard} cannot be written: {error}")],
        })?;
        engine.commit(&Transaction { snapshots: vec![(shard.0, payload)], ..Transaction::default() })?;
    }
    let kept = directory.install(engine)?;
    warn!(replica = %settings.replica, kept = ?kept, "the store goes on under a new replica id");
    let mut engine = directory.open_engine()?;
    engine.load(&mut |_| ())?;
    // The holds stayed with the former id; requests that were done are done, whatever the id.
    let mut books = Books::new(wanted.references.0, wanted.references.1);
    let mut lost = Vec::new();
    books::read_references(&engine, &mut books, &mut lost)?;
    for damage in lost {
        warn!(%damage, "requests of this part of the ledger are not remembered");
    }
    Ok(Recovered { table: Arc::new(table), engine, clock, settings, rows: BTreeMap::new(), books, lossy: true })
}

/// Enters what can be read of the old ledger into the new one, whose numbers begin anew.
fn save_ledger(old: &Engine, new: &mut Engine) -> Result<(), OpenError> {
    let view = match old.ledger() {
        Ok(view) => view,
        // The state is worth more than the ledger: it must not stay out of reach because nothing of this is left.
        Err(error @ StorageError::Damaged(_)) => {
            warn!(%error, "nothing of the ledger can be saved");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let lost_count = view.salvage(|_, payload| {
        new.commit(&Transaction { ledger: Some(payload), ..Transaction::default() })?;
        Ok::<_, StorageError>(())
    })?;
    if view.first().is_some() {
        info!(saved = new.figures().last_ledger, lost = lost_count, "the ledger was saved under new numbers");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
