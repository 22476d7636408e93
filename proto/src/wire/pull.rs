//! What joins several peers' help: surveys, and the scope of a pull (rules J1, J2).

use serde::{Deserialize, Serialize};

use super::bounded;
use crate::fingerprint::Fingerprint;
use crate::id::ShardIndex;
use crate::limits::{PULL_SHARDS_MAX, SHARDS_MAX};

/// The shards that a pull speaks of: one at least, in rising order, each once (rule J2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scope(Vec<ShardIndex>);

impl Scope {
    /// A scope of these shards; `None` if they are none, too many, or not in rising order.
    pub fn new(shards: Vec<ShardIndex>) -> Option<Self> {
        let is_rising = shards.is_sorted_by(|left, right| left < right);
        (!shards.is_empty() && shards.len() <= PULL_SHARDS_MAX && is_rising).then_some(Self(shards))
    }

    /// The shards, in rising order.
    pub fn shards(&self) -> &[ShardIndex] {
        &self.0
    }

    /// Whether a shard is among them.
    pub fn contains(&self, shard: ShardIndex) -> bool {
        self.0.binary_search(&shard).is_ok()
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let shards = bounded::list::<D, _, PULL_SHARDS_MAX>(deserializer)?;
        Self::new(shards).ok_or_else(|| D::Error::custom("a scope is empty or not in rising order"))
    }
}

/// How a replica stands: the answer to a survey (rule J1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// It catches up itself, so its state is not that of the cluster yet.
    pub catching_up: bool,
    /// The fingerprint of each shard, in their order.
    #[serde(deserialize_with = "bounded::list::<_, _, SHARDS_COUNT_MAX>")]
    pub leaves: Vec<Fingerprint>,
}

const SHARDS_COUNT_MAX: usize = SHARDS_MAX as usize;
