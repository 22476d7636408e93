//! Small searches of every model; and of each break that its model finds it.

use crate::breaks;
use crate::check::{Search, System, check};
use crate::models::chains::{self, Chains};
use crate::models::grants::{self, Grants};
use crate::models::heirs::{self, Heirs, LeftOut};
use crate::models::holds::{self, Holds};
use crate::models::merge::{self, Merge};
use crate::models::push::{self, Pushes};
use crate::models::reconcile::{self, Reconcile};
use crate::models::retire::{self, Retire};

/// Searches all of a model and finds nothing. How many states there are is known: a model that loses some would pass
/// for less than it is.
fn assert_complete<S: System>(system: S, states: usize) {
    let report = check(system, Search::Depth(2));
    assert!(report.is_complete(), "{report:#?}");
    assert_eq!(report.unique, states, "{report:#?}");
}

/// Finds all that is broken in a model, each by the rule that says so.
fn assert_found(model: &str) {
    for entry in breaks::all().into_iter().filter(|entry| entry.model == model) {
        let report = entry.find();
        let found = report.counter_example.unwrap_or_else(|| panic!("{}: {} is not found", entry.model, entry.what));
        println!("{}: {}: {}\n{:#?} {:?}", entry.what, found.fault.rule, found.fault.text, found.path, report.time);
        assert_eq!(found.fault.rule, entry.rule, "{}: {found:#?}", entry.what);
    }
}

#[test]
fn merging_in_any_order_and_grouping_is_one_join() {
    let two = Merge { replicas: 2, writes: 3, broken: merge::Broken::Nothing };
    assert_complete(two, 2_685);
    assert_complete(Merge { replicas: 3, writes: 2, ..two }, 1_573);
}

#[test]
fn sessions_that_end_anywhere_leave_sound_vectors_and_survivors_that_converge() {
    let broken = reconcile::Broken::Nothing;
    assert_complete(Reconcile { replicas: 3, writes: 2, sessions: 1, meetings: 1, deaths: 1, broken }, 155_638);
}

#[test]
fn pushes_that_are_lost_late_or_repeated_claim_nothing_that_is_missing() {
    let broken = push::Broken::Nothing;
    assert_complete(Pushes { replicas: 2, requests: 3, crashes: 1, deaths: 0, broken }, 12_359);
    assert_complete(Pushes { replicas: 3, requests: 2, crashes: 1, deaths: 1, broken }, 22_068);
}

#[test]
fn rights_move_and_nothing_is_sold_twice() {
    let two = Grants { replicas: 2, stock: 2, grants: 2, crashes: 1, broken: grants::Broken::Nothing };
    assert_complete(two, 417);
    assert_complete(Grants { replicas: 3, ..two }, 6_592);
}

#[test]
fn holds_are_resolved_once() {
    let two = Holds { replicas: 2, stock: 2, holds: 1, sales: 1, ticks: 1, crashes: 1, broken: holds::Broken::Nothing };
    assert_complete(two, 7_894);
}

#[test]
fn an_heir_takes_over_once() {
    let three = Retire { replicas: 3, stock: 1, grants: 1, broken: retire::Broken::Nothing };
    assert_complete(three, 21_705);
    assert_complete(Retire { replicas: 2, stock: 2, ..three }, 6_077);
}

#[test]
fn of_several_heirs_one_takes_over_and_one_always_can() {
    let two = Heirs { members: 3, heirs: 2, left_out: LeftOut::Nobody, attempts: 2, broken: heirs::Broken::Nothing };
    assert_complete(two, 4_436);
    assert_complete(Heirs { left_out: LeftOut::Lower, ..two }, 1_160);
}

#[test]
fn what_a_dead_heir_had_taken_over_is_taken_over_once() {
    let broken = chains::Broken::Nothing;
    let few = Chains {
        members: 3,
        dying: &[0],
        products: 1,
        first_takes: 1,
        attempts: 3,
        in_parts: false,
        returns: false,
        broken,
    };
    assert_complete(few, 3_422);
    assert_complete(Chains { dying: &[1, 0], ..few }, 10_498);
    assert_complete(Chains { products: 2, attempts: 2, returns: true, ..few }, 43_450);
}

#[test]
fn what_is_broken_in_merging_is_found() {
    assert_found("merge");
}

#[test]
fn what_is_broken_in_reconciliation_is_found() {
    assert_found("reconcile");
}

#[test]
fn what_is_broken_in_pushes_is_found() {
    assert_found("push");
}

#[test]
fn what_is_broken_in_grants_is_found() {
    assert_found("grants");
}

#[test]
fn what_is_broken_in_holds_is_found() {
    assert_found("holds");
}

#[test]
fn what_is_broken_in_retirement_is_found() {
    assert_found("retire");
}

#[test]
fn what_is_broken_among_heirs_is_found() {
    assert_found("heirs");
}

#[test]
fn what_is_broken_among_heirs_that_die_is_found() {
    assert_found("chains");
    assert_found("returns");
}
