//! Records of the journal and of the snapshots: the wire's encoding, on disk.

use serde::{Deserialize, Serialize};

use super::frame::{WireError, decode_body};
use super::ledger::LedgerRecord;
use super::{bounded, delta};
use crate::delta::Products;
use crate::fingerprint::Fingerprint;
use crate::hlc::Stamp;
use crate::hold::Hold;
use crate::id::ShardIndex;
use crate::limits::SHARDS_MAX;
use crate::version::VersionVector;

/// What one batch did to one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRecord {
    /// The shard.
    pub shard: ShardIndex,
    /// The slots that changed, as they came in.
    #[serde(with = "delta")]
    pub products: Products,
    /// The entries of the shard's version vector that the batch advanced: in the same record as the slots, so that
    /// the vector on disk never runs ahead of them (rule D3).
    pub version: VersionVector,
    /// The shard's fingerprint after the batch.
    pub fingerprint: Fingerprint,
}

/// One batch of the journal (rule D1): everything one group commit changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchRecord {
    /// The batch's number: 1, 2, 3 … without a gap.
    pub number: u64,
    /// The highest stamp ever issued or seen (rule C3).
    pub clock: Stamp,
    /// The shards that it touched.
    #[serde(deserialize_with = "bounded::list::<_, _, SHARD_RECORDS_MAX>")]
    pub shards: Vec<ShardRecord>,
}

/// A batch may touch a shard several times: more than one chunk of products is split over records.
const SHARD_RECORDS_MAX: usize = SHARDS_MAX as usize * 16;

/// A chunk of one shard's snapshot (rule D2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The shard.
    pub shard: ShardIndex,
    /// The number of the last batch that the snapshot contains.
    pub batch: u64,
    /// All slots of the products in this chunk.
    #[serde(with = "delta")]
    pub products: Products,
    /// The shard's version vector.
    pub version: VersionVector,
    /// The shard's fingerprint.
    pub fingerprint: Fingerprint,
}

macro_rules! record_codec {
    ($type:ty) => {
        impl $type {
            /// Writes the record.
            ///
            /// # Errors
            /// If it exceeds a limit; nothing was written.
            pub fn encode(&self) -> Result<Vec<u8>, WireError> {
                rmp_serde::to_vec(self).map_err(|error| WireError::Encode(error.to_string()))
            }

            /// Reads a record that fills `bytes` to the last byte.
            ///
            /// # Errors
            /// If the bytes are no such record.
            pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
                decode_body(bytes)
            }
        }
    };
}

record_codec!(BatchRecord);
record_codec!(SnapshotRecord);
record_codec!(LedgerRecord);
record_codec!(Hold);
