//! Opens a store, commits to it, and keeps track of what may be done with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::{Database, ReadableDatabase};

use super::StorageError;
use super::disk::{Backend, Disk, Seal};
use super::guard::{Failure, guarded};
use super::mark::{FoundMark, Mark, MarkFile};
use super::position::Position;
use super::transaction::{CommitFigures, Refusal, Transaction};
use super::write;

/// All reads come from memory, so the engine needs room only for the pages that a commit touches.
const CACHE_BYTES: usize = 16 << 20;

/// The sector that holds the engine's header.
const HEADER_BYTES: usize = 512;

/// A journal with snapshots, and a ledger beside them, in an embedded transactional store.
///
/// Open it, [`load`](Engine::load) it once, then [`commit`](Engine::commit). Dropping it closes the file cleanly.
#[derive(Debug)]
pub struct Engine {
    /// Always there but while the engine is dropped.
    pub(super) database: Option<Database>,
    pub(super) mark: MarkFile,
    pub(super) found_mark: FoundMark,
    /// What the engine's own check said, if it did not pass.
    pub(super) integrity: Option<String>,
    pub(super) position: Position,
    pub(super) phase: Phase,
    pub(super) seal: Seal,
    /// Set when the file is closed, for the views that outlive the engine.
    pub(super) closed: Arc<AtomicBool>,
    found_header: FoundHeader,
}

/// The header as it was before the engine marked the file as in use, for a file that was closed cleanly.
#[derive(Debug)]
struct FoundHeader {
    store: Arc<dyn Disk>,
    bytes: Option<Vec<u8>>,
}

/// What may be done with an engine.
#[derive(Debug)]
pub(super) enum Phase {
    Unloaded,
    Ready,
    Damaged,
    Poisoned(String),
}

impl Engine {
    /// Makes a new store on an empty disk, durable when this returns.
    ///
    /// Its numbering goes on after `after`, which is [`Mark::default`] but for a store that replaces another: so the mark
    /// of the old one stays a valid lower bound, and no number is used twice.
    ///
    /// # Errors
    /// [`StorageError::Exists`] if the disk is not empty, and whatever the disk reports. It should be emptied then.
    pub fn create(store: Box<dyn Disk>, mark: Box<dyn Disk>, after: Mark) -> Result<Self, StorageError> {
        if !store.is_empty().map_err(StorageError::Disk)? {
            return Err(StorageError::Exists);
        }
        let mut engine = Self::start(store, mark)?;
        let position = Position {
            commit: after.commit.checked_add(1).ok_or(Refusal::Exhausted)?,
            last_batch: after.batch,
            dropped_through: after.batch,
            journal_bytes: 0,
            last_ledger: 0,
            ledger_dropped_through: Some(0),
        };
        let laid_out = guarded(|| match &engine.database {
            Some(database) => Ok(write::lay_out(database, position)?.commit()?),
            None => Err(redb::Error::DatabaseClosed),
        });
        laid_out.map_err(Failure::while_opening)?;
        engine.position = position;
        let position = engine.position.to_mark();
        engine.mark.renew(position).map_err(StorageError::Disk)?;
        engine.found_mark = FoundMark::Known(position);
        Ok(engine)
    }

    /// Opens a store that [`create`](Engine::create) made, recovers it from a crash, and verifies the engine's tree,
    /// which reads the whole file.
    ///
    /// Damage that leaves something readable is not an error here: [`load`](Engine::load) reports it.
    ///
    /// # Errors
    /// [`StorageError::Missing`] if the disk is empty, [`StorageError::Damaged`] if nothing can be read at all,
    /// [`StorageError::Disk`] if the disk fails.
    pub fn open(store: Box<dyn Disk>, mark: Box<dyn Disk>) -> Result<Self, StorageError> {
        if store.is_empty().map_err(StorageError::Disk)? {
            let mark = MarkFile::new(mark).read().map_err(StorageError::Disk)?.bound();
            return Err(StorageError::Missing { mark });
        }
        Self::start(store, mark)
    }

    fn start(store: Box<dyn Disk>, mark: Box<dyn Disk>) -> Result<Self, StorageError> {
        let mark = MarkFile::new(mark);
        let found_mark = mark.read().map_err(StorageError::Disk)?;
        let seal = Seal::default();
        let repaired = Arc::new(AtomicBool::new(false));
        let store: Arc<dyn Disk> = Arc::from(store);
        let header = read_header(store.as_ref())?;
        let mut database = open_database(Backend::new(Arc::clone(&store), seal.clone()), &repaired)?;
        let mut integrity = None;
        // Recovery from a crash has just verified every page, so only a file that was closed cleanly is left to check.
        if !repaired.load(Ordering::SeqCst) {
            integrity = check_integrity(&mut database)?;
        }
        // What recovery after a crash has written cannot be taken back by the header alone.
        let bytes = (!repaired.load(Ordering::SeqCst)).then_some(header);
        let mut engine = Self {
            database: Some(database),
            mark,
            found_mark,
            integrity,
            position: Position::default(),
            phase: Phase::Unloaded,
            seal,
            closed: Arc::new(AtomicBool::new(false)),
            found_header: FoundHeader { store, bytes },
        };
        if engine.integrity.is_some() {
            engine.leave_as_found()?;
        }
        Ok(engine)
    }

    /// Changes no byte of the file from now on, and takes back that opening marked it as in use: a damaged file is left
    /// as it was found, for whoever examines it.
    pub(super) fn leave_as_found(&mut self) -> Result<(), StorageError> {
        self.seal.set();
        let FoundHeader { store, bytes } = &mut self.found_header;
        bytes.take().map_or(Ok(()), |header| store.write(0, &header)).map_err(StorageError::Disk)
    }

    /// Where the store stands: after the last commit, or as far as it could be loaded.
    #[must_use]
    pub fn figures(&self) -> CommitFigures {
        let Position { commit, last_batch, dropped_through, journal_bytes, last_ledger, ledger_dropped_through } =
            self.position;
        let ledger_dropped_through = ledger_dropped_through.unwrap_or_default();
        CommitFigures {
            commit,
            last_batch,
            oldest_batch: (dropped_through < last_batch).then(|| dropped_through.saturating_add(1)),
            journal_bytes,
            last_ledger,
            first_ledger: (ledger_dropped_through < last_ledger).then(|| ledger_dropped_through.saturating_add(1)),
        }
    }

    /// Commits a transaction; when this returns, it is durable. An empty one costs nothing and changes nothing.
    ///
    /// Costs one sync. Blocks meanwhile.
    ///
    /// # Errors
    /// [`StorageError::Refused`]: nothing was written, and the engine goes on. [`StorageError::NotCommitted`] and
    /// [`StorageError::Indeterminate`] end the engine's use for writing; from then on it is [`StorageError::Poisoned`].
    pub fn commit(&mut self, transaction: &Transaction) -> Result<CommitFigures, StorageError> {
        match &self.phase {
            Phase::Unloaded => return Err(Refusal::NotLoaded.into()),
            Phase::Damaged => return Err(Refusal::Damaged.into()),
            Phase::Poisoned(cause) => return Err(StorageError::Poisoned { cause: cause.clone() }),
            Phase::Ready => {}
        }
        if transaction.is_empty() {
            return Ok(self.figures());
        }
        transaction.check(self.position.last_batch, self.position.last_ledger)?;
        let commit = self.position.commit.checked_add(1).ok_or(Refusal::Exhausted)?;
        let position = Position { commit, ..self.position };
        let Some(database) = &self.database else {
            return Err(Refusal::NotLoaded.into());
        };
        // Only the last step can make anything durable, so a failure before it is known to have changed nothing.
        let (write, position) = match guarded(|| write::apply(database, transaction, position)) {
            Ok(applied) => applied,
            Err(failure) => {
                let cause = self.poison(failure);
                return Err(StorageError::NotCommitted { cause });
            }
        };
        if let Err(failure) = guarded(|| Ok(write.commit()?)) {
            let cause = self.poison(failure);
            return Err(StorageError::Indeterminate { cause });
        }
        self.position = position;
        self.mark.advance(position.to_mark());
        Ok(self.figures())
    }

    /// A view of the store as of its last commit.
    pub(super) fn begin_read(&self) -> Result<redb::ReadTransaction, Failure> {
        guarded(|| match &self.database {
            Some(database) => Ok(database.begin_read()?),
            None => Err(redb::Error::DatabaseClosed),
        })
    }

    /// What the store lies on.
    #[cfg(test)]
    pub(super) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.found_header.store)
    }

    fn poison(&mut self, failure: Failure) -> String {
        self.seal.set();
        let cause = failure.to_string();
        self.phase = Phase::Poisoned(cause.clone());
        cause
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        let database = self.database.take();
        // Closing a damaged file may panic, and must not take the caller along.
        let closed = guarded(|| {
            drop(database);
            Ok(())
        });
        if let Err(failure) = closed {
            tracing::warn!(%failure, "closing the store failed; the next open will recover it");
        }
        if let Err(error) = self.mark.sync() {
            tracing::warn!(%error, "the mark cannot be synced");
        }
    }
}

/// The first sector of a file that is not empty: the engine's header, with all of what opening alone changes.
fn read_header(store: &dyn Disk) -> Result<Vec<u8>, StorageError> {
    let length = store.len().map_err(StorageError::Disk)?;
    let mut header = vec![0; usize::try_from(length).map_or(HEADER_BYTES, |bytes| bytes.min(HEADER_BYTES))];
    store.read(0, &mut header).map_err(StorageError::Disk)?;
    Ok(header)
}

fn open_database(backend: Backend, repaired: &Arc<AtomicBool>) -> Result<Database, StorageError> {
    let repaired = Arc::clone(repaired);
    let opened = guarded(move || {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        builder.set_repair_callback(move |_| repaired.store(true, Ordering::SeqCst));
        Ok(builder.create_with_backend(backend)?)
    });
    opened.map_err(Failure::while_opening)
}

/// Has the engine verify all its pages. Returns what it found wrong; fails only if the disk does.
///
/// Reads do not verify pages. A damaged pointer could lead to an old page whose rows are all intact, so the checksums of
/// the rows alone do not show that they are the present ones.
fn check_integrity(database: &mut Database) -> Result<Option<String>, StorageError> {
    match guarded(|| Ok(database.check_integrity()?)) {
        Ok(true) => Ok(None),
        Ok(false) => Ok(Some("the engine's tree was damaged and had to be repaired".to_owned())),
        Err(failure) => match failure.while_opening() {
            StorageError::Damaged(why) => Ok(Some(why)),
            other => Err(other),
        },
    }
}
