//! Single rules, step by step.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stockmesh_proto::limits::{MEMBER_DOWN_LISTED_S, MEMBERS_MAX};
use stockmesh_proto::member::{Generation, ListedMember, MemberRecord, Standing};
use stockmesh_proto::membership::{Effect, Membership, Timing};

use super::records::pair;
use super::{member_of, record, replica, sends_to};

pub(super) fn standing(member: &Membership, number: u64) -> Option<Standing> {
    let list = member.list();
    list.iter().find(|listed| listed.record.replica == replica(number)).map(|listed| listed.standing)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Carries datagrams between members, by number, until there are none.
pub(super) fn carry(members: &mut BTreeMap<u64, Membership>, mut queue: Vec<(u64, Vec<Effect>)>, now: Duration) {
    for _ in 0..10_000 {
        let Some((from, effects)) = queue.pop() else { return };
        for (number, member) in members.iter_mut() {
            for bytes in sends_to(&effects, replica(*number)) {
                queue.push((*number, member.datagram(replica(from), &bytes, now).unwrap()));
            }
        }
    }
    panic!("they never stop talking");
}

/// Rule N2: before its generation is durable, a member sends nothing.
#[test]
fn nothing_is_sent_before_the_generation_is_durable() {
    let mut one = Membership::new(record(1), Timing::Lan, 7, Duration::ZERO);
    let effects = one.linked(replica(2), Duration::ZERO);
    let [Effect::Reserve(through)] = effects[..] else { panic!("{effects:?}") };
    assert_eq!(one.list(), [], "nor is it told by lists");
    let effects = one.reserved(through, seconds(1));
    assert_eq!(one.list().len(), 1);
    assert_eq!(sends_to(&effects, replica(2)).len(), 1, "now it tells what it is");
    // Renewals within what is reserved are told at once; the next are reserved ahead.
    let mut reserved = through;
    for _ in 0..1000 {
        let effects = one.resume(seconds(2));
        assert!(one.own().generation <= reserved);
        assert_eq!(sends_to(&effects, replica(2)).len(), 1);
        for effect in effects {
            if let Effect::Reserve(through) = effect {
                reserved = through;
                one.reserved(through, seconds(2));
            }
        }
    }
}

/// A closed connection is a hint: the member is suspected, and lives on if it says a word.
#[test]
fn a_link_that_ends_is_a_hint_and_no_death() {
    let (mut one, mut two) = pair();
    let effects = one.unlinked(replica(2), true, seconds(1));
    assert_eq!(standing(&one, 2), Some(Standing::Suspect));
    let asked = sends_to(&effects, replica(2));
    assert!(!asked.is_empty(), "it is asked at once");
    let mut members: BTreeMap<u64, Membership> = BTreeMap::new();
    for bytes in asked {
        let effects = two.datagram(replica(1), &bytes, seconds(1)).unwrap();
        for bytes in sends_to(&effects, replica(1)) {
            one.datagram(replica(2), &bytes, seconds(1)).unwrap();
        }
    }
    members.insert(1, one);
    assert_eq!(standing(&members[&1], 2), Some(Standing::Alive), "it has refuted it");

    // If it says nothing, it is down after the time of a suspicion.
    let (mut one, _) = pair();
    one.unlinked(replica(2), true, seconds(1));
    one.advance(seconds(1) + Timing::Lan.suspicion() - Duration::from_millis(1));
    assert_eq!(standing(&one, 2), Some(Standing::Suspect));
    one.advance(seconds(1) + Timing::Lan.suspicion());
    assert_eq!(standing(&one, 2), Some(Standing::Down));
    // And an end that says nothing of the member changes nothing.
    let (mut one, _) = pair();
    one.unlinked(replica(2), false, seconds(1));
    assert_eq!(standing(&one, 2), Some(Standing::Alive));
}

#[test]
fn who_leaves_shows_as_left_and_comes_back_in_a_new_generation() {
    let (mut one, mut two) = pair();
    let effects = two.leave(seconds(1));
    for bytes in sends_to(&effects, replica(1)) {
        one.datagram(replica(2), &bytes, seconds(1)).unwrap();
    }
    assert_eq!((standing(&one, 2), one.active()), (Some(Standing::Left), 0));
    assert!(two.advance(seconds(60)).is_empty(), "it takes part in nothing any more");
    one.advance(seconds(60));
    assert_eq!(standing(&one, 2), Some(Standing::Left), "that it does not answer is no news");
    let again = MemberRecord { generation: two.own().generation.next().unwrap(), ..record(2) };
    let mut members = BTreeMap::from([(1, one), (2, member_of(again))]);
    let effects = members.get_mut(&2).unwrap().linked(replica(1), seconds(61));
    carry(&mut members, vec![(2, effects)], seconds(61));
    assert_eq!(standing(&members[&1], 2), Some(Standing::Alive));
}

/// Rule N9: a new replica id at the same address takes the place of the former.
#[test]
fn a_new_replica_id_at_an_address_replaces_the_former() {
    let reborn = MemberRecord { address: record(2).address, ..record(9) };
    // Its own word, while the former is not linked: at once.
    let (mut one, _) = pair();
    one.unlinked(replica(2), false, seconds(1));
    let mut members = BTreeMap::from([(1, one), (9, member_of(reborn.clone()))]);
    let effects = members.get_mut(&9).unwrap().linked(replica(1), seconds(1));
    carry(&mut members, vec![(9, effects)], seconds(1));
    assert_eq!((standing(&members[&1], 2), standing(&members[&1], 9)), (None, Some(Standing::Alive)));
    // Hearsay, while the former lives: not before the former is down.
    let (mut one, _) = pair();
    let listed = ListedMember { record: Arc::new(reborn), incarnation: 0, standing: Standing::Alive, down_for_s: 0 };
    one.learn(replica(3), &[listed], seconds(1));
    assert_eq!((standing(&one, 2), standing(&one, 9)), (Some(Standing::Alive), Some(Standing::Alive)));
    one.unlinked(replica(2), true, seconds(1));
    let effects = one.advance(seconds(1) + Timing::Lan.suspicion());
    assert!(effects.contains(&Effect::Forgotten(replica(2))), "{effects:?}");
    assert_eq!(standing(&one, 2), None);
}

#[test]
fn what_is_down_is_listed_for_a_day_also_over_restarts_and_lists() {
    let (mut one, _) = pair();
    one.unlinked(replica(2), true, seconds(0));
    one.advance(seconds(100));
    let day = u64::from(MEMBER_DOWN_LISTED_S);
    one.advance(seconds(day / 2));
    let list = one.list();
    let mut again = member_of(MemberRecord { generation: Generation::new(5).unwrap(), ..record(1) });
    again.restore(&list, seconds(7));
    assert_eq!(standing(&again, 2), Some(Standing::Down));
    let age = again.list().iter().find(|listed| listed.record.replica == replica(2)).unwrap().down_for_s;
    assert!((day / 2 - 110..day / 2 - 90).contains(&u64::from(age)), "{age}");
    again.advance(seconds(day / 2 - 60));
    assert_eq!(standing(&again, 2), Some(Standing::Down));
    let effects = again.advance(seconds(day / 2 + 200));
    assert!(effects.contains(&Effect::Forgotten(replica(2))));
    assert_eq!(standing(&again, 2), None);
    // A list of somebody who forgets it a little later does not bring it back.
    let late: Vec<_> = list
        .into_iter()
        .map(|listed| ListedMember {
            down_for_s: if listed.standing.is_up() { 0 } else { MEMBER_DOWN_LISTED_S },
            ..listed
        })
        .collect();
    again.learn(replica(3), &late, seconds(day / 2 + 201));
    assert_eq!(standing(&again, 2), None);
}

/// Rule N8.
#[test]
fn there_is_room_for_so_many_members() {
    let mut one = member_of(record(1));
    let listed = |number: u64, standing: Standing| ListedMember {
        record: Arc::new(record(number)),
        incarnation: 0,
        standing,
        down_for_s: 0,
    };
    let most = MEMBERS_MAX as u64;
    let mut list: Vec<_> = (2..most + 1).map(|number| listed(number, Standing::Alive)).collect();
    list.push(listed(most + 1, Standing::Down));
    one.learn(replica(2), &list, seconds(1));
    assert_eq!((one.list().len(), one.turned_away()), (MEMBERS_MAX + 1, 0));
    // One that is gone makes room; nobody who lives does.
    one.learn(replica(2), &[listed(most + 2, Standing::Alive)], seconds(1));
    assert_eq!((standing(&one, most + 1), standing(&one, most + 2)), (None, Some(Standing::Alive)));
    one.learn(replica(2), &[listed(most + 3, Standing::Alive)], seconds(1));
    assert_eq!((standing(&one, most + 3), one.turned_away()), (None, 1));
}

/// Rule N7: equal knowledge has equal digests, and what one lacks is what the other sends.
#[test]
fn lists_make_knowledge_equal() {
    let mut one = member_of(record(1));
    let mut two = member_of(record(2));
    let listed = |number: u64| ListedMember {
        record: Arc::new(record(number)),
        incarnation: 0,
        standing: Standing::Alive,
        down_for_s: 0,
    };
    one.learn(replica(7), &(10..50).map(listed).collect::<Vec<_>>(), seconds(1));
    two.learn(replica(7), &(40..60).map(listed).collect::<Vec<_>>(), seconds(1));
    assert_ne!(one.digest(), two.digest());
    let list = two.list();
    let back = one.lacking(&list);
    assert_eq!(back.len(), 31, "itself, and what only it knows");
    one.learn(replica(2), &list, seconds(1));
    two.learn(replica(1), &back, seconds(1));
    assert_eq!(one.digest(), two.digest());
    assert!(one.lacking(&two.list()).is_empty() && two.lacking(&one.list()).is_empty());
}

/// Rule N7: who leaves is known to have left by its list alone, since its datagrams may be lost; and then both know the same.
#[test]
fn a_list_tells_that_its_sender_left() {
    let mut one = member_of(record(1));
    let mut two = member_of(record(2));
    two.linked(replica(1), seconds(1));
    two.learn(replica(1), &one.list(), seconds(1));
    one.learn(replica(2), &two.list(), seconds(1));
    assert_eq!((standing(&two, 1), one.digest()), (Some(Standing::Alive), two.digest()));
    one.leave(seconds(2));
    assert_ne!(one.digest(), two.digest());
    two.learn(replica(1), &one.lacking(&two.list()), seconds(2));
    assert_eq!((standing(&two, 1), one.digest()), (Some(Standing::Left), two.digest()));
    // Only its own word says so: others may be wrong about who lives.
    let mut three = member_of(record(3));
    three.linked(replica(1), seconds(3));
    let mut down = one.list().into_iter().find(|listed| listed.record.replica == replica(1)).unwrap();
    down.record = Arc::new(record(1));
    down.standing = Standing::Down;
    three.learn(replica(1), &[down], seconds(3));
    assert_eq!(standing(&three, 1), None);
}
