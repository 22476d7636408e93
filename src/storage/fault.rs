//! A disk that fails on purpose, loses power, and takes damage.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

use super::disk::{Disk, read_image, to_u64, to_usize, write_image};

/// What a power loss may tear a write into.
const SECTOR_BYTES: u64 = 512;

/// How a [`FaultyDisk`] fails when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultMode {
    /// That one operation fails and has no effect; later ones succeed.
    Once,
    /// That operation and every later one, reads included, fail: the disk is gone.
    Forever,
    /// A write puts half of its bytes down and then fails; otherwise like [`FaultMode::Once`]. A full disk does this.
    ShortWrite,
}

/// A disk in memory that counts operations, fails at the one asked for, and knows what a power loss could take away.
///
/// Clones share one content, so a test keeps a handle while the engine owns another.
#[derive(Clone, Debug, Default)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    current: Vec<u8>,
    /// The content that no power loss takes away, before `changes` are applied on top in their order.
    base: Vec<u8>,
    changes: Vec<Change>,
    operations: u64,
    plan: Option<(u64, FaultMode)>,
    dead: bool,
}

#[derive(Debug)]
struct Change {
    kind: ChangeKind,
    fate: Fate,
}

#[derive(Debug)]
enum ChangeKind {
    Write { offset: u64, data: Vec<u8> },
    SetLen(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Not synced yet.
    Pending,
    /// A sync of it failed. As on Linux, a later sync that succeeds does not bring it to the disk.
    Abandoned,
    /// Durable, but an abandoned change before it may be under it, so the order must be kept.
    Durable,
}

impl FaultyDisk {
    /// An empty disk that does not fail yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk that holds these bytes durably.
    #[must_use]
    pub fn from_image(image: Vec<u8>) -> Self {
        let state = State { current: image.clone(), base: image, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// How many changing operations (write, set_len, sync) were asked of this disk so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Fails the `nth` changing operation from now on, counted from 1.
    pub fn fail_at(&self, nth: u64, mode: FaultMode) {
        let mut state = self.state.lock();
        state.plan = Some((state.operations.saturating_add(nth), mode));
    }

    /// Takes the plan back and lets a dead disk work again.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.plan = None;
        state.dead = false;
    }

    /// What the disk holds after the process was killed: every write that was made.
    #[must_use]
    pub fn kill(&self) -> Vec<u8> {
        self.state.lock().current.clone()
    }

    /// What the disk may hold after power was lost: each change that was not synced is kept, dropped, or torn into
    /// sectors of which each is kept or dropped. The seed decides, the same one always in the same way.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Vec<u8> {
        let state = self.state.lock();
        let mut choice = SplitMix(seed);
        let mut image = state.base.clone();
        for change in &state.changes {
            if change.fate == Fate::Durable {
                change.kind.apply(&mut image);
                continue;
            }
            match choice.next() % 3 {
                0 => {}
                1 => change.kind.apply(&mut image),
                _ => change.kind.apply_torn(&mut image, &mut choice),
            }
        }
        image
    }

    /// Damages one bit, durably. An offset past the end does nothing.
    pub fn flip(&self, offset: u64, bit: u8) {
        let mut state = self.state.lock();
        let State { current, base, .. } = &mut *state;
        for image in [current, base] {
            let byte = to_usize(offset).ok().and_then(|offset| image.get_mut(offset));
            if let Some(byte) = byte {
                *byte ^= 1 << (bit % 8);
            }
        }
    }
}

impl Disk for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        let state = self.state.lock();
        state.check_alive()?;
        to_u64(state.current.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock();
        state.check_alive()?;
        read_image(&state.current, offset, out)
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.next_operation().map_err(|_| injected())?;
        state.change(ChangeKind::SetLen(length_bytes));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.next_operation().is_err() {
            for change in &mut state.changes {
                if change.fate == Fate::Pending {
                    change.fate = Fate::Abandoned;
                }
            }
            return Err(injected());
        }
        state.settle();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let (data, result) = match state.next_operation() {
            Ok(()) => (data, Ok(())),
            Err(FaultMode::ShortWrite) => (data.get(..data.len() / 2).unwrap_or_default(), Err(injected())),
            Err(FaultMode::Once | FaultMode::Forever) => return Err(injected()),
        };
        let data = data.to_vec();
        state.change(ChangeKind::Write { offset, data });
        result
    }
}

impl State {
    fn check_alive(&self) -> io::Result<()> {
        if self.dead { Err(injected()) } else { Ok(()) }
    }

    fn next_operation(&mut self) -> Result<(), FaultMode> {
        self.operations = self.operations.saturating_add(1);
        if self.dead {
            return Err(FaultMode::Forever);
        }
        match self.plan {
            Some((at, mode)) if at == self.operations => {
                self.plan = None;
                self.dead = mode == FaultMode::Forever;
                Err(mode)
            }
            _ => Ok(()),
        }
    }

    fn change(&mut self, kind: ChangeKind) {
        kind.apply(&mut self.current);
        self.changes.push(Change { kind, fate: Fate::Pending });
    }

    fn settle(&mut self) {
        if self.changes.iter().all(|change| change.fate != Fate::Abandoned) {
            for change in self.changes.drain(..) {
                change.kind.apply(&mut self.base);
            }
        }
        for change in &mut self.changes {
            if change.fate == Fate::Pending {
                change.fate = Fate::Durable;
            }
        }
    }
}

impl ChangeKind {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            // An image in memory is lengthened as needed; only an offset beyond all memory fails, and then nothing is written.
            Self::Write { offset, data } => drop(write_image(image, *offset, data)),
            Self::SetLen(length) => {
                if let Ok(length) = to_usize(*length) {
                    image.resize(length, 0);
                }
            }
        }
    }

    fn apply_torn(&self, image: &mut Vec<u8>, choice: &mut SplitMix) {
        let Self::Write { offset, data } = self else {
            return self.apply(image);
        };
        let (mut at, mut rest) = (*offset, data.as_slice());
        while !rest.is_empty() {
            let to_boundary = SECTOR_BYTES - at % SECTOR_BYTES;
            let length = usize::try_from(to_boundary).map_or(rest.len(), |bytes| bytes.min(rest.len()));
            let (sector, later) = rest.split_at(length);
            if choice.next().is_multiple_of(2) {
                drop(write_image(image, at, sector));
            }
            at = at.saturating_add(to_boundary);
            rest = later;
        }
    }
}

fn injected() -> io::Error {
    io::Error::other("injected fault")
}

/// A small generator of its own, so that a seed means the same in every version of every dependency.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_comes_at_its_operation_only() {
        let disk = FaultyDisk::new();
        disk.fail_at(2, FaultMode::Once);
        disk.write(0, &[1; 4]).unwrap();
        assert!(disk.write(0, &[2; 4]).is_err());
        disk.sync().unwrap();
        assert_eq!(disk.kill(), [1; 4]);
        disk.fail_at(1, FaultMode::ShortWrite);
        assert!(disk.write(0, &[3; 4]).is_err());
        assert_eq!(disk.kill(), [3, 3, 1, 1]);
        disk.fail_at(1, FaultMode::Forever);
        assert!(disk.sync().is_err());
        assert!(disk.write(0, &[4]).is_err());
        assert!(disk.read(0, &mut [0]).is_err());
        disk.heal();
        disk.write(0, &[5]).unwrap();
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_varies_in_the_rest() {
        let disk = FaultyDisk::new();
        disk.write(0, &[1; 1024]).unwrap();
        disk.sync().unwrap();
        disk.write(512, &[2; 512]).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..64 {
            let image = disk.crash(seed);
            assert_eq!(image, disk.crash(seed));
            assert_eq!(image[..512], [1; 512]);
            assert!(image[512..] == [1; 512] || image[512..] == [2; 512], "a sector never tears");
            seen.insert(image);
        }
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn a_later_sync_does_not_save_what_a_failed_one_abandoned() {
        let disk = FaultyDisk::new();
        disk.write(0, &[1; 8]).unwrap();
        disk.fail_at(1, FaultMode::Once);
        assert!(disk.sync().is_err());
        disk.write(8, &[2; 8]).unwrap();
        disk.sync().unwrap();
        let images: Vec<_> = (0..64).map(|seed| disk.crash(seed)).collect();
        assert!(images.iter().all(|image| image[8..] == [2; 8]));
        assert!(images.iter().any(|image| image[..8] == [0; 8]));
        assert!(images.iter().any(|image| image[..8] == [1; 8]));
    }

    #[test]
    fn a_flip_is_durable() {
        let disk = FaultyDisk::from_image(vec![0; 4]);
        disk.flip(2, 3);
        disk.flip(99, 0);
        assert_eq!(disk.kill(), [0, 0, 8, 0]);
        assert_eq!(disk.crash(1), [0, 0, 8, 0]);
    }
}
