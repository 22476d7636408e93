//! What the tests share: a replica in memory, conversations between two of them, an oracle, and generators.

pub(crate) mod conversation;
pub(crate) mod generate;
pub(crate) mod oracle;
pub(crate) mod replica;
pub(crate) mod world;

use proptest::test_runner::Config;
use stockmesh_proto::{Currency, Location, Price, ReplicaId, ShardCount, Sku};

/// The default number of cases of proptest; when the environment asks for more, every test scales by the same factor.
const CASES_DEFAULT: u32 = 256;

/// A configuration of `cases` cases, scaled by what `PROPTEST_CASES` asks for.
pub(crate) fn config(cases: u32) -> Config {
    let default = Config::default();
    let scaled = u64::from(cases) * u64::from(default.cases) / u64::from(CASES_DEFAULT);
    Config { cases: u32::try_from(scaled.max(1)).unwrap(), failure_persistence: None, ..default }
}

pub(crate) fn replica_id(bits: u64) -> ReplicaId {
    ReplicaId::from_random(bits)
}

pub(crate) fn sku(name: &str) -> Sku {
    Sku::new(name).unwrap()
}

pub(crate) fn location(name: &str) -> Location {
    Location::new(name).unwrap()
}

pub(crate) fn euros(cents: u64) -> Price {
    Price::from_parts(cents, 2, Currency::EUR).unwrap()
}

pub(crate) fn shard_count(shards: u32) -> ShardCount {
    ShardCount::new(shards).unwrap()
}
