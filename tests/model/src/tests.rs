//! Small searches of every model; and of each break that its model finds it, by a shortest path.

use crate::check::{CounterExample, Search, System, check};
use crate::models::grants::{self, Grants};
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

/// Finds what is broken, by the rule that says so.
fn assert_found<S: System>(system: S, rules: &[&str]) -> CounterExample {
    let report = check(system, Search::Breadth);
    let found = report.counter_example.expect("the break is not found");
    println!("{}: {}\n{:#?}", found.fault.rule, found.fault.text, found.path);
    assert!(rules.contains(&found.fault.rule), "{found:#?}");
    found
}

const MERGE: Merge = Merge { replicas: 2, writes: 3, broken: merge::Broken::Nothing };
const RECONCILE: Reconcile =
    Reconcile { replicas: 3, writes: 2, sessions: 2, deaths: 1, broken: reconcile::Broken::Nothing };
const PUSHES: Pushes = Pushes { replicas: 3, requests: 2, crashes: 0, deaths: 1, broken: push::Broken::Nothing };
const GRANTS: Grants = Grants { replicas: 2, stock: 2, grants: 2, crashes: 1, broken: grants::Broken::Nothing };
const HOLDS: Holds =
    Holds { replicas: 2, stock: 2, holds: 1, ticks: 1, crashes: 1, broken: holds::Broken::Nothing };
const RETIRE: Retire = Retire { replicas: 3, stock: 2, grants: 1, broken: retire::Broken::Nothing };

#[test]
fn merging_in_any_order_and_grouping_is_one_join() {
    assert_complete(MERGE, 0);
    assert_complete(Merge { replicas: 3, writes: 2, ..MERGE }, 0);
}

#[test]
fn sessions_that_end_anywhere_leave_sound_vectors_and_survivors_that_converge() {
    assert_complete(Reconcile { replicas: 2, writes: 2, sessions: 2, deaths: 0, ..RECONCILE }, 0);
    assert_complete(Reconcile { sessions: 1, ..RECONCILE }, 0);
}

#[test]
fn pushes_that_are_lost_late_or_repeated_claim_nothing_that_is_missing() {
    assert_complete(Pushes { replicas: 2, requests: 2, crashes: 1, deaths: 0, ..PUSHES }, 0);
    assert_complete(PUSHES, 0);
}

#[test]
fn rights_move_and_nothing_is_sold_twice() {
    assert_complete(GRANTS, 0);
    assert_complete(Grants { replicas: 3, stock: 1, crashes: 0, ..GRANTS }, 0);
}

#[test]
fn holds_are_resolved_once() {
    assert_complete(HOLDS, 0);
    assert_complete(Holds { replicas: 3, crashes: 0, ticks: 0, ..HOLDS }, 0);
}

#[test]
fn an_heir_takes_over_once() {
    assert_complete(Retire { replicas: 2, ..RETIRE }, 0);
    assert_complete(RETIRE, 0);
}

#[test]
fn a_price_that_overwrites_is_found() {
    assert_found(Merge { broken: merge::Broken::Overwrites, ..MERGE }, &["M1"]);
}

#[test]
fn a_late_write_that_is_skipped_is_found() {
    assert_found(Merge { broken: merge::Broken::SkipsOlder, ..MERGE }, &["M1"]);
}

/// The first trap, by the vectors: they say what is not there.
#[test]
fn a_claim_before_a_delta_is_whole_is_found() {
    assert_found(Reconcile { broken: reconcile::Broken::ClaimsBeforeWhole, ..RECONCILE }, &["claims"]);
}

/// The first trap, by what comes of it: replicas that stay different.
#[test]
fn a_claim_before_a_delta_is_whole_parts_replicas() {
    let found = assert_found(Reconcile { broken: reconcile::Broken::ClaimsBeforeWholeUnseen, ..RECONCILE }, &["converged"]);
    assert!(found.path.iter().any(|action| action.starts_with("Die")), "{found:#?}");
}

/// The second trap, by the vectors.
#[test]
fn a_push_rebuilt_from_the_state_is_found() {
    assert_found(Pushes { broken: push::Broken::RebuiltFromState, ..PUSHES }, &["claims"]);
}

/// The second trap, by what comes of it.
#[test]
fn a_push_rebuilt_from_the_state_parts_replicas() {
    let broken = push::Broken::RebuiltFromStateUnseen;
    assert_found(Pushes { crashes: 1, broken, ..PUSHES }, &["converged"]);
}

#[test]
fn a_push_that_claims_over_a_gap_is_found() {
    assert_found(Pushes { broken: push::Broken::ClaimsOverGaps, ..PUSHES }, &["claims"]);
}

#[test]
fn a_push_that_is_sent_before_it_is_durable_is_found() {
    assert_found(Pushes { replicas: 2, crashes: 1, deaths: 0, broken: push::Broken::SentEarly, ..PUSHES }, &["I2", "claims"]);
}

#[test]
fn a_grant_told_before_it_is_durable_is_found() {
    assert_found(Grants { broken: grants::Broken::ToldEarly, ..GRANTS }, &["oversold"]);
}

#[test]
fn a_sale_beyond_rights_is_found() {
    assert_found(Grants { broken: grants::Broken::SellsBeyondRights, ..GRANTS }, &["oversold"]);
}

#[test]
fn an_answer_that_counts_beside_its_grant_is_found() {
    assert_found(Grants { broken: grants::Broken::AnswerCountsTwice, ..GRANTS }, &["oversold"]);
}

#[test]
fn a_hold_that_expires_twice_is_found() {
    assert_found(Holds { broken: holds::Broken::ExpiresTwice, ..HOLDS }, &["O6"]);
}

#[test]
fn a_hold_that_expires_twice_sells_too_much() {
    assert_found(Holds { replicas: 1, broken: holds::Broken::ExpiresTwiceUnseen, ..HOLDS }, &["oversold"]);
}

#[test]
fn holds_written_behind_their_slots_are_found() {
    assert_found(Holds { broken: holds::Broken::HoldsWrittenLate, ..HOLDS }, &["O6"]);
}

#[test]
fn a_fence_without_an_exchange_is_found() {
    assert_found(Retire { broken: retire::Broken::FenceWithoutExchange, ..RETIRE }, &["oversold"]);
}

#[test]
fn a_fence_with_holes_is_found() {
    assert_found(Retire { broken: retire::Broken::FenceWithHoles, ..RETIRE }, &["oversold"]);
}

#[test]
fn an_heir_that_counts_again_is_found() {
    assert_found(Retire { broken: retire::Broken::CountsAgain, ..RETIRE }, &["E2"]);
}

#[test]
fn who_returns_and_counts_twice_is_found() {
    assert_found(Retire { broken: retire::Broken::ReappliesTwice, ..RETIRE }, &["E2"]);
}
