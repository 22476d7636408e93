//! What a data directory says of itself, in the engine's side table.

use std::borrow::Cow;
use std::collections::BTreeMap;

use stockmesh_proto::{ClusterId, Location, ReplicaId, ShardCount};

use crate::error::OpenError;
use crate::retirements::{Retirements, read_retirements, row};
pub(crate) use crate::storage::Stored;

/// Version of the layout of journal, snapshots and settings.
const FORMAT: &str = "1";

const KEY_FORMAT: &str = "format";
const KEY_REPLICA: &str = "replica";
const KEY_FORMER: &str = "former-replicas";
const KEY_CLUSTER: &str = "cluster";
const KEY_SHARDS: &str = "shards";
const KEY_LOCATION: &str = "location";
const KEY_CATCHING_UP: &str = "catching-up";

/// Who a directory is, and what it was made for.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) replica: ReplicaId,
    pub(crate) former: Vec<ReplicaId>,
    pub(crate) cluster: ClusterId,
    pub(crate) shards: ShardCount,
    pub(crate) location: Location,
    pub(crate) retired: Retirements,
}

/// The entries that a new incarnation changes.
pub(crate) fn identity(replica: ReplicaId, former: &[ReplicaId]) -> Stored {
    let former: Vec<String> = former.iter().map(ReplicaId::to_string).collect();
    vec![entry(KEY_REPLICA, replica.to_string()), entry(KEY_FORMER, former.join(" "))]
}

/// The entry that says that this node lacks what its peers hold; gone once it has caught up.
pub(crate) fn catching_up(is_so: bool) -> Stored {
    vec![(Cow::Borrowed(KEY_CATCHING_UP), is_so.then(|| b"yes".to_vec()))]
}

/// Whether that entry is there.
pub(crate) fn is_catching_up(stored: &BTreeMap<String, Vec<u8>>) -> bool {
    stored.contains_key(KEY_CATCHING_UP)
}

fn entry(key: &'static str, value: String) -> (Cow<'static, str>, Option<Vec<u8>>) {
    (Cow::Borrowed(key), Some(value.into_bytes()))
}

impl Settings {
    /// All entries.
    pub(crate) fn to_stored(&self) -> Stored {
        let mut stored = identity(self.replica, &self.former);
        stored.push(entry(KEY_FORMAT, FORMAT.to_owned()));
        stored.push(entry(KEY_CLUSTER, self.cluster.to_string()));
        stored.push(entry(KEY_SHARDS, self.shards.get().to_string()));
        stored.push(entry(KEY_LOCATION, self.location.to_string()));
        stored.extend(self.retired.iter().flat_map(|(retired, retirement)| row(*retired, *retirement)));
        stored
    }

    /// Reads the entries; `None` if there are none at all, as in a new directory. The error names what cannot be read.
    pub(crate) fn from_stored(stored: &BTreeMap<String, Vec<u8>>) -> Result<Option<Self>, String> {
        if stored.is_empty() {
            return Ok(None);
        }
        let format = text(stored, KEY_FORMAT)?;
        if format != FORMAT {
            return Err(format!("the directory has format {format:?}, this version reads format {FORMAT:?}"));
        }
        let shards: u32 = parse(stored, KEY_SHARDS)?;
        let former = text(stored, KEY_FORMER)?;
        let former: Result<Vec<ReplicaId>, _> = former.split_whitespace().map(str::parse).collect();
        Ok(Some(Self {
            replica: parse(stored, KEY_REPLICA)?,
            former: former.map_err(|error| error.to_string())?,
            cluster: parse(stored, KEY_CLUSTER)?,
            shards: ShardCount::new(shards).map_err(|error| error.to_string())?,
            location: parse(stored, KEY_LOCATION)?,
            retired: read_retirements(stored),
        }))
    }

    /// Whether the directory may be opened with what the builder says.
    pub(crate) fn check(&self, cluster: &ClusterId, shards: ShardCount) -> Result<(), OpenError> {
        let other = |field, stored: String, wanted: String| Err(OpenError::OtherSettings { field, stored, wanted });
        if self.cluster != *cluster {
            return other("cluster id", self.cluster.to_string(), cluster.to_string());
        }
        if self.shards != shards {
            return other("shard count", self.shards.get().to_string(), shards.get().to_string());
        }
        Ok(())
    }
}

fn text<'a>(stored: &'a BTreeMap<String, Vec<u8>>, key: &str) -> Result<&'a str, String> {
    let bytes = stored.get(key).ok_or_else(|| format!("the setting {key:?} is missing"))?;
    std::str::from_utf8(bytes).map_err(|_| format!("the setting {key:?} is no text"))
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(
    stored: &BTreeMap<String, Vec<u8>>,
    key: &str,
) -> Result<T, String> {
    text(stored, key)?.parse().map_err(|error| format!("the setting {key:?} cannot be read: {error}"))
}
