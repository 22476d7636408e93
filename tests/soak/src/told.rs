//! What callers of one node were told, over all its processes: in a file, so that a killed process takes nothing of it along.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;

use stockmesh::WriteError;

use crate::node::tell;

/// What is counted, in units.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Counted in where no other node does.
    Own,
    /// Counted in for all to sell.
    Stocked,
    /// Sold of that, holds that were sold included.
    Sold,
    /// Counted in by batches, in each of two products of another shard.
    Paired,
}

const KINDS: usize = 4;
const BYTES: usize = (KINDS * 3 + 2) * 8;

/// Units of writes of one kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    begun: u64,
    done: u64,
    refused: u64,
}

impl Sum {
    /// The least and the most that there may be: a kill leaves writes that nobody was told of.
    pub(crate) fn bounds(self) -> (i128, i128) {
        (self.done.into(), i128::from(self.begun) - i128::from(self.refused))
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sums {
    kinds: [Sum; KINDS],
    /// The last stocktake that was begun, and the last that was done.
    pub(crate) counted: (u64, u64),
}

impl Sums {
    pub(crate) fn of(&self, kind: Kind) -> Sum {
        self.kinds[kind as usize]
    }

    fn to_bytes(self) -> [u8; BYTES] {
        let sums = self.kinds.iter().flat_map(|sum| [sum.begun, sum.done, sum.refused]);
        let mut bytes = [0; BYTES];
        for (place, number) in bytes.chunks_exact_mut(8).zip(sums.chain([self.counted.0, self.counted.1])) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let numbers: Vec<u64> =
            bytes.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect();
        let mut sums = Self::default();
        for (sum, numbers) in sums.kinds.iter_mut().zip(numbers.chunks_exact(3)) {
            *sum = Sum { begun: numbers[0], done: numbers[1], refused: numbers[2] };
        }
        sums.counted = (numbers[KINDS * 3], numbers[KINDS * 3 + 1]);
        sums
    }
}

pub(crate) fn read(path: &Path) -> Sums {
    std::fs::read(path).map_or_else(|_| Sums::default(), |bytes| Sums::from_bytes(&bytes))
}

#[derive(Debug)]
pub(crate) struct Told {
    file: File,
    sums: Mutex<Sums>,
}

impl Told {
    pub(crate) fn open(path: &Path) -> Self {
        let sums = Mutex::new(read(path));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).unwrap();
        Self { file, sums }
    }

    /// What a killed process has written is the kernel's, so no sync is needed.
    fn change(&self, change: impl FnOnce(&mut Sums)) {
        let mut sums = self.sums.lock().unwrap();
        change(&mut sums);
        self.file.write_all_at(&sums.to_bytes(), 0).unwrap();
    }

    pub(crate) fn begin(&self, kind: Kind, units: u64) {
        self.change(|sums| sums.kinds[kind as usize].begun += units);
    }

    pub(crate) fn end<T>(&self, kind: Kind, units: u64, result: &Result<T, WriteError>) {
        let is_done = is_done(result);
        self.change(|sums| {
            let sum = &mut sums.kinds[kind as usize];
            *(if is_done { &mut sum.done } else { &mut sum.refused }) += units;
        });
    }

    pub(crate) fn begin_count(&self, counted: u64) {
        self.change(|sums| sums.counted.0 = counted);
    }

    pub(crate) fn end_count<T>(&self, result: &Result<T, WriteError>) {
        let is_done = is_done(result);
        self.change(|sums| {
            *(if is_done { &mut sums.counted.1 } else { &mut sums.counted.0 }) =
                if is_done { sums.counted.0 } else { sums.counted.1 };
        });
    }
}

/// Whether a write was acknowledged. What is neither that nor a refusal that may be is told.
pub(crate) fn is_done<T>(result: &Result<T, WriteError>) -> bool {
    match result {
        Ok(_) => return true,
        // Sold out, or a hold that had expired.
        Err(WriteError::Insufficient { .. } | WriteError::Refused(_) | WriteError::Closed) => {}
        Err(error) => tell(&format!("soak odd {error}")),
    }
    false
}
