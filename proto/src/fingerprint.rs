//! Fingerprints: 128-bit sums of the hashes of slots, and the tree of sums over the shards.
//!
//! A sum can be updated by taking the old slot's hash away and adding the new one's, so a change costs O(1) whatever
//! the size of the shard (rules F1 to F3). Equal sums mean equal state; the chance of an accident is 2^-128.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::{ShardCount, ShardIndex};
use crate::limits::{FINGERPRINT_GROUP_SHARDS, LOCATION_BYTES_MAX, SKU_BYTES_MAX};

/// A sum of slot hashes, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// The fingerprint of nothing.
    pub const EMPTY: Self = Self(0);

    /// The fingerprint of these bits.
    pub fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits.
    pub fn bits(self) -> u128 {
        self.0
    }

    /// The sum of both states' hashes.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    /// This sum without that of `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.wrapping_sub(other.0))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// On the wire: the upper and the lower 64 bits, since MessagePack has no wider integer.
impl Serialize for Fingerprint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.0.to_be_bytes();
        let (upper, lower) = bytes.split_at(8);
        let half = |bytes: &[u8]| u64::from_be_bytes(<[u8; 8]>::try_from(bytes).unwrap_or_default());
        (half(upper), half(lower)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (upper, lower) = <(u64, u64)>::deserialize(deserializer)?;
        Ok(Self((u128::from(upper) << 64) | u128::from(lower)))
    }
}

/// Room for the longest slot: kind, two names with their lengths, and at most 8 numbers.
const SLOT_BYTES_MAX: usize = 3 + SKU_BYTES_MAX + LOCATION_BYTES_MAX + 8 * 8;

/// Writes a slot's canonical bytes (rule F2) on the stack and hashes them. The bytes are independent of the wire
/// format: what was decoded is never encoded again to be hashed.
pub(crate) struct SlotHasher {
    bytes: [u8; SLOT_BYTES_MAX],
    length: usize,
}

impl SlotHasher {
    pub(crate) fn new(kind: u8, sku: &str) -> Self {
        let mut hasher = Self { bytes: [0; SLOT_BYTES_MAX], length: 0 };
        hasher.put(&[kind]);
        hasher.name(sku);
        hasher
    }

    /// A name after its length in one byte; names are at most 128 bytes long.
    pub(crate) fn name(&mut self, name: &str) -> &mut Self {
        self.put(&[u8::try_from(name.len()).unwrap_or(u8::MAX)]);
        self.put(name.as_bytes());
        self
    }

    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.put(&number.to_le_bytes());
        self
    }

    pub(crate) fn finish(&self) -> Fingerprint {
        let filled = self.bytes.get(..self.length).unwrap_or(&self.bytes);
        Fingerprint(xxhash_rust::xxh3::xxh3_128(filled))
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(bytes);
            self.length = end;
        } else {
            debug_assert!(false, "a slot is longer than its checked parts allow");
        }
    }
}

/// Sums over the shards: one leaf per shard, groups of 16 leaves, one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FingerprintTree {
    leaves: Vec<Fingerprint>,
    groups: Vec<Fingerprint>,
    root: Fingerprint,
}

impl FingerprintTree {
    /// The tree over `shards` empty shards.
    pub fn new(shards: ShardCount) -> Self {
        let leaves = usize::from(shards.get());
        let groups = Self::group_count(shards);
        Self {
            leaves: vec![Fingerprint::EMPTY; leaves],
            groups: vec![Fingerprint::EMPTY; groups],
            root: Fingerprint::EMPTY,
        }
    }

    /// Number of groups over `shards` shards.
    pub fn group_count(shards: ShardCount) -> usize {
        usize::from(shards.get()).div_ceil(Self::group_size())
    }

    /// The group that a shard belongs to.
    pub fn group_of(shard: ShardIndex) -> usize {
        shard.as_usize() / Self::group_size()
    }

    /// Replaces a shard's fingerprint, and corrects the sums above it.
    pub fn set(&mut self, shard: ShardIndex, fingerprint: Fingerprint) {
        let Some(leaf) = self.leaves.get_mut(shard.as_usize()) else { return };
        let old = std::mem::replace(leaf, fingerprint);
        if let Some(group) = self.groups.get_mut(Self::group_of(shard)) {
            *group = group.minus(old).plus(fingerprint);
        }
        self.root = self.root.minus(old).plus(fingerprint);
    }

    /// The fingerprint of one shard.
    pub fn leaf(&self, shard: ShardIndex) -> Fingerprint {
        self.leaves.get(shard.as_usize()).copied().unwrap_or_default()
    }

    /// The sums of the groups.
    pub fn groups(&self) -> &[Fingerprint] {
        &self.groups
    }

    /// The fingerprint of the whole state. It does not depend on the number of shards.
    pub fn root(&self) -> Fingerprint {
        self.root
    }

    fn group_size() -> usize {
        usize::try_from(FINGERPRINT_GROUP_SHARDS).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_keeps_its_sums() {
        let shards = ShardCount::new(64).unwrap();
        let mut tree = FingerprintTree::new(shards);
        for shard in shards.indexes() {
            tree.set(shard, Fingerprint(u128::MAX - u128::from(shard.0)));
            tree.set(shard, Fingerprint((u128::MAX / 7).wrapping_mul(u128::from(shard.0))));
        }
        let sum =
            |fingerprints: &[Fingerprint]| fingerprints.iter().fold(Fingerprint::EMPTY, |sum, one| sum.plus(*one));
        assert_eq!(tree.groups.len(), 4);
        assert_eq!(tree.groups[2], sum(&tree.leaves[32..48]));
        assert_eq!(tree.root(), sum(&tree.leaves));
        assert_ne!(tree.root(), Fingerprint::EMPTY);
    }
}
