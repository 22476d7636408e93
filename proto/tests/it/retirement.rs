//! Who is noted as the heir of a retired replica (rule Q1). What follows from it for several heirs is searched by the model.

use stockmesh_proto::ReplicaId;
use stockmesh_proto::retirement::{HeirClaim, Retirement, Retirements, last_heir, noted};

const LOW: u64 = 1;
const HIGH: u64 = 2;
const OTHER: u64 = 3;
const DEAD: u64 = 4;

fn id(random: u64) -> ReplicaId {
    ReplicaId::from_random(random)
}

fn asks(heir: u64, gave_way: &[u64]) -> HeirClaim {
    HeirClaim::Asks { heir: id(heir), gave_way: gave_way.iter().copied().map(id).collect() }
}

/// What `own` notes, having noted `heir` before.
fn noted_by(own: u64, heir: u64, is_closed: bool, claim: &HeirClaim) -> (u64, bool) {
    let known: Retirements = [(id(DEAD), Retirement { heir: id(heir), is_closed })].into();
    let now = noted(&known, id(DEAD), claim, id(own));
    (now.heir.bits(), now.is_closed)
}

#[test]
fn the_first_is_the_heir_and_closes_its_fence() {
    let nothing = Retirements::new();
    let now = noted(&nothing, id(DEAD), &asks(HIGH, &[]), id(OTHER));
    assert_eq!(now, Retirement { heir: id(HIGH), is_closed: false });
    assert_eq!(noted_by(HIGH, HIGH, false, &HeirClaim::Closes { heir: id(HIGH) }), (HIGH, true));
    assert_eq!(noted_by(HIGH, HIGH, true, &asks(HIGH, &[])), (HIGH, true), "what is closed stays so");
    // Who was told to give up does not close.
    assert_eq!(noted_by(HIGH, LOW, false, &HeirClaim::Closes { heir: id(HIGH) }), (LOW, false));
}

#[test]
fn an_open_fence_gives_way_by_the_word_of_its_heir() {
    assert_eq!(noted_by(HIGH, HIGH, false, &asks(LOW, &[])), (LOW, false));
    assert_eq!(noted_by(LOW, LOW, false, &asks(HIGH, &[LOW])), (LOW, false), "nobody speaks for the node itself");
    assert_eq!(noted_by(OTHER, HIGH, false, &asks(LOW, &[])), (HIGH, false));
    assert_eq!(noted_by(OTHER, HIGH, false, &asks(LOW, &[OTHER])), (HIGH, false));
    assert_eq!(noted_by(OTHER, HIGH, false, &asks(LOW, &[HIGH])), (LOW, false));
}

#[test]
fn a_closed_fence_gives_way_to_nobody() {
    assert_eq!(noted_by(HIGH, HIGH, true, &asks(LOW, &[])), (HIGH, true));
    assert_eq!(noted_by(OTHER, HIGH, true, &asks(LOW, &[HIGH])), (HIGH, true));
    assert_eq!(noted_by(OTHER, HIGH, true, &HeirClaim::TookOver { heir: id(LOW) }), (HIGH, true));
}

#[test]
fn who_took_over_is_the_heir_before_who_only_asks() {
    for own in [LOW, OTHER] {
        assert_eq!(noted_by(own, LOW, false, &HeirClaim::TookOver { heir: id(HIGH) }), (HIGH, true));
    }
}

#[test]
fn an_heir_that_was_retired_too_is_replaced() {
    let retired = Retirement { heir: id(LOW), is_closed: true };
    let known: Retirements = [(id(DEAD), Retirement { heir: id(HIGH), is_closed: true }), (id(HIGH), retired)].into();
    let now = noted(&known, id(DEAD), &asks(OTHER, &[]), id(9));
    assert_eq!(now, Retirement { heir: id(OTHER), is_closed: false });
}

/// Rule Q4: what was taken over behind an open fence might be somebody else's already.
#[test]
fn an_heir_is_the_last_one_only_behind_closed_fences() {
    let known = |rows: &[(u64, u64, bool)]| -> Retirements {
        rows.iter().map(|&(dead, heir, is_closed)| (id(dead), Retirement { heir: id(heir), is_closed })).collect()
    };
    let last = |rows| last_heir(id(DEAD), &known(rows)).map(ReplicaId::bits);
    assert_eq!(last(&[]), None);
    assert_eq!(last(&[(DEAD, HIGH, true)]), Some(HIGH));
    assert_eq!(last(&[(DEAD, HIGH, false)]), None);
    assert_eq!(last(&[(DEAD, HIGH, true), (HIGH, LOW, true)]), Some(LOW));
    assert_eq!(last(&[(DEAD, HIGH, true), (HIGH, LOW, false)]), None);
    assert_eq!(last(&[(DEAD, HIGH, true), (HIGH, OTHER, true), (OTHER, LOW, true)]), Some(LOW));
    assert_eq!(last(&[(DEAD, HIGH, true), (HIGH, OTHER, true), (OTHER, LOW, false)]), None);
    assert_eq!(last(&[(DEAD, HIGH, true), (HIGH, LOW, true), (LOW, HIGH, true)]), None, "a circle");
}

/// What `own` notes, having noted `heir`, which was retired with another one as its heir.
fn noted_behind_the_dead(own: u64, heir: u64, dead_heir: u64, claim: &HeirClaim) -> (u64, bool) {
    let open = |heir| Retirement { heir: id(heir), is_closed: false };
    let known: Retirements = [(id(DEAD), open(heir)), (id(dead_heir), open(OTHER))].into();
    let now = noted(&known, id(DEAD), claim, id(own));
    (now.heir.bits(), now.is_closed)
}

/// All agreed on another heir since: it may have taken over already.
#[test]
fn a_retired_heir_that_took_over_somewhere_does_not_come_back() {
    assert_eq!(noted_behind_the_dead(OTHER, LOW, HIGH, &HeirClaim::TookOver { heir: id(HIGH) }), (LOW, false));
    assert_eq!(noted_behind_the_dead(LOW, LOW, HIGH, &HeirClaim::TookOver { heir: id(HIGH) }), (LOW, false));
    // Of nobody else is known that they agreed on it.
    assert_eq!(noted_behind_the_dead(OTHER, HIGH, HIGH, &HeirClaim::TookOver { heir: id(HIGH) }), (HIGH, true));
}

/// Its word was given once, and the other one may have taken over before it died.
#[test]
fn who_gave_way_does_not_close_its_fence_once_the_other_is_retired() {
    assert_eq!(noted_behind_the_dead(HIGH, LOW, LOW, &HeirClaim::Closes { heir: id(HIGH) }), (LOW, false));
    assert_eq!(noted_behind_the_dead(HIGH, LOW, LOW, &asks(HIGH, &[])), (HIGH, false), "it begins anew");
}

/// What `own` notes of the dead, from rows of (retired, heir, is closed).
fn noted_among(rows: &[(u64, u64, bool)], own: u64, claim: &HeirClaim) -> (u64, bool) {
    let known: Retirements =
        rows.iter().map(|&(dead, heir, is_closed)| (id(dead), Retirement { heir: id(heir), is_closed })).collect();
    let now = noted(&known, id(DEAD), claim, id(own));
    (now.heir.bits(), now.is_closed)
}

/// Else its heir would take over what the other one may have sold, behind a fence of that one that is open.
#[test]
fn of_two_heirs_that_were_retired_the_one_that_all_agreed_on_stays() {
    let (first, second, next) = (LOW, HIGH, OTHER);
    for is_closed in [false, true] {
        let rows = [(DEAD, second, is_closed), (first, next, true), (second, 9, false)];
        let late = HeirClaim::TookOver { heir: id(first) };
        assert_eq!(noted_among(&rows, next, &late), (second, is_closed));
        assert_eq!(noted_among(&rows, 9, &late), (second, is_closed));
    }
}

/// It may have taken over already: of two living heirs each would name the other.
#[test]
fn the_last_heir_gives_no_word_away() {
    let rows = [(DEAD, HIGH, true), (HIGH, OTHER, true)];
    assert_eq!(noted_among(&rows, OTHER, &asks(LOW, &[])), (OTHER, true));
    assert_eq!(noted_among(&rows, OTHER, &asks(OTHER, &[])), (OTHER, true), "begun again it stays closed");
    assert_eq!(noted_among(&rows, 9, &asks(LOW, &[])), (LOW, false), "another member");
    // One that does not know yet all that its predecessor took over.
    for rows in [[(DEAD, HIGH, false), (HIGH, OTHER, true)], [(DEAD, HIGH, true), (HIGH, OTHER, false)]] {
        assert_eq!(noted_among(&rows, OTHER, &asks(LOW, &[])), (LOW, false));
    }
}

#[test]
fn what_a_node_took_over_itself_says_nothing_against_its_word() {
    assert_eq!(noted_by(OTHER, LOW, false, &HeirClaim::TookOver { heir: id(OTHER) }), (LOW, false));
    let nothing = Retirements::new();
    let now = noted(&nothing, id(DEAD), &HeirClaim::TookOver { heir: id(OTHER) }, id(OTHER));
    assert_eq!(now, Retirement { heir: id(OTHER), is_closed: true }, "where it is all that is left of it");
}
