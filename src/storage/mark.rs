//! The mark: what was durable, noted outside the store.
//!
//! A store that is older than it was, because a copy was put back, because damage made the engine fall back to an earlier
//! commit, or because it was deleted, looks intact from inside. The mark tells. It is written in place after each commit
//! and not synced, so it costs a microsecond or two and is a lower bound: a loss of power may set it back, but as the
//! commit it names was synced before it was written, it is never ahead of the store.

use std::io;

use xxhash_rust::xxh3::xxh3_128;

use super::disk::Disk;

const MAGIC: [u8; 8] = *b"smshmrk1";
const MARK_BYTES: usize = 40;

/// How far a store has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The number of the last durable commit; creating the store is commit 1.
    pub commit: u64,
    /// The number of the last durable batch of the journal, 0 if there was none.
    pub batch: u64,
}

impl Mark {
    /// The greater of both in each number.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self { commit: self.commit.max(other.commit), batch: self.batch.max(other.batch) }
    }

    fn encode(self) -> [u8; MARK_BYTES] {
        let mut out = [0; MARK_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..16].copy_from_slice(&self.commit.to_le_bytes());
        out[16..24].copy_from_slice(&self.batch.to_le_bytes());
        let checksum = xxh3_128(&out[..24]).to_le_bytes();
        out[24..].copy_from_slice(&checksum);
        out
    }

    fn decode(bytes: &[u8; MARK_BYTES]) -> Option<Self> {
        let (commit, rest) = bytes.strip_prefix(&MAGIC)?.split_first_chunk::<8>()?;
        let (batch, _) = rest.split_first_chunk::<8>()?;
        let mark = Self { commit: u64::from_le_bytes(*commit), batch: u64::from_le_bytes(*batch) };
        (mark.encode() == *bytes).then_some(mark)
    }
}

/// What was found where the mark should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FoundMark {
    /// Nothing: a new store, or somebody deleted it.
    Missing,
    /// Something that is no mark. A torn write can do this, so it is no damage to the store.
    Bad,
    /// The lower bound.
    Known(Mark),
}

impl FoundMark {
    /// The lower bound this gives, which is nothing unless the mark is good.
    pub(super) fn bound(self) -> Mark {
        match self {
            Self::Known(mark) => mark,
            Self::Missing | Self::Bad => Mark::default(),
        }
    }
}

/// The place of the mark.
#[derive(Debug)]
pub(super) struct MarkFile {
    disk: Box<dyn Disk>,
    complained: bool,
}

impl MarkFile {
    pub(super) fn new(disk: Box<dyn Disk>) -> Self {
        Self { disk, complained: false }
    }

    /// Reads the mark. Fails only if the disk does.
    pub(super) fn read(&self) -> io::Result<FoundMark> {
        let length = self.disk.len()?;
        if length == 0 {
            return Ok(FoundMark::Missing);
        }
        if u64::try_from(MARK_BYTES) != Ok(length) {
            return Ok(FoundMark::Bad);
        }
        let mut bytes = [0; MARK_BYTES];
        self.disk.read(0, &mut bytes)?;
        Ok(Mark::decode(&bytes).map_or(FoundMark::Bad, FoundMark::Known))
    }

    /// Moves the mark after a durable commit. A failure costs only the chance to notice a rollback, so it is logged, once.
    pub(super) fn advance(&mut self, mark: Mark) {
        if let Err(error) = self.disk.write(0, &mark.encode())
            && !self.complained
        {
            self.complained = true;
            tracing::warn!(%error, "the mark cannot be written; a later rollback of the store may go unnoticed");
        }
    }

    /// Puts a whole new mark in place and syncs it.
    pub(super) fn renew(&self, mark: Mark) -> io::Result<()> {
        let bytes = mark.encode();
        self.disk.set_len(u64::try_from(bytes.len()).unwrap_or_default())?;
        self.disk.write(0, &bytes)?;
        self.disk.sync()
    }

    /// Makes the mark durable, at the end of a store's life in this process.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::disk::MemoryDisk;

    #[test]
    fn a_mark_comes_back_and_no_bit_may_differ() {
        let mark = Mark { commit: 812, batch: 700 };
        let disk = MemoryDisk::new();
        let mut file = MarkFile::new(Box::new(disk.clone()));
        assert_eq!(file.read().unwrap(), FoundMark::Missing);
        file.renew(Mark::default()).unwrap();
        file.advance(mark);
        assert_eq!(file.read().unwrap(), FoundMark::Known(mark));
        for bit in 0..MARK_BYTES * 8 {
            let mut image = disk.image();
            image[bit / 8] ^= 1 << (bit % 8);
            let damaged = MarkFile::new(Box::new(MemoryDisk::from_image(image)));
            assert_eq!(damaged.read().unwrap(), FoundMark::Bad);
        }
        disk.set_len(39).unwrap();
        assert_eq!(file.read().unwrap(), FoundMark::Bad);
    }
}
