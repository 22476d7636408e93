//! Records and datagrams as bytes (rules N1, N3).

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use stockmesh_proto::limits::{GENERATION_MAX, LABELS_MAX};
use stockmesh_proto::member::{Generation, Labels, ListedMember, MemberRecord, Software, Standing};
use stockmesh_proto::membership::{Breach, Effect, Membership};
use stockmesh_proto::{Location, ReplicaId};

use super::{member_of, record, replica, sends_to};

fn any_record() -> impl Strategy<Value = MemberRecord> {
    let labels = prop::collection::btree_map("[a-zß]{1,16}", "[ -~]{0,32}", 0..=LABELS_MAX);
    let names = ("[a-zß]{1,32}", "[ -~]{0,64}", labels);
    (any::<u64>(), 1..=GENERATION_MAX, any::<std::net::SocketAddr>(), names, any::<bool>(), any::<bool>()).prop_map(
        |(replica, generation, address, (location, software, labels), read_only, left)| MemberRecord {
            replica: ReplicaId::from_random(replica),
            generation: Generation::new(generation).unwrap(),
            // Scope and flow of an IPv6 address mean nothing elsewhere.
            address: std::net::SocketAddr::new(address.ip(), address.port()),
            location: Location::new(&location).unwrap(),
            labels: Labels::new(labels).unwrap(),
            software: Software::new(&software).unwrap(),
            read_only,
            left,
        },
    )
}

fn any_listed() -> impl Strategy<Value = ListedMember> {
    (any_record(), any::<u16>(), 0..3_u8, 0..86_400_u32).prop_map(|(record, incarnation, standing, down_for_s)| {
        let standing = match standing {
            0 => Standing::Alive,
            1 => Standing::Suspect,
            _ if record.left => Standing::Left,
            _ => Standing::Down,
        };
        let down_for_s = if standing.is_up() { 0 } else { down_for_s };
        ListedMember { record: Arc::new(record), incarnation, standing, down_for_s }
    })
}

proptest! {
    #[test]
    fn listed_members_read_back_as_written(listed in any_listed()) {
        prop_assert_eq!(ListedMember::decode(&listed.encode()).unwrap(), listed);
    }

    /// Rule N3: cut off or changed anywhere, it is refused or reads as something that is written the same again.
    #[test]
    fn damaged_members_are_refused_or_canonical(listed in any_listed(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = listed.encode();
        prop_assert!(ListedMember::decode(&bytes[..at.index(bytes.len())]).is_err());
        let place = at.index(bytes.len());
        bytes[place] = byte;
        if let Ok(read) = ListedMember::decode(&bytes) {
            prop_assert_eq!(read.encode(), bytes);
        }
    }

    /// Any bytes, and honest datagrams with any change, are an error or harmless.
    #[test]
    fn no_datagram_brings_a_member_down(seed: u64, bytes in prop::collection::vec(any::<u8>(), 0..200), place: u16) {
        let (mut one, mut two) = pair();
        let now = Duration::from_secs(1);
        let _ = one.datagram(replica(2), &bytes, now);
        let effects = two.advance(Duration::from_secs(3));
        for mut honest in sends_to(&effects, replica(1)) {
            let place = usize::from(place) % honest.len();
            honest[place] ^= (seed % 255) as u8 + 1;
            let _ = one.datagram(replica(2), &honest, now);
        }
        one.advance(Duration::from_secs(60));
    }
}

/// Two that are linked and know each other.
pub(crate) fn pair() -> (Membership, Membership) {
    let (mut one, mut two) = (member_of(record(1)), member_of(record(2)));
    let now = Duration::ZERO;
    let mut queue: Vec<(u64, Vec<Effect>)> = vec![(1, one.linked(replica(2), now)), (2, two.linked(replica(1), now))];
    while let Some((from, effects)) = queue.pop() {
        let (other, name) = if from == 1 { (&mut two, 2) } else { (&mut one, 1) };
        for bytes in sends_to(&effects, replica(name)) {
            queue.push((name, other.datagram(replica(from), &bytes, now).unwrap()));
        }
    }
    assert_eq!((one.active(), two.active()), (1, 1));
    (one, two)
}

#[test]
fn limits_of_records_are_checked_where_they_are_made() {
    assert!(Labels::new((0..=LABELS_MAX).map(|number| (number.to_string(), ""))).is_err());
    assert!(Labels::new([("k".repeat(33), "")]).is_err() && Labels::new([("k", "v".repeat(33))]).is_err());
    assert!(Labels::new([("k", "a\nb")]).is_err() && Software::new(&"s".repeat(65)).is_err());
    assert!(Generation::new(0).is_err() && Generation::new(GENERATION_MAX + 1).is_err());
    assert_eq!(Generation::new(GENERATION_MAX).unwrap().next(), None);
}

/// Rule N3: a number has one form only, else one member had many encodings.
#[test]
fn numbers_are_read_in_their_shortest_form_only() {
    let listed = ListedMember { record: Arc::new(record(1)), incarnation: 0, standing: Standing::Alive, down_for_s: 0 };
    let mut bytes = listed.encode();
    assert_eq!(bytes[8], 1, "the generation");
    bytes.splice(8..9, [0x81, 0x00]);
    assert!(ListedMember::decode(&bytes).is_err());
}

/// Even with all that a record may hold, several members fit one datagram as a rule, and one always.
#[test]
fn records_are_small() {
    let usual = ListedMember { record: Arc::new(record(1)), incarnation: 0, standing: Standing::Alive, down_for_s: 0 };
    assert!(usual.encode().len() <= 70, "{}", usual.encode().len());
    let labels = (0..LABELS_MAX).map(|number| (format!("{number}{}", "k".repeat(31)), "v".repeat(32)));
    let largest = MemberRecord {
        generation: Generation::new(GENERATION_MAX).unwrap(),
        address: "[ffff::1]:9000".parse().unwrap(),
        location: Location::new(&"l".repeat(64)).unwrap(),
        labels: Labels::new(labels).unwrap(),
        software: Software::new(&"s".repeat(64)).unwrap(),
        ..record(1)
    };
    let listed = ListedMember { record: Arc::new(largest.clone()), ..usual };
    assert!(listed.encode().len() <= 720, "{}", listed.encode().len());
    // It is told and taken.
    let (mut one, mut two) = (member_of(largest), member_of(record(2)));
    for bytes in sends_to(&one.linked(replica(2), Duration::ZERO), replica(2)) {
        two.datagram(replica(1), &bytes, Duration::ZERO).unwrap();
    }
    assert_eq!(two.active(), 1);
}

/// Rule N4: whoever claims to be another is refused, whatever the datagram is.
#[test]
fn a_datagram_in_anothers_name_is_refused() {
    let (mut one, mut two) = pair();
    let effects = [two.linked(replica(1), Duration::from_secs(2)), two.advance(Duration::from_secs(4))].concat();
    let honest = sends_to(&effects, replica(1));
    assert!(honest.len() >= 2, "an ask and a probe");
    for bytes in honest {
        let refused = one.datagram(replica(3), &bytes, Duration::from_secs(4)).unwrap_err();
        assert_eq!(refused, Breach::ForeignSource { linked: replica(3), claimed: replica(2) });
        // Nor may anybody claim to be this very member.
        let refused = two.datagram(replica(2), &bytes, Duration::from_secs(4)).unwrap_err();
        assert!(matches!(refused, Breach::ForeignSource { .. }), "{refused}");
        one.datagram(replica(2), &bytes, Duration::from_secs(4)).unwrap();
    }
    assert!(one.list().iter().all(|listed| listed.record.replica != replica(3)));
}

/// Rule N3: longer datagrams than allowed are refused whatever they hold.
#[test]
fn datagrams_are_bounded() {
    let (mut one, _) = pair();
    for bytes in [vec![], vec![1; 1101], vec![9], vec![0; 40]] {
        let refused = one.datagram(replica(2), &bytes, Duration::ZERO).unwrap_err();
        assert!(matches!(refused, Breach::Malformed(_)), "{refused}");
    }
}
