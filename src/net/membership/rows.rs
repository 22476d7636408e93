//! What of membership is on disk: the generations that are used, and the members known last (rule N11).

use std::borrow::Cow;
use std::collections::BTreeMap;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::member::{Generation, ListedMember};

use crate::limits::MEMBER_ROWS_MAX;
use crate::settings::Stored;

const KEY_GENERATION: &str = "membership.generation";
const KEY_MEMBER_PREFIX: &str = "member.";

/// The generation to begin with: above all that may have been used.
pub(super) fn first_generation(rows: &BTreeMap<String, Vec<u8>>) -> Generation {
    let stored = rows.get(KEY_GENERATION).and_then(|value| <[u8; 8]>::try_from(value.as_slice()).ok());
    let stored = stored.and_then(|bytes| Generation::new(u64::from_be_bytes(bytes)).ok());
    stored.map_or(Generation::FIRST, |stored| stored.next().unwrap_or(stored))
}

/// The row that says that generations up to this one are used.
pub(super) fn generation_row(through: Generation) -> Stored {
    vec![(Cow::Borrowed(KEY_GENERATION), Some(through.get().to_be_bytes().to_vec()))]
}

/// A member as it is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptMember {
    /// It may be that of another life by now; its times are 0.
    pub(super) listed: ListedMember,
    /// When it went down or left, in milliseconds since 1970; 0 for others.
    pub(super) down_since_ms: u64,
}

impl KeptMember {
    pub(super) fn new(listed: &ListedMember, now_ms: u64) -> Self {
        let down_since_ms = match listed.standing.is_up() {
            true => 0,
            // Rounded, as it is told in whole seconds: else each look would differ from the last.
            false => now_ms.saturating_sub(u64::from(listed.down_for_s) * 1000).max(1),
        };
        let listed = ListedMember { incarnation: 0, down_for_s: 0, ..listed.clone() };
        Self { listed, down_since_ms }
    }

    fn encode(&self) -> Vec<u8> {
        [self.down_since_ms.to_be_bytes().to_vec(), self.listed.encode()].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (time, listed) = bytes.split_first_chunk::<8>()?;
        Some(Self { down_since_ms: u64::from_be_bytes(*time), listed: ListedMember::decode(listed).ok()? })
    }

    /// The same with the time that has passed since it went down.
    pub(super) fn aged(&self, now_ms: u64) -> ListedMember {
        let passed_s = u32::try_from(now_ms.saturating_sub(self.down_since_ms) / 1000).unwrap_or(u32::MAX);
        let most = stockmesh_proto::limits::MEMBER_DOWN_LISTED_S;
        let down_for_s = if self.listed.standing.is_up() { 0 } else { passed_s.min(most) };
        ListedMember { down_for_s, ..self.listed.clone() }
    }

    /// Whether nothing but the time differs, and that by less than two minutes.
    fn is_like(&self, other: &Self) -> bool {
        self.listed == other.listed && self.down_since_ms.abs_diff(other.down_since_ms) < 120_000
    }
}

/// The rows of members as they are on disk.
#[derive(Debug, Default)]
pub(super) struct MemberRows {
    written: BTreeMap<ReplicaId, KeptMember>,
    /// Rows that cannot be read, to be deleted.
    unreadable: Vec<String>,
}

impl MemberRows {
    /// What was known before the store was closed.
    pub(super) fn load(rows: &BTreeMap<String, Vec<u8>>) -> Self {
        let mut loaded = Self::default();
        for (key, value) in rows.iter().filter(|(key, _)| key.starts_with(KEY_MEMBER_PREFIX)) {
            match KeptMember::decode(value) {
                Some(kept) if *key == key_of(kept.listed.record.replica) => {
                    loaded.written.insert(kept.listed.record.replica, kept);
                }
                _ => loaded.unreadable.push(key.clone()),
            }
        }
        loaded
    }

    pub(super) fn kept(&self) -> impl Iterator<Item = &KeptMember> {
        self.written.values()
    }

    /// What must be written for these members to be on disk: all that are gone, and some of those that live.
    pub(super) fn changes(&mut self, members: impl Iterator<Item = KeptMember>) -> Stored {
        let mut up_count = 0;
        let mut wanted = BTreeMap::new();
        for kept in members {
            let is_up = kept.listed.standing.is_up();
            up_count += usize::from(is_up);
            if !is_up || up_count <= MEMBER_ROWS_MAX {
                wanted.insert(kept.listed.record.replica, kept);
            }
        }
        let deleted = std::mem::take(&mut self.unreadable);
        let mut stored: Stored = deleted.into_iter().map(|key| (Cow::Owned(key), None)).collect();
        let gone = self.written.keys().filter(|replica| !wanted.contains_key(replica));
        stored.extend(gone.map(|replica| (Cow::Owned(key_of(*replica)), None)));
        self.written.retain(|replica, _| wanted.contains_key(replica));
        for (replica, kept) in wanted {
            if self.written.get(&replica).is_none_or(|written| !written.is_like(&kept)) {
                stored.push((Cow::Owned(key_of(replica)), Some(kept.encode())));
                self.written.insert(replica, kept);
            }
        }
        stored
    }
}

fn key_of(replica: ReplicaId) -> String {
    format!("{KEY_MEMBER_PREFIX}{replica}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use stockmesh_proto::Location;
    use stockmesh_proto::member::{Labels, MemberRecord, Software, Standing};

    use super::*;

    fn kept(number: u64, standing: Standing, now_ms: u64) -> KeptMember {
        let record = MemberRecord {
            replica: ReplicaId::from_random(number),
            generation: Generation::FIRST,
            address: "192.0.2.1:7400".parse().unwrap(),
            location: Location::new("berlin").unwrap(),
            labels: Labels::new([("rack", "7")]).unwrap(),
            software: Software::new("test").unwrap(),
            read_only: false,
            left: standing == Standing::Left,
        };
        let down_for_s = if standing.is_up() { 0 } else { 60 };
        KeptMember::new(&ListedMember { record: Arc::new(record), incarnation: 3, standing, down_for_s }, now_ms)
    }

    fn apply(rows: &mut BTreeMap<String, Vec<u8>>, stored: Stored) {
        for (key, value) in stored {
            match value {
                Some(value) => _ = rows.insert(key.into_owned(), value),
                None => _ = rows.remove(&*key),
            }
        }
    }

    #[test]
    fn members_are_found_again_with_their_age_and_only_changes_are_written() {
        let (mut disk, mut rows) = (BTreeMap::new(), MemberRows::default());
        let members = || {
            [
                kept(1, Standing::Alive, 1_000_000),
                kept(2, Standing::Down, 1_000_000),
                kept(3, Standing::Left, 1_000_000),
            ]
        };
        let stored = rows.changes(members().into_iter());
        assert_eq!(stored.len(), 3);
        apply(&mut disk, stored);
        assert!(rows.changes(members().into_iter()).is_empty(), "nothing changed");
        disk.insert("member.broken".into(), vec![1]);
        let mut rows = MemberRows::load(&disk);
        assert_eq!(rows.kept().cloned().collect::<Vec<_>>(), members());
        let ages: Vec<_> = rows.kept().map(|kept| kept.aged(1_030_000).down_for_s).collect();
        assert_eq!(ages, [0, 90, 90]);
        let stored = rows.changes(members().into_iter().take(2));
        let keys: Vec<_> = stored.iter().map(|(key, value)| (key.to_string(), value.is_some())).collect();
        assert_eq!(keys, [("member.broken".into(), false), (key_of(ReplicaId::from_random(3)), false)]);
    }

    #[test]
    fn the_number_of_rows_of_those_who_live_is_bounded() {
        let most = MEMBER_ROWS_MAX as u64;
        let up = (1..=most + 10).map(|number| kept(number, Standing::Alive, 0));
        let down = (most + 11..=most + 20).map(|number| kept(number, Standing::Down, 0));
        assert_eq!(MemberRows::default().changes(up.chain(down)).len(), MEMBER_ROWS_MAX + 10);
    }

    #[test]
    fn each_start_has_a_generation_above_all_before() {
        let mut disk = BTreeMap::new();
        assert_eq!(first_generation(&disk), Generation::FIRST);
        let used = Generation::new(65).unwrap();
        apply(&mut disk, generation_row(used));
        assert_eq!(first_generation(&disk), used.next().unwrap());
    }
}
