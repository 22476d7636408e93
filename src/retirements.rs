//! Replicas that were retired: who takes over for them, and how that is stored (rules Q1, Q2).

use std::borrow::Cow;
use std::collections::BTreeMap;

use stockmesh_proto::ReplicaId;
pub(crate) use stockmesh_proto::retirement::{
    HeirClaim, Retirement, Retirements, given_up, last_heir, living_rival, named_heir, note, noted,
};
use tracing::warn;

use crate::storage::Stored;

/// The beginning of the keys of retired replicas among the settings.
const KEY_PREFIX: &str = "retired.";
/// Ends the row of a replica of which everything is exchanged, so that its rights may be taken over.
const CLOSED: &str = " closed";

/// Reads what is stored of retired replicas. A row that makes no sense is left out and told: the state says the same.
pub(crate) fn read_retirements(settings: &BTreeMap<String, Vec<u8>>) -> Retirements {
    let mut retirements = Retirements::new();
    for (key, value) in settings {
        let Some(retired) = key.strip_prefix(KEY_PREFIX) else { continue };
        let text = String::from_utf8_lossy(value);
        let (heir, is_closed) = text.strip_suffix(CLOSED).map_or((&*text, false), |heir| (heir, true));
        match (retired.parse(), heir.parse()) {
            (Ok(retired), Ok(heir)) => {
                retirements.insert(retired, Retirement { heir, is_closed });
            }
            _ => warn!(key, %text, "what is stored of a retired replica cannot be read"),
        }
    }
    retirements
}

pub(crate) fn row(retired: ReplicaId, retirement: Retirement) -> Stored {
    let end = if retirement.is_closed { CLOSED } else { "" };
    let value = format!("{}{end}", retirement.heir);
    vec![(Cow::Owned(format!("{KEY_PREFIX}{retired}")), Some(value.into_bytes()))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_and_nonsense_is_left_out() {
        let (retired, heir) = (ReplicaId::from_random(1), ReplicaId::from_random(2));
        for is_closed in [false, true] {
            let retirement = Retirement { heir, is_closed };
            let stored = row(retired, retirement).into_iter();
            let mut settings: BTreeMap<String, Vec<u8>> =
                stored.map(|(key, value)| (key.into_owned(), value.unwrap())).collect();
            settings.insert("retired.x".into(), b"y".to_vec());
            settings.insert("hold.x".into(), b"y".to_vec());
            assert_eq!(read_retirements(&settings), [(retired, retirement)].into_iter().collect());
        }
    }
}
