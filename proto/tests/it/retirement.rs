//! Who is noted as the heir of a retired replica (rule Q1). What follows from it for several heirs is searched by the model.

use stockmesh_proto::ReplicaId;
use stockmesh_proto::retirement::{
    HeirClaim, Retirement, Retirements, given_up, last_heir, living_rival, named_heir, note, noted,
};

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

/// These rows of (retired, heir, is closed).
fn rows(rows: &[(u64, u64, bool)]) -> Retirements {
    rows.iter().map(|&(dead, heir, is_closed)| (id(dead), Retirement { heir: id(heir), is_closed })).collect()
}

/// Rule Q4: what was taken over behind an open fence might be somebody else's already.
#[test]
fn an_heir_is_the_last_one_only_behind_closed_fences() {
    let last = |known| last_heir(id(DEAD), &rows(known)).map(ReplicaId::bits);
    assert_eq!(last(&[]), None);
    assert_eq!(last(&[(DEAD, HIGH, true)]), Some(HIGH));
    assert_eq!(last(&[(DEAD, HIGH, false)]), None);
    assert_eq!(last(&[(DEAD, HIGH, true), (HIGH, LOW, true)]), Some(LOW));
    assert_eq!(last(&[(DEAD, HIGH, true), (HIGH, LOW, false)]), None);
    assert_eq!(last(&[(DEAD, HIGH, true), (HIGH, OTHER, true), (OTHER, LOW, true)]), Some(LOW));
    assert_eq!(last(&[(DEAD, HIGH, true), (HIGH, OTHER, true), (OTHER, LOW, false)]), None);
    assert_eq!(last(&[(DEAD, HIGH, true), (HIGH, LOW, true), (LOW, HIGH, true)]), None, "a circle");
}

/// What `own` notes of the dead, from such rows.
fn noted_among(known: &[(u64, u64, bool)], own: u64, claim: &HeirClaim) -> (u64, bool) {
    let now = noted(&rows(known), id(DEAD), claim, id(own));
    (now.heir.bits(), now.is_closed)
}

/// It may have taken over already, and whoever goes on for it does so for all that it had.
#[test]
fn an_heir_that_was_retired_too_is_replaced_while_its_fence_is_open() {
    for own in [HIGH, OTHER] {
        assert_eq!(noted_among(&[(DEAD, LOW, false), (LOW, OTHER, false)], own, &asks(HIGH, &[])), (HIGH, false));
        for claim in [asks(HIGH, &[]), HeirClaim::TookOver { heir: id(HIGH) }] {
            assert_eq!(noted_among(&[(DEAD, LOW, true), (LOW, OTHER, true)], own, &claim), (LOW, true));
        }
    }
}

/// Its word was given once, and the other one may have taken over before it died.
#[test]
fn who_gave_way_does_not_close_its_fence_once_the_other_is_retired() {
    let known = [(DEAD, LOW, false), (LOW, OTHER, false)];
    assert_eq!(noted_among(&known, HIGH, &HeirClaim::Closes { heir: id(HIGH) }), (LOW, false));
    assert_eq!(noted_among(&known, HIGH, &asks(HIGH, &[])), (HIGH, false), "it begins anew");
}

/// Who was retired may have taken over alone, as others had agreed on another one already, and may have closed its fence with
/// their words: it is for that one alone to see it, and to give way.
#[test]
fn what_a_retired_heir_took_over_alone_keeps_another_one_from_closing_its_fence() {
    let late = HeirClaim::TookOver { heir: id(HIGH) };
    for is_closed in [false, true] {
        let known = [(DEAD, LOW, false), (HIGH, 9, is_closed)];
        assert_eq!(noted_among(&known, LOW, &late), (HIGH, true));
        for own in [OTHER, HIGH, 9] {
            assert_eq!(noted_among(&known, own, &late), (LOW, false), "by its own word");
            // Who was retired since may have closed it before.
            assert_eq!(noted_among(&[known.as_slice(), &[(LOW, 9, false)]].concat(), own, &late), (LOW, false));
        }
        assert_eq!(noted_among(&[(DEAD, LOW, true), (HIGH, 9, is_closed)], LOW, &late), (LOW, true));
        assert_eq!(noted_among(&[(DEAD, HIGH, false), (HIGH, 9, is_closed)], OTHER, &late), (HIGH, true));
    }
}

/// Who gave its word to another one asks that one first.
#[test]
fn the_word_that_one_gave_is_given_back_by_whoever_has_it() {
    let rival = |known, own| living_rival(&rows(known), id(DEAD), id(own)).map(ReplicaId::bits);
    assert_eq!(rival(&[], HIGH), None);
    assert_eq!(rival(&[(DEAD, LOW, false)], HIGH), Some(LOW));
    assert_eq!(rival(&[(DEAD, LOW, false)], LOW), None);
    assert_eq!(rival(&[(DEAD, LOW, true)], HIGH), None);
    assert_eq!(rival(&[(DEAD, LOW, false), (LOW, OTHER, false)], HIGH), None, "nobody is there to be asked");
    assert_eq!(noted_by(HIGH, LOW, false, &asks(HIGH, &[LOW])), (HIGH, false));
}

/// Who goes on for an heir has closed the fence of that one, though nobody else was told.
#[test]
fn an_heir_that_took_over_had_closed_the_fences_of_those_before_it() {
    let took_over = HeirClaim::TookOver { heir: id(OTHER) };
    let known = [(DEAD, LOW, false), (LOW, HIGH, true), (HIGH, OTHER, false)];
    let mut now = rows(&known);
    let new = note(&mut now, id(DEAD), &took_over, id(9));
    assert_eq!(now, rows(&[(DEAD, LOW, true), (LOW, HIGH, true), (HIGH, OTHER, true)]));
    assert_eq!(new.into_iter().collect::<Retirements>(), rows(&[(DEAD, LOW, true), (HIGH, OTHER, true)]));
    assert_eq!(note(&mut now, id(DEAD), &took_over, id(9)), [], "known");
    // By another way nothing is known of these.
    let mut now = rows(&[(DEAD, LOW, true), (LOW, HIGH, false)]);
    assert_eq!(note(&mut now, id(DEAD), &took_over, id(9)), []);
    let mut now = rows(&[(DEAD, LOW, false), (LOW, HIGH, false)]);
    note(&mut now, id(DEAD), &took_over, id(9));
    assert_eq!(now, rows(&[(DEAD, OTHER, true), (LOW, HIGH, false)]));
}

/// Two that took each other for dead: nobody who lives goes on for them, until the lower id gets another heir.
#[test]
fn a_circle_is_opened_at_its_lowest_id() {
    let known = [(LOW, HIGH, true), (HIGH, OTHER, true), (OTHER, LOW, true), (DEAD, OTHER, true)];
    let noted_of = |of: u64, claim| {
        let now = noted(&rows(&known), id(of), claim, id(9));
        (now.heir.bits(), now.is_closed)
    };
    let ask = asks(9, &[]);
    assert_eq!(noted_of(LOW, &ask), (9, false));
    assert_eq!((noted_of(HIGH, &ask), noted_of(DEAD, &ask)), ((OTHER, true), (OTHER, true)));
    // Not by what shows again how it came about.
    assert_eq!(noted_of(LOW, &HeirClaim::TookOver { heir: id(HIGH) }), (HIGH, true));
    for of in [HIGH, OTHER, DEAD] {
        assert_eq!(named_heir(&rows(&known), id(of), &ask, id(9)), id(LOW));
    }
    let mut now = rows(&known);
    note(&mut now, id(LOW), &ask, id(9));
    note(&mut now, id(LOW), &HeirClaim::TookOver { heir: id(HIGH) }, id(9));
    note(&mut now, id(LOW), &HeirClaim::Closes { heir: id(9) }, id(9));
    for of in [LOW, HIGH, OTHER, DEAD] {
        assert_eq!(last_heir(id(of), &now), Some(id(9)));
    }
}

/// Whoever was not told that a fence in it was closed, as nothing was taken over behind it, opens it at the same place.
#[test]
fn a_circle_that_is_closed_elsewhere_is_opened_at_the_same_id() {
    for (first, second) in [(LOW, HIGH), (HIGH, LOW)] {
        let known = [(first, second, true), (second, first, false), (DEAD, second, true)];
        let noted_of = |of: u64| noted(&rows(&known), id(of), &asks(9, &[]), id(OTHER)).heir;
        assert_eq!(noted_of(LOW), id(9));
        assert_eq!(noted_of(DEAD), id(second));
        assert_eq!(noted_of(first), if first == LOW { id(9) } else { id(second) });
        for of in [first, DEAD] {
            let named = named_heir(&rows(&known), id(of), &asks(9, &[]), id(OTHER));
            assert_eq!(named, if of == LOW { id(9) } else { id(LOW) });
        }
    }
    // Not by an heir that lives.
    let known = [(LOW, HIGH, true), (HIGH, OTHER, false)];
    assert_eq!(noted(&rows(&known), id(LOW), &asks(9, &[]), id(8)).heir, id(HIGH));
}

/// At the node that was retired under that id, and does not know by whom: nobody else may know a way on from there.
#[test]
fn a_way_that_leads_to_an_id_that_was_given_up_ends_there() {
    assert_eq!(given_up(id(LOW)), Retirement { heir: id(LOW), is_closed: false });
    for is_closed in [false, true] {
        let known = [(DEAD, HIGH, true), (HIGH, LOW, is_closed), (LOW, LOW, false)];
        for of in [LOW, HIGH] {
            let now = noted(&rows(&known), id(of), &asks(OTHER, &[]), id(9));
            assert_eq!((now.heir.bits(), now.is_closed), (OTHER, false));
        }
        let heir = noted_among(&known, 9, &asks(OTHER, &[]));
        assert_eq!(heir, if is_closed { (OTHER, false) } else { (HIGH, true) });
        assert_eq!(noted_among(&known, 9, &HeirClaim::TookOver { heir: id(OTHER) }), (HIGH, true));
        assert_eq!(last_heir(id(DEAD), &rows(&known)), None);
    }
}

/// Whom a member names to who claims to be the heir of the dead.
fn named(known: &[(u64, u64, bool)], claim: &HeirClaim) -> u64 {
    named_heir(&rows(known), id(DEAD), claim, id(9)).bits()
}

/// So whoever goes on for an heir need not have all members note it anew.
#[test]
fn behind_a_closed_fence_whoever_goes_on_for_the_heir_is_named() {
    let ask = asks(OTHER, &[]);
    assert_eq!(named(&[], &ask), OTHER);
    assert_eq!(named(&[(DEAD, HIGH, false)], &ask), HIGH);
    assert_eq!(named(&[(DEAD, HIGH, true)], &ask), HIGH);
    assert_eq!(named(&[(DEAD, HIGH, false), (HIGH, LOW, true)], &ask), OTHER, "what is open can be replaced");
    assert_eq!(named(&[(DEAD, HIGH, true), (HIGH, LOW, true)], &ask), LOW);
    assert_eq!(named(&[(DEAD, HIGH, true), (HIGH, LOW, false)], &ask), LOW, "it may have closed its fence since");
    assert_eq!(named(&[(DEAD, HIGH, true), (HIGH, LOW, true), (LOW, OTHER, false)], &ask), OTHER);
    assert_eq!(named(&[(DEAD, HIGH, true), (HIGH, LOW, true), (LOW, HIGH, true)], &ask), LOW, "of a circle the lowest");
}

#[test]
fn where_nobody_goes_on_for_an_heir_it_is_named_itself_to_be_retired_first() {
    let known = [(DEAD, HIGH, true), (HIGH, LOW, false), (LOW, OTHER, true)];
    assert_eq!(named(&known, &asks(OTHER, &[])), HIGH, "nobody asks for it any more");
    // Its own fence is not enough.
    let closes = HeirClaim::Closes { heir: id(OTHER) };
    assert_eq!(named(&[(DEAD, HIGH, true), (HIGH, OTHER, false)], &closes), HIGH);
    assert_eq!(named(&[(DEAD, HIGH, true), (HIGH, OTHER, true)], &closes), OTHER);
    assert_eq!(named(&[(DEAD, HIGH, true), (HIGH, LOW, true), (LOW, OTHER, false)], &closes), LOW);
}
