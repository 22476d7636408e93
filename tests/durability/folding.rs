//! The journal is folded into snapshots while writes go on (rule D2).

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stockmesh::storage::{Disk, FaultyDisk};
use stockmesh::{Store, inspect};

use crate::cluster::until;
use crate::faults::Disks;
use crate::model::{Model, Write, add, perform};

/// The size of the journal at which folding begins, and somewhat more.
const FULL: u64 = 16 << 20;
/// More than one of the batches here takes.
const BATCH: u64 = 1 << 20;

fn batch(units: i64) -> Write {
    (0..4_000).map(|number| add(format!("{number:04}-{}", "f".repeat(120)), units)).collect()
}

/// Writes until the journal was folded. Returns what was acknowledged, and the greatest size that was seen.
async fn fold(store: &Store) -> (Model, u64) {
    let (mut model, mut largest) = (Model::default(), 0);
    for units in 1..100 {
        let write = batch(units);
        perform(store, &write).await.unwrap();
        model.apply(&write);
        let bytes = store.status().journal_bytes;
        if bytes < largest {
            return (model, largest);
        }
        largest = bytes;
    }
    panic!("the journal reached {largest} bytes and was never folded");
}

#[tokio::test]
async fn a_long_journal_is_folded_and_nothing_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("data");
    let open = || Store::builder().data_dir(&directory).shards(8).open();
    let store = open().await.unwrap();
    let (model, largest) = fold(&store).await;
    // The round may have ended before the size was seen at which it began.
    assert!((FULL - BATCH..FULL + (6 << 20)).contains(&largest), "{largest}");
    // Folding goes on between commits, also when nobody writes.
    until("the round ends", || store.status().journal_bytes < FULL / 2).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let before = store.status();
    assert_eq!(Model::of(&store), model);
    store.close().await.unwrap();

    let looked = inspect(&directory).unwrap();
    assert_eq!((looked.damage.len(), looked.fingerprint, looked.products), (0, before.fingerprint, 4_000));
    assert_eq!((looked.journal_bytes, looked.last_batch), (before.journal_bytes, before.last_batch));
    let store = open().await.unwrap();
    let after = store.status();
    assert_eq!((after.replica, after.fingerprint, after.slots), (before.replica, before.fingerprint, before.slots));
    assert_eq!((after.journal_bytes, after.last_batch), (before.journal_bytes, before.last_batch));
    // What is written after a fold joins on to what was folded.
    let write = batch(-1);
    perform(&store, &write).await.unwrap();
    store.close().await.unwrap();
    let store = open().await.unwrap();
    assert_eq!(Model::of(&store), model.with(&[write]));
}

/// Keeps what is on a disk after each of its syncs, once it is armed.
#[derive(Clone, Debug, Default)]
struct Watched {
    disk: FaultyDisk,
    images: Arc<Mutex<Option<Vec<Vec<u8>>>>>,
}

impl Disk for Watched {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        self.disk.set_len(length_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()?;
        if let Some(images) = &mut *self.images.lock().unwrap()
            && images.len() < 8
        {
            images.push(self.disk.crash(0));
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write(offset, data)
    }
}

/// The power goes after each commit of a round: what is folded by then is there, and so is what is not.
#[tokio::test]
async fn a_loss_of_power_while_shards_are_folded_loses_nothing() {
    let watched = Watched::default();
    let mark = FaultyDisk::new();
    let disks = (Box::new(watched.clone()), Box::new(mark.clone()));
    let store = Store::builder().disks(disks.0, disks.1).shards(4).open().await.unwrap();
    let mut model = Model::default();
    for units in 1.. {
        if store.status().journal_bytes > FULL - BATCH {
            break;
        }
        perform(&store, &batch(units)).await.unwrap();
        model.apply(&batch(units));
    }
    let mark = mark.kill();
    *watched.images.lock().unwrap() = Some(Vec::new());
    // The round begins after one of these, and goes on by itself.
    let last: [Write; 2] = [batch(1), batch(2)];
    for write in &last {
        perform(&store, write).await.unwrap();
    }
    until("the round ends", || store.status().journal_bytes < FULL / 2).await;
    store.close().await.unwrap();
    let images = watched.images.lock().unwrap().take().unwrap();
    assert!(images.len() >= 4, "{} commits", images.len());
    let expected = [model.clone(), model.with(&last[..1]), model.with(&last)];
    for (number, image) in images.into_iter().enumerate() {
        let disks = Disks { store: FaultyDisk::from_image(image), mark: FaultyDisk::from_image(mark.clone()) };
        let opened = disks.open().await.unwrap_or_else(|error| panic!("commit {number}: {error}"));
        assert!(expected.contains(&Model::of(&opened)), "commit {number}");
    }
}
