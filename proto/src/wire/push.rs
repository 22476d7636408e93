//! Pushes: one list of names for all shards, since a batch often touches many shards with a product each.

use serde::de::Error as _;
use serde::ser::{Error as _, SerializeTuple};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bounded;
use super::delta::{Names, NamesIn, ProductIn, ProductsOut};
use crate::delta::Products;
use crate::id::{Location, ReplicaId, ShardIndex};
use crate::limits::{CHUNK_PRODUCTS_MAX, PUSH_SHARDS_MAX, PUSH_TOLD_MAX};

/// The writes of one replica to one shard, as they were committed (rule P1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushShard {
    /// The shard.
    pub shard: ShardIndex,
    /// The first sequence number that it carries.
    pub from: u64,
    /// The last.
    pub to: u64,
    /// The slots that these writes left behind.
    pub products: Products,
}

/// A committed batch of one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Who wrote it.
    pub origin: ReplicaId,
    /// Replicas that were told, so that a forwarder need not tell them again.
    pub told: Vec<ReplicaId>,
    /// The shards that it touched.
    pub shards: Vec<PushShard>,
}

impl Serialize for Push {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.shards.iter().any(|part| part.products.len() > CHUNK_PRODUCTS_MAX) {
            return Err(S::Error::custom("too many products for one push"));
        }
        let names = Names::of(self.shards.iter().flat_map(|part| &part.products));
        let mut tuple = serializer.serialize_tuple(5)?;
        tuple.serialize_element(&self.origin)?;
        tuple.serialize_element(&self.told)?;
        tuple.serialize_element(names.locations())?;
        tuple.serialize_element(names.replicas())?;
        tuple.serialize_element(&ShardsOut(&names, &self.shards))?;
        tuple.end()
    }
}

struct ShardsOut<'a>(&'a Names, &'a [PushShard]);

impl Serialize for ShardsOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(names, shards) = self;
        serializer
            .collect_seq(shards.iter().map(|part| (part.shard, part.from, part.to, ProductsOut(names, &part.products))))
    }
}

#[derive(Deserialize)]
struct PushIn(
    ReplicaId,
    #[serde(deserialize_with = "bounded::list::<_, _, PUSH_TOLD_MAX>")] Vec<ReplicaId>,
    #[serde(deserialize_with = "bounded::list::<_, _, CHUNK_PRODUCTS_MAX>")] Vec<Location>,
    #[serde(deserialize_with = "bounded::list::<_, _, CHUNK_PRODUCTS_MAX>")] Vec<ReplicaId>,
    #[serde(deserialize_with = "bounded::list::<_, _, PUSH_SHARDS_MAX>")] Vec<ShardIn>,
);

#[derive(Deserialize)]
struct ShardIn(
    ShardIndex,
    u64,
    u64,
    #[serde(deserialize_with = "bounded::list::<_, _, CHUNK_PRODUCTS_MAX>")] Vec<ProductIn>,
);

impl<'de> Deserialize<'de> for Push {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let PushIn(origin, told, locations, replicas, read) = PushIn::deserialize(deserializer)?;
        let names = NamesIn { locations, replicas };
        let shards = read.into_iter().map(|ShardIn(shard, from, to, products)| {
            Ok(PushShard { shard, from, to, products: names.resolve_all(products)? })
        });
        let shards = shards.collect::<Result<_, &str>>().map_err(D::Error::custom)?;
        Ok(Self { origin, told, shards })
    }
}
