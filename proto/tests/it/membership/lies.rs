//! Members that lie about others (rules N4, N5): believed for a moment at the worst.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use stockmesh_proto::limits::GENERATION_STEP_MAX;
use stockmesh_proto::member::{Generation, ListedMember, MemberRecord, Standing};
use stockmesh_proto::membership::{Membership, Timing};

use super::steps::{carry, standing};
use super::world::{Network, World};
use super::{member_of, record, replica};

fn lie(record: MemberRecord, standing: Standing) -> ListedMember {
    ListedMember { record: Arc::new(record), incarnation: 0, standing, down_for_s: 0 }
}

/// A victim (1), one who believes (2), and one who does not hear the lie; all linked with each other.
fn three() -> BTreeMap<u64, Membership> {
    let mut members: BTreeMap<u64, Membership> = (1..=3).map(|number| (number, member_of(record(number)))).collect();
    for (one, two) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        let effects = members.get_mut(&one).unwrap().linked(replica(two), Duration::ZERO);
        carry(&mut members, vec![(one, effects)], Duration::ZERO);
    }
    assert!(members.values().all(|member| member.active() == 2));
    members
}

/// Rule N5: who is declared dead and linked hears of it at once, and is back in a new generation.
#[test]
fn a_linked_member_refutes_its_death_at_once() {
    for (round, state) in [Standing::Down, Standing::Suspect].into_iter().enumerate() {
        let mut members = three();
        let at = Duration::from_secs(10 + round as u64);
        // Whatever was due is done, so that nothing but the lie moves anybody.
        members.get_mut(&2).unwrap().advance(at);
        let (effects, _) = members.get_mut(&2).unwrap().learn(replica(3), &[lie(record(1), state)], at);
        assert_eq!(standing(&members[&2], 1), Some(state));
        carry(&mut members, vec![(2, effects)], at);
        assert_eq!(standing(&members[&2], 1), Some(Standing::Alive), "{state:?}");
        assert_eq!(members[&1].own().generation > Generation::FIRST, state == Standing::Down);
    }
}

/// Rule N4: others' word does not displace a member that is linked, whatever generation and address it names.
#[test]
fn a_linked_member_is_not_displaced_by_hearsay() {
    for step in [1, 100, GENERATION_STEP_MAX, GENERATION_STEP_MAX + 1, 1 << 47] {
        let mut members = three();
        let generation = Generation::new(1 + step).unwrap();
        let false_record = MemberRecord { generation, address: record(99).address, ..record(1) };
        let at = Duration::from_secs(10);
        let (effects, _) = members.get_mut(&2).unwrap().learn(replica(3), &[lie(false_record, Standing::Alive)], at);
        carry(&mut members, vec![(2, effects)], at);
        let list = members[&2].list();
        let known = list.iter().find(|listed| listed.record.replica == replica(1)).unwrap();
        assert_eq!((known.record.address, known.standing), (record(1).address, Standing::Alive), "{step}");
        // And the victim goes beyond a generation that was made up, unless that is out of all proportion.
        let own = members[&1].own().generation;
        assert_eq!(own > generation, step <= GENERATION_STEP_MAX, "{step}: {own}");
    }
}

/// Rule N4: of a member without a link others are believed, but not any generation.
#[test]
fn hearsay_moves_generations_by_steps() {
    let mut one = member_of(record(1));
    let at = Duration::from_secs(1);
    let generation_of_two = |one: &Membership| {
        one.list().iter().find(|listed| listed.record.replica == replica(2)).unwrap().record.generation.get()
    };
    let told = |generation| {
        lie(MemberRecord { generation: Generation::new(generation).unwrap(), ..record(2) }, Standing::Alive)
    };
    for (generation, expected) in [
        (5, 5),
        (6 + GENERATION_STEP_MAX, 5),
        (5 + GENERATION_STEP_MAX, 5 + GENERATION_STEP_MAX),
        (9, 5 + GENERATION_STEP_MAX),
    ] {
        one.learn(replica(3), &[told(generation)], at);
        assert_eq!(generation_of_two(&one), expected, "{generation}");
    }
    assert_eq!(one.turned_away(), 1);
}

/// Rule N4: whoever believed a lie while there was no link believes the member itself once there is one.
#[test]
fn a_members_own_word_replaces_what_others_said() {
    let mut members = BTreeMap::from([(1, member_of(record(1))), (2, member_of(record(2)))]);
    for generation in [1, 2, 1 << 47] {
        let generation = Generation::new(generation).unwrap();
        let false_record =
            MemberRecord { generation, address: record(99).address, left: generation.get() == 2, ..record(1) };
        members.insert(2, member_of(record(2)));
        members.get_mut(&2).unwrap().learn(replica(3), &[lie(false_record, Standing::Alive)], Duration::from_secs(1));
        let at = Duration::from_secs(100);
        let effects = members.get_mut(&2).unwrap().linked(replica(1), at);
        carry(&mut members, vec![(2, effects)], at);
        let list = members[&2].list();
        let known = list.iter().find(|listed| listed.record.replica == replica(1)).unwrap();
        assert_eq!((known.record.address, known.standing), (record(1).address, Standing::Alive), "{generation}");
    }
}

/// A liar that goes on and on cannot keep its victim from its work: it takes a new generation only now and then.
#[test]
fn lies_about_a_member_do_not_exhaust_its_generations() {
    let mut members = three();
    let begun = members[&1].own().generation;
    for millisecond in 0..10_000 {
        let at = Duration::from_secs(10) + Duration::from_millis(millisecond);
        let victim = members.get_mut(&1).unwrap();
        let own = (**victim.own()).clone();
        let next = MemberRecord { generation: own.generation.next().unwrap(), ..own.clone() };
        victim.learn(replica(3), &[lie(own, Standing::Down)], at);
        victim.learn(replica(3), &[lie(next, Standing::Alive)], at);
    }
    let renewals = members[&1].own().generation.get() - begun.get();
    assert!(renewals <= 10, "{renewals}");
}

/// In a cluster without links between the victim and most: a death that a liar spreads is refuted everywhere within
/// seconds, and the victim's generation wins over one that the liar made up.
#[test]
fn a_lie_that_spreads_is_refuted_everywhere() {
    let count = 40;
    let mut world = World::new(count, Timing::Lan, Network { delay_ms: (1, 5), loss: 10 }, 5);
    world.run_for(Duration::from_millis(100));
    (1..count).for_each(|number| world.link(number, 0));
    world.run_until_all_know_all(Duration::from_secs(60));
    let known = (**world.members[7].own()).clone();
    let invented = MemberRecord {
        generation: known.generation.next().unwrap(),
        address: record(99).address,
        left: true,
        ..known.clone()
    };
    for (standing, record) in [(Standing::Down, known), (Standing::Left, invented)] {
        world.reset_figures();
        for believer in [11, 12, 13] {
            let (effects, _) = world.members[believer].learn(replica(20), &[lie(record.clone(), standing)], world.now);
            world.carry_out(believer, effects);
        }
        assert!(!world.all_know_all(), "it is believed at first");
        let took = world.run_until_all_know_all(Duration::from_secs(30));
        println!("{standing:?} refuted everywhere after {took:?}; {} had believed it", world.seen_down.len());
        world.run_for(Duration::from_secs(10));
        assert!(world.all_know_all(), "and it stays so");
        let own = world.members[7].own().clone();
        let others =
            world.members.iter().flat_map(Membership::list).filter(|listed| listed.record.replica == own.replica);
        assert!(
            others.into_iter().all(|listed| listed.record.address == own.address),
            "nobody knows the false address"
        );
    }
}
