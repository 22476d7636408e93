//! A node's two disks, in memory: the store's and its mark's. They know what a loss of power may take away.
//!
//! The engine writes pages in an order that differs from run to run. So what a loss of power does to a write depends on
//! where it lies, and not on when it came between two syncs.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stockmesh::storage::Disk;
use tokio::time::Instant;

use crate::chance::{Chance, mix};

/// What a loss of power may tear a write into.
const SECTOR_BYTES: usize = 512;
/// What a full disk that never overwrites takes at the most.
const LEFT_BYTES_MAX: usize = 32 << 10;

/// What two disks hold: the store's and the mark's.
pub type Images = [Vec<u8>; 2];

/// Both disks of a node, from one opening to the next. Clones are one.
#[derive(Clone, Debug)]
pub struct Disks(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    current: Images,
    /// What no loss of power takes away.
    durable: Images,
    /// What came since, in its order.
    entries: Vec<Entry>,
    chance: Chance,
    /// How long a sync takes, and up to how much longer at random.
    sync_time: (Duration, Duration),
    busy_until: Instant,
    fails_at_sync: bool,
    /// Bytes that the store's disk may hold.
    room_bytes: usize,
    /// Bytes that both disks take before they are full.
    left_bytes: usize,
    is_gone: bool,
    /// Whether anything ever failed.
    has_failed: bool,
}

#[derive(Debug)]
enum Entry {
    Write {
        disk: usize,
        offset: usize,
        data: Vec<u8>,
    },
    SetLength {
        disk: usize,
        bytes: usize,
    },
    /// Everything of this disk before it is durable from then on.
    Sync {
        disk: usize,
        done: Instant,
    },
}

impl Disks {
    /// Disks that hold these bytes. Syncs take no time before [`Disks::set_sync_time`] is called.
    #[must_use]
    pub fn new(images: Images, chance: Chance) -> Self {
        Self(Arc::new(Mutex::new(State {
            current: images.clone(),
            durable: images,
            entries: Vec::new(),
            chance,
            sync_time: (Duration::ZERO, Duration::ZERO),
            busy_until: Instant::now(),
            fails_at_sync: false,
            room_bytes: usize::MAX,
            left_bytes: usize::MAX,
            is_gone: false,
            has_failed: false,
        })))
    }

    /// The two, for a builder.
    #[must_use]
    pub fn boxes(&self) -> (Box<dyn Disk>, Box<dyn Disk>) {
        let of = |disk| Box::new(OneDisk { disks: self.clone(), disk });
        (of(0), of(1))
    }

    /// How long a sync takes from now on, and up to how much longer at random.
    pub fn set_sync_time(&self, time: Duration, jitter: Duration) {
        self.0.lock().sync_time = (time, jitter);
    }

    /// Lets the next sync fail.
    pub fn fail_at_sync(&self) {
        self.0.lock().fails_at_sync = true;
    }

    /// Leaves the store's disk no more room than it has now; or takes a little more on both and then nothing, not even in
    /// place, as a file system does that never overwrites.
    pub fn fill(&self) {
        let mut state = self.0.lock();
        state.room_bytes = state.current[0].len();
        if state.chance.per_mille(500) {
            let left_bytes = state.chance.below(LEFT_BYTES_MAX);
            state.left_bytes = left_bytes;
        }
    }

    /// What is written now: taken between two commits, as a backup of a stopped store would be.
    #[must_use]
    pub fn copy(&self) -> Images {
        self.0.lock().current.clone()
    }

    /// Whether they have failed or are about to.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        let state = self.0.lock();
        state.fails_at_sync || state.room_bytes < usize::MAX || state.left_bytes < usize::MAX
    }

    /// Whether anything was refused, so that the store may refuse writes from then on.
    #[must_use]
    pub fn have_failed(&self) -> bool {
        self.0.lock().has_failed
    }

    /// Ends these disks: nothing is written or read any more. Returns all that was written, as after a process was killed.
    #[must_use]
    pub fn kill(&self) -> Images {
        let mut state = self.0.lock();
        state.is_gone = true;
        state.current.clone()
    }

    /// Ends these disks by a loss of power. Of what was not synced each sector is there or not, as the seed decides.
    #[must_use]
    pub fn lose_power(&self, seed: u64) -> Images {
        let mut state = self.0.lock();
        state.is_gone = true;
        state.settle(Instant::now());
        let mut images = state.durable.clone();
        for entry in &state.entries {
            match entry {
                // The caller waited for it, so what follows was not written yet.
                Entry::Sync { .. } => break,
                Entry::SetLength { disk, bytes } => images[*disk].resize(*bytes, 0),
                Entry::Write { disk, offset, data } => tear(&mut images[*disk], *offset, data, seed),
            }
        }
        images
    }
}

/// Puts down all of a write, nothing, or some of its sectors.
fn tear(image: &mut Vec<u8>, offset: usize, data: &[u8], seed: u64) {
    let fate = mix(seed ^ mix(as_u64(offset)) ^ as_u64(data.len()).rotate_left(32));
    match fate % 3 {
        0 => {}
        1 => put(image, offset, data),
        _ => {
            let mut at = 0;
            while at < data.len() {
                let end = (at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES).min(data.len());
                if mix(fate ^ as_u64(at)).is_multiple_of(2) {
                    put(image, offset + at, &data[at..end]);
                }
                at = end;
            }
        }
    }
}

fn put(image: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(data);
}

fn as_u64(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

impl State {
    /// Takes over what syncs have made durable by now.
    fn settle(&mut self, now: Instant) {
        let done = |entry: &Entry| matches!(entry, Entry::Sync { done, .. } if *done <= now);
        for disk in 0..2 {
            let is_last = |entry: &Entry| done(entry) && matches!(entry, Entry::Sync { disk: of, .. } if *of == disk);
            let Some(last) = self.entries.iter().rposition(is_last) else { continue };
            let mut kept = Vec::new();
            for (place, entry) in std::mem::take(&mut self.entries).into_iter().enumerate() {
                match entry {
                    Entry::Write { disk: of, offset, data } if of == disk && place < last => {
                        put(&mut self.durable[disk], offset, &data);
                    }
                    Entry::SetLength { disk: of, bytes } if of == disk && place < last => {
                        self.durable[disk].resize(bytes, 0);
                    }
                    Entry::Sync { disk: of, .. } if of == disk && place <= last => {}
                    entry => kept.push(entry),
                }
            }
            self.entries = kept;
        }
    }

    fn check(&self) -> io::Result<()> {
        if self.is_gone { Err(io::Error::other("the node crashed")) } else { Ok(()) }
    }

    fn sync(&mut self, disk: usize) -> io::Result<()> {
        self.check()?;
        let now = Instant::now();
        let (time, jitter) = self.sync_time;
        let micros = self.chance.within(0..=u64::try_from(jitter.as_micros()).unwrap_or(u64::MAX));
        let takes = time + Duration::from_micros(micros);
        stockmesh::simulation::spend_on_disk(takes);
        if std::mem::take(&mut self.fails_at_sync) {
            self.has_failed = true;
            return Err(io::Error::other("injected: the sync failed"));
        }
        self.settle(now);
        self.busy_until = self.busy_until.max(now) + takes;
        self.entries.push(Entry::Sync { disk, done: self.busy_until });
        Ok(())
    }
}

#[derive(Debug)]
struct OneDisk {
    disks: Disks,
    disk: usize,
}

impl Disk for OneDisk {
    fn len(&self) -> io::Result<u64> {
        let state = self.disks.0.lock();
        state.check()?;
        Ok(as_u64(state.current[self.disk].len()))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disks.0.lock();
        state.check()?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let found = state.current[self.disk].get(start..start + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        let mut state = self.disks.0.lock();
        state.check()?;
        let bytes = usize::try_from(length_bytes).map_err(io::Error::other)?;
        if self.disk == 0 && bytes > state.room_bytes {
            state.has_failed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.current[self.disk].resize(bytes, 0);
        state.entries.push(Entry::SetLength { disk: self.disk, bytes });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disks.0.lock().sync(self.disk)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disks.0.lock();
        state.check()?;
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let is_full = data.len() > state.left_bytes;
        // What still fitted is written.
        let data = &data[..data.len().min(state.left_bytes)];
        if state.left_bytes < usize::MAX {
            state.left_bytes -= data.len();
        }
        put(&mut state.current[self.disk], offset, data);
        state.entries.push(Entry::Write { disk: self.disk, offset, data: data.to_vec() });
        if is_full {
            state.has_failed = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}
