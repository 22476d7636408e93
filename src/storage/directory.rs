//! The directory that a store lives in.
//!
//! | file | holds |
//! | --- | --- |
//! | `LOCK` | nothing; locked while the store is open |
//! | `store.redb` | the engine's file |
//! | `mark` | the lower bound of what was durable, 40 bytes |
//! | `store.new` | a store being made; of no meaning until it takes the place of `store.redb` |
//! | `store.damaged-N` | a store that was replaced at commit N, for examination |

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::StorageError;
use super::disk::{FileDisk, MemoryDisk};
use super::engine::Engine;
use super::mark::{Mark, MarkFile};

/// A data directory, held against every other store for as long as this lives.
///
/// It must outlive the engines it opened.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    /// Holds the lock; the system frees it when the file closes, also when the process dies.
    _lock: File,
}

impl DataDirectory {
    /// Creates the directory if it is not there, and locks it.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if a store has it open, [`StorageError::Directory`] if the file system refuses.
    pub fn open(path: &Path) -> Result<Self, StorageError> {
        create_durably(path).map_err(|source| StorageError::Directory {
            action: "create the data directory",
            path: path.to_owned(),
            source,
        })?;
        let lock_path = path.join("LOCK");
        let failed =
            |source| StorageError::Directory { action: "lock the data directory", path: lock_path.clone(), source };
        let lock = open_file(&lock_path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StorageError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a store lies in a directory, or a mark that says that one did. Changes nothing there, and takes no lock.
    #[must_use]
    pub fn holds_store(path: &Path) -> bool {
        let bytes = |name| file_bytes(&path.join(name)).unwrap_or(1);
        bytes("store.redb") > 0 || bytes("mark") > 0
    }

    /// Opens the store, or makes a new one if there never was one. See [`Engine::open`].
    ///
    /// # Errors
    /// [`StorageError::Missing`] if there was a store and it is gone, and the errors of [`Engine::open`].
    pub fn open_engine(&self) -> Result<Engine, StorageError> {
        let store_path = self.store_path();
        let mark = self.open_mark()?;
        if file_bytes(&store_path).map_err(failed("look for the store", &store_path))? == 0 {
            let bound = MarkFile::new(Box::new(self.open_mark()?)).read().map_err(StorageError::Disk)?.bound();
            if bound != Mark::default() {
                return Err(StorageError::Missing { mark: bound });
            }
            self.install(self.create_aside(Mark::default())?)?;
        }
        let store = open_file(&store_path).map_err(failed("open the store", &store_path))?;
        Engine::open(Box::new(FileDisk::new(store)), Box::new(mark))
    }

    /// Makes a new, empty store beside the one that is there, to be filled with what could be saved of it and then
    /// [installed](Self::install). Until then the old one stays what it is, whatever happens.
    ///
    /// The new store's numbers go on after everything the old one can have used: the mark and `last`, which is what
    /// loading the old one found.
    ///
    /// # Errors
    /// [`StorageError::Directory`] or those of [`Engine::create`]; the old store is unchanged.
    pub fn create_aside(&self, last: Mark) -> Result<Engine, StorageError> {
        let found = MarkFile::new(Box::new(self.open_mark()?)).read().map_err(StorageError::Disk)?;
        let path = self.aside_path();
        let file = open_file(&path).map_err(failed("create a store", &path))?;
        // A crash may have left half a store there, which never counted.
        file.set_len(0).map_err(failed("empty an unfinished store", &path))?;
        // The mark belongs to the store in place, until this one is in its place.
        let mark = MemoryDisk::new();
        Engine::create(Box::new(FileDisk::new(file)), Box::new(mark), last.max(found.bound()))
    }

    /// Puts a store made with [`create_aside`](Self::create_aside) in place, atomically, and returns where the old one is
    /// kept, if there was one. The engine of the old one must have been dropped.
    ///
    /// # Errors
    /// [`StorageError::Directory`]; then either the old store is in place or the new one, and both are whole.
    pub fn install(&self, engine: Engine) -> Result<Option<PathBuf>, StorageError> {
        let commit = engine.figures().commit;
        // Closes the file. Had that failed, the next open recovers it: all that counts was synced in commits.
        drop(engine);
        let store_path = self.store_path();
        let mut kept = None;
        if file_bytes(&store_path).map_err(failed("look for the store", &store_path))? > 0 {
            let path = self.path.join(format!("store.damaged-{commit}"));
            match std::fs::hard_link(&store_path, &path) {
                // Commit numbers are used once, so this is the same old store, kept by an attempt that a crash cut off.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                linked => linked.map_err(failed("keep the old store", &path))?,
            }
            kept = Some(path);
        }
        std::fs::rename(self.aside_path(), &store_path).map_err(failed("install the store", &store_path))?;
        sync_directory(&self.path).map_err(failed("sync the data directory", &self.path))?;
        Ok(kept)
    }

    fn store_path(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    fn aside_path(&self) -> PathBuf {
        self.path.join("store.new")
    }

    fn open_mark(&self) -> Result<FileDisk, StorageError> {
        let path = self.path.join("mark");
        let file = open_file(&path).map_err(failed("open the mark", &path))?;
        sync_directory(&self.path).map_err(failed("sync the data directory", &self.path))?;
        Ok(FileDisk::new(file))
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Directory { action, path, source }
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// The length of a file, 0 if there is none.
fn file_bytes(path: &Path) -> io::Result<u64> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Creates a directory with its parents so that a loss of power does not take it away again.
fn create_durably(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_durably(parent)?;
    }
    let mut builder = std::fs::DirBuilder::new();
    // What a business has in stock and at which price is nobody else's concern.
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    match builder.create(path) {
        // Another process may have been faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
        result => result?,
    }
    sync_directory(parent.unwrap_or(Path::new(".")))
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Elsewhere a directory cannot be opened as a file, and the file system orders its own changes.
#[cfg(not(unix))]
fn sync_directory(_path: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Batch, Damage, LoadReport, Transaction};

    fn load(engine: &mut Engine) -> LoadReport {
        engine.load(&mut |_| ()).unwrap()
    }

    fn append(engine: &mut Engine) {
        let batch = Batch { number: engine.figures().last_batch + 1, payload: b"goods".to_vec() };
        let transaction = Transaction { batch: Some(batch), ..Transaction::default() };
        engine.commit(&transaction).unwrap();
    }

    /// A directory whose store holds this many batches.
    fn filled(root: &Path, batch_count: u64) -> DataDirectory {
        let directory = DataDirectory::open(&root.join("a/b")).unwrap();
        let mut engine = directory.open_engine().unwrap();
        assert_eq!(load(&mut engine).damage, []);
        (0..batch_count).for_each(|_| append(&mut engine));
        directory
    }

    #[test]
    fn a_directory_is_held_by_one_store_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let first = DataDirectory::open(root.path()).unwrap();
        let error = DataDirectory::open(root.path()).unwrap_err();
        assert!(matches!(error, StorageError::Locked { path } if path == root.path()));
        drop(first);
        DataDirectory::open(root.path()).unwrap();
    }

    #[test]
    fn a_store_is_found_again() {
        let root = tempfile::tempdir().unwrap();
        let directory = filled(root.path(), 3);
        let mut engine = directory.open_engine().unwrap();
        let report = load(&mut engine);
        assert_eq!((report.last_batch, report.damage.as_slice()), (3, [].as_slice()));
    }

    #[test]
    fn an_older_copy_of_the_store_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let directory = filled(root.path(), 3);
        let copy = std::fs::read(directory.store_path()).unwrap();
        let mut engine = directory.open_engine().unwrap();
        load(&mut engine);
        append(&mut engine);
        drop(engine);
        std::fs::write(directory.store_path(), copy).unwrap();
        for _ in 0..2 {
            let mut engine = directory.open_engine().unwrap();
            let expected =
                Damage::RolledBack { mark: Mark { commit: 5, batch: 4 }, last: Mark { commit: 4, batch: 3 } };
            assert_eq!(load(&mut engine).damage, [expected]);
        }
    }

    #[test]
    fn a_deleted_or_emptied_store_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let directory = filled(root.path(), 2);
        std::fs::write(directory.store_path(), []).unwrap();
        let missing = |error| matches!(error, StorageError::Missing { mark: Mark { commit: 3, batch: 2 } });
        assert!(missing(directory.open_engine().unwrap_err()));
        std::fs::remove_file(directory.store_path()).unwrap();
        assert!(missing(directory.open_engine().unwrap_err()));
        assert!(missing(directory.open_engine().unwrap_err()), "and not forgotten");
    }

    #[test]
    fn a_lost_or_garbled_mark_is_written_anew() {
        let root = tempfile::tempdir().unwrap();
        let directory = filled(root.path(), 2);
        let mark_path = directory.path().join("mark");
        let mark = std::fs::read(&mark_path).unwrap();
        for garbled in [&[][..], b"short", &[7; 40]] {
            std::fs::write(&mark_path, garbled).unwrap();
            assert_eq!(load(&mut directory.open_engine().unwrap()).damage, []);
            assert_eq!(std::fs::read(&mark_path).unwrap(), mark);
        }
    }

    #[test]
    fn a_damaged_store_is_replaced_and_its_numbers_not_used_again() {
        let root = tempfile::tempdir().unwrap();
        let directory = filled(root.path(), 5);
        std::fs::write(directory.store_path(), vec![1; 10_000]).unwrap();
        assert!(matches!(directory.open_engine(), Err(StorageError::Damaged(_))));
        let mut fresh = directory.create_aside(Mark::default()).unwrap();
        load(&mut fresh);
        append(&mut fresh);
        let kept = directory.install(fresh).unwrap().unwrap();
        assert_eq!(std::fs::read(kept).unwrap(), vec![1; 10_000]);
        let report = load(&mut directory.open_engine().unwrap());
        assert_eq!((report.last_batch, report.oldest_batch), (6, Some(6)));
        assert_eq!(report.damage, []);
    }

    #[test]
    fn half_a_new_store_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(root.path()).unwrap();
        std::fs::write(directory.aside_path(), vec![1; 10_000]).unwrap();
        assert_eq!(load(&mut directory.open_engine().unwrap()).damage, []);
    }
}
