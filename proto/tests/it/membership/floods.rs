//! Members that say too much: of others, of their receiver, of themselves, and through it (rules N1, N4, N5, N8, N12).

use std::sync::Arc;
use std::time::Duration;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::limits::{GENERATION_STEP_MAX, MEMBERS_MAX};
use stockmesh_proto::member::{Generation, ListedMember, MemberRecord, Standing};
use stockmesh_proto::membership::{Effect, Membership, Timing};

use super::records::pair;
use super::steps::standing;
use super::{member_of, record, replica, sends_to};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn listed(record: MemberRecord, incarnation: u16, standing: Standing) -> ListedMember {
    ListedMember { record: Arc::new(record), incarnation, standing, down_for_s: 0 }
}

fn made_up(numbers: std::ops::RangeInclusive<u64>) -> Vec<ListedMember> {
    numbers.map(|number| listed(record(number), 0, Standing::Alive)).collect()
}

/// One that knows as many members as it may, of whom only this one is linked and has given its word.
fn full_but_for(numbers: std::ops::RangeInclusive<u64>) -> Membership {
    let (mut one, _) = pair();
    one.learn(replica(2), &made_up(numbers), seconds(1));
    one
}

/// Rule N8: one list counts like many, so that a node's own list stays one that peers take.
#[test]
fn one_list_does_not_overfill_the_table() {
    let most = MEMBERS_MAX as u64;
    let one = full_but_for(100..=100 + most);
    assert_eq!((one.list().len(), one.active(), one.turned_away()), (MEMBERS_MAX + 1, MEMBERS_MAX, 2));
    // Nor does what is told of members that are known, who would have made room; nor what was on disk.
    let mut one = member_of(record(1));
    let gone = |number| listed(record(number), 0, Standing::Down);
    one.learn(replica(2), &(100..100 + most).map(gone).collect::<Vec<_>>(), seconds(1));
    assert_eq!(one.list().len(), MEMBERS_MAX + 1);
    let next = Generation::FIRST.next().unwrap();
    let mut list: Vec<_> = (100 + most / 2..100 + most)
        .map(|number| listed(MemberRecord { generation: next, ..record(number) }, 0, Standing::Alive))
        .collect();
    list.extend(made_up(20_000..=29_999));
    one.learn(replica(2), &list, seconds(1));
    assert_eq!(one.active(), MEMBERS_MAX);
    let mut one = member_of(record(1));
    one.restore(&(100..=100 + most).map(gone).collect::<Vec<_>>(), seconds(1));
    assert_eq!(one.list().len(), MEMBERS_MAX + 1);
}

/// The same for datagrams.
#[test]
fn one_datagram_does_not_overfill_the_table() {
    let most = MEMBERS_MAX as u64;
    let mut one = full_but_for(100..=100 + most - 3);
    assert_eq!(one.active(), MEMBERS_MAX - 1);
    let mut bytes = [vec![0], name(replica(2)), vec![0], name(replica(1)), vec![8, 0, 5]].concat();
    for told in made_up(30_000..=30_004) {
        let update = told.encode();
        // An update is a listed member without its time.
        bytes.extend_from_slice(&update[..update.len() - 1]);
    }
    one.datagram(replica(2), &bytes, seconds(1)).unwrap();
    assert_eq!(one.active(), MEMBERS_MAX);
    assert_eq!(one.turned_away(), 4);
}

fn word_of(record: MemberRecord, receiver: &mut Membership, now: Duration) -> Vec<Effect> {
    let from = record.replica;
    let mut other = member_of(record);
    let mut effects = receiver.linked(from, now);
    for bytes in sends_to(&other.linked(receiver.own().replica, now), receiver.own().replica) {
        effects.append(&mut receiver.datagram(from, &bytes, now).unwrap());
    }
    effects
}

/// Rule N8: made-up members do not keep out one that is linked, and do not displace one that is.
#[test]
fn a_linked_member_has_room() {
    let most = MEMBERS_MAX as u64;
    let mut one = full_but_for(100..=100 + most);
    word_of(record(50), &mut one, seconds(2));
    assert_eq!(standing(&one, 50), Some(Standing::Alive));
    assert!(standing(&one, 2).is_some_and(Standing::is_up), "it keeps its place");
    assert_eq!(one.list().len(), MEMBERS_MAX + 1);
    // Even if its own list brings more than there is room for before its own record.
    let mut one = member_of(record(1));
    let mut list = made_up(100..=100 + most);
    list.push(listed(record(50), 0, Standing::Alive));
    one.learn(replica(50), &list, seconds(1));
    assert_eq!((standing(&one, 50), one.list().len()), (Some(Standing::Alive), MEMBERS_MAX + 1));
}

/// Rule N1: another record under the same generation is no news.
#[test]
fn a_member_that_changes_its_record_under_one_generation_is_not_heard() {
    let mut one = member_of(record(1));
    word_of(record(2), &mut one, seconds(1));
    let mut changes = 0;
    for round in 1..100 {
        let effects = word_of(MemberRecord { address: record(100 + round).address, ..record(2) }, &mut one, seconds(2));
        let is_change = |effect: &&Effect| matches!(effect, Effect::Changed { .. } | Effect::Forgotten(_));
        changes += effects.iter().filter(is_change).count();
    }
    assert_eq!(changes, 0);
    // One whose directory was restored and that came to a generation again goes on in a later one.
    let mut restored = member_of(MemberRecord { address: record(9).address, ..record(2) });
    let mut to_one = sends_to(&restored.linked(replica(1), seconds(5)), replica(1));
    one.linked(replica(2), seconds(5));
    for _ in 0..4 {
        let to_two: Vec<_> = std::mem::take(&mut to_one)
            .into_iter()
            .flat_map(|bytes| sends_to(&one.datagram(replica(2), &bytes, seconds(7)).unwrap(), replica(2)))
            .collect();
        to_one = to_two
            .into_iter()
            .flat_map(|bytes| sends_to(&restored.datagram(replica(1), &bytes, seconds(7)).unwrap(), replica(1)))
            .collect();
    }
    let known = one.list().into_iter().find(|listed| listed.record.replica == replica(2)).unwrap();
    assert_eq!(known.record.address, record(9).address);
}

/// Rule N5: a suspicion that no incarnation can refute costs a generation, so not at any rate.
#[test]
fn suspicions_of_the_last_incarnation_do_not_exhaust_generations() {
    for (first, then) in [(u16::MAX, u16::MAX), (u16::MAX - 1, 0)] {
        let (mut one, _) = pair();
        for millisecond in 0..1000 {
            let own = (**one.own()).clone();
            let suspicion = |incarnation| listed(own.clone(), incarnation, Standing::Suspect);
            let now = seconds(1) + Duration::from_millis(millisecond);
            one.learn(replica(2), &[suspicion(first)], now);
            one.learn(replica(2), &[suspicion(then)], now);
        }
        assert!(one.own().generation.get() <= 2, "{}", one.own().generation);
    }
    // And one list is answered once.
    let (mut one, _) = pair();
    let own = (**one.own()).clone();
    let list: Vec<_> = (0..1000).map(|incarnation| listed(own.clone(), incarnation, Standing::Suspect)).collect();
    let (effects, _) = one.learn(replica(2), &list, seconds(1));
    let answers = sends_to(&effects, replica(2)).len();
    assert!(answers <= 5, "{answers}");
}

/// Rule N4: a liar's steps do not add up faster than the member can follow.
#[test]
fn steps_of_generations_do_not_add_up() {
    let mut one = member_of(record(1));
    let generation_of_two = |one: &Membership| {
        one.list().iter().find(|listed| listed.record.replica == replica(2)).unwrap().record.generation.get()
    };
    let told = |generation| {
        listed(MemberRecord { generation: Generation::new(generation).unwrap(), ..record(2) }, 0, Standing::Alive)
    };
    let ladder: Vec<_> = (0..100).map(|step| told(1 + step * GENERATION_STEP_MAX)).collect();
    one.learn(replica(3), &ladder[..1], seconds(1));
    for _ in 0..100 {
        one.learn(replica(3), &ladder, seconds(1));
    }
    assert_eq!(generation_of_two(&one), 1 + GENERATION_STEP_MAX);
    // The member itself follows, and is believed in the end even where the lie went as far as it could.
    let mut two = member_of(record(2));
    two.learn(replica(3), &ladder[1..2], seconds(1));
    let refuted = two.own().generation.get();
    assert_eq!(refuted, 2 + GENERATION_STEP_MAX);
    one.learn(replica(3), &[told(refuted)], seconds(1) + Timing::Lan.noticed_within());
    assert_eq!(generation_of_two(&one), refuted);
}

/// Rule N5: whoever makes a member renew itself again and again does not keep the dead alive.
#[test]
fn a_renewal_gives_suspects_no_more_time() {
    let (mut one, _) = pair();
    word_of(record(3), &mut one, seconds(0));
    one.unlinked(replica(3), true, seconds(1));
    assert_eq!(standing(&one, 3), Some(Standing::Suspect));
    for second in 1..6 {
        let own = (**one.own()).clone();
        one.learn(replica(2), &[listed(own, 0, Standing::Down)], seconds(second));
    }
    assert!(one.own().generation > Generation::FIRST);
    assert_eq!(standing(&one, 3), Some(Standing::Suspect));
    one.advance(seconds(1) + Timing::Lan.suspicion());
    assert_eq!(standing(&one, 3), Some(Standing::Down));
}

/// Rule N1: a member that becomes one that only reads says so in a new generation.
#[test]
fn a_change_of_role_is_told() {
    let (mut one, mut two) = pair();
    let effects = two.set_read_only(true, seconds(1));
    assert!(effects.contains(&Effect::Renewed(two.own().generation)));
    for bytes in sends_to(&effects, replica(1)) {
        one.datagram(replica(2), &bytes, seconds(1)).unwrap();
    }
    let known = one.list().into_iter().find(|listed| listed.record.replica == replica(2)).unwrap();
    assert!(known.record.read_only);
    assert!(!two.set_read_only(true, seconds(2)).iter().any(|effect| matches!(effect, Effect::Renewed(_))));
}

fn name(replica: ReplicaId) -> Vec<u8> {
    [replica.bits().to_be_bytes().as_slice(), &[1]].concat()
}

/// Rule N12: a peer does not have links made at any rate.
#[test]
fn probes_are_passed_on_to_members_without_a_link_now_and_then() {
    for (kind, at_most) in [(2, 21), (4, 21)] {
        let (mut one, _) = pair();
        one.learn(replica(2), &made_up(100..=199), seconds(1));
        let mut passed_on = 0;
        for millisecond in 0..10_000 {
            let target = replica(100 + millisecond % 100);
            let message = [vec![kind, 7], name(target)].concat();
            let bytes = [vec![0], name(replica(2)), vec![0], name(replica(1)), message].concat();
            let effects = one.datagram(replica(2), &bytes, seconds(1) + Duration::from_millis(millisecond)).unwrap();
            let is_passed_on = |bytes: &Vec<u8>| bytes.windows(3).any(|part| part == [1, kind + 1, 7]);
            passed_on += sends_to(&effects, target).iter().filter(|bytes| is_passed_on(bytes)).count();
        }
        assert!((10..=at_most).contains(&passed_on), "{kind}: {passed_on}");
    }
}

/// Rule N12: gossip without a link goes to linked members in turn, and they take it.
#[test]
fn gossip_without_a_link_goes_to_linked_members() {
    let (mut one, mut two) = pair();
    word_of(record(3), &mut one, seconds(0));
    one.learn(replica(2), &made_up(100..=100), seconds(1));
    let mut receivers = Vec::new();
    for millisecond in 0..3000 {
        for effect in one.advance(seconds(1) + Duration::from_millis(millisecond)) {
            let Effect::Send { to, bytes } = effect else { continue };
            if to != replica(100) || !Membership::is_gossip(&bytes) {
                continue;
            }
            let (receiver, bytes) = one.stand_in_for(&bytes).unwrap();
            receivers.push(receiver);
            if receiver == replica(2) {
                two.datagram(replica(1), &bytes, seconds(1)).unwrap();
            }
        }
    }
    assert!(receivers.contains(&replica(2)) && receivers.contains(&replica(3)), "{receivers:?}");
    assert_eq!(standing(&two, 100), Some(Standing::Alive));
}

/// Rule N7: a digest is kept only for as long as it is right.
#[test]
fn the_digest_follows_each_change() {
    let (mut one, mut two) = pair();
    let mut seen = vec![one.digest()];
    assert_eq!(one.digest(), two.digest());
    one.learn(replica(2), &made_up(100..=100), seconds(1));
    seen.push(one.digest());
    one.unlinked(replica(2), true, seconds(1));
    one.advance(seconds(1) + Timing::Lan.suspicion());
    seen.push(one.digest());
    one.resume(seconds(7));
    seen.push(one.digest());
    one.advance(seconds(200_000));
    seen.push(one.digest());
    let distinct: std::collections::BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "{seen:?}");
}
