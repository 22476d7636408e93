//! References that are forgotten with time, and what a reopen remembers of them (rules O4, D7).

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use stockmesh_proto::Reference;
use stockmesh_proto::operation::{Books, Outcome};

use crate::support::config;

fn name(number: u8) -> Reference {
    Reference::new(&format!("order-{number}")).unwrap()
}

/// One use of a reference, as an entry of the ledger holds it.
#[derive(Clone, Copy, Debug)]
struct Use {
    name: u8,
    content: u128,
    ledger: u64,
    at_ms: u64,
}

fn enter(books: &mut Books, used: Use) {
    books.remember(name(used.name), used.content, &[], used.ledger, used.at_ms);
}

#[test]
fn the_later_use_of_a_reference_counts() {
    let mut books = Books::new(u64::MAX, 2);
    for (ledger, who) in [(1, 0), (2, 1), (3, 0)] {
        enter(&mut books, Use { name: who, content: u128::from(ledger), ledger, at_ms: 0 });
    }
    assert_eq!((books.references(), books.ledger_from()), (2, Some(2)));
    assert_eq!(books.remembered(&name(0)).map(|known| known.content), Some(3));
    enter(&mut books, Use { name: 2, content: 4, ledger: 4, at_ms: 0 });
    assert_eq!((books.references(), books.ledger_from()), (2, Some(3)), "the oldest use is forgotten");
    assert!(books.remembered(&name(0)).is_some() && books.remembered(&name(1)).is_none());
}

/// A list of outcomes of which none is plainly done: it counts for one reference, and one more for every fourth of them.
fn long_list(count: usize) -> Vec<Outcome> {
    vec![Outcome::Difference(1); count]
}

fn counts_for(count: usize) -> usize {
    if count == 0 { 1 } else { 1 + count / 4 }
}

/// A batch whose outcomes alone are beyond the limit is remembered nevertheless, with all of them, until the next
/// request needs the room.
#[test]
fn a_batch_that_is_longer_than_the_limit_is_remembered() {
    for references_max in 0..4 {
        let mut books = Books::new(u64::MAX, references_max);
        enter(&mut books, Use { name: 0, content: 1, ledger: 1, at_ms: 0 });
        books.remember(name(1), 2, &long_list(100), 2, 0);
        let outcomes = books.remembered(&name(1)).map(|known| (known.content, known.outcomes()));
        assert_eq!(outcomes, Some((2, long_list(100))), "with room for {references_max}");
        assert_eq!((books.references(), books.ledger_from()), (1, Some(2)), "all older ones made room");
        enter(&mut books, Use { name: 2, content: 3, ledger: 3, at_ms: 0 });
        assert!(books.remembered(&name(1)).is_none() && books.remembered(&name(2)).is_some());
        assert_eq!((books.references(), books.ledger_from()), (1, Some(3)));
    }
}

/// What a clock dated that was far ahead, by a century say, does not keep what comes after it from being forgotten.
#[test]
fn what_was_dated_far_ahead_does_not_stop_forgetting() {
    const AHEAD_MS: u64 = 100 * 366 * 24 * 60 * 60 * 1_000;
    let mut books = Books::new(100, usize::MAX);
    for (ledger, at_ms) in [(1, AHEAD_MS), (2, AHEAD_MS + 1), (3, AHEAD_MS + 2), (4, 10), (5, 50), (6, 90)] {
        enter(&mut books, Use { name: u8::try_from(ledger).unwrap(), content: 0, ledger, at_ms });
    }
    assert_eq!(
        (books.references(), books.ledger_from()),
        (3, Some(4)),
        "those of the right time are within the window"
    );
    for (ledger, at_ms) in [(7, 120), (8, 170), (9, 1_000), (10, 1_001)] {
        enter(&mut books, Use { name: u8::try_from(ledger).unwrap(), content: 0, ledger, at_ms });
    }
    assert_eq!((books.references(), books.ledger_from()), (2, Some(9)), "only the last two are within the window");
}

proptest! {
    #![proptest_config(config(200))]

    /// Whatever the requests weigh: the newest is remembered, the others go oldest first, and no more than must.
    #[test]
    fn the_newest_is_never_forgotten_by_weight(
        lists in vec(prop_oneof![Just(0_usize), 0_usize..60], 1..40),
        references_max in 0_usize..20,
    ) {
        let mut books = Books::new(u64::MAX, references_max);
        for (newest, count) in lists.iter().enumerate() {
            let who = |number: usize| name(u8::try_from(number).unwrap());
            books.remember(who(newest), 0, &long_list(*count), 1, 0);
            let mut weight = 0;
            let mut fits = |count: &usize| {
                weight += counts_for(*count);
                weight <= references_max
            };
            let latest = lists[..=newest].iter().rev().take_while(|count| fits(count)).count().max(1);
            prop_assert_eq!(books.references(), latest);
            for number in 0..=newest {
                prop_assert_eq!(books.remembered(&who(number)).is_some(), number + latest > newest, "{}", number);
            }
        }
    }
}

proptest! {
    #![proptest_config(config(200))]

    /// Whatever the clock does: what is within the window and among the latest is remembered, and after a reopen too.
    #[test]
    fn what_must_be_remembered_is(
        requests in vec((0_u8..6, 0_u64..60, prop::bool::weighted(0.5)), 1..40),
        references_max in 1_usize..5,
        window_ms in 0_u64..100,
    ) {
        let mut books = Books::new(window_ms, references_max);
        let (mut uses, mut ledger, mut now_ms) = (Vec::<Use>::new(), 1, 0);
        for (content, (who, elapsed_ms, is_group_end)) in (1..).zip(requests) {
            now_ms += elapsed_ms;
            // A request under a reference that is remembered is answered, and not entered again.
            if books.remembered(&name(who)).is_none() {
                let used = Use { name: who, content, ledger, at_ms: now_ms };
                enter(&mut books, used);
                uses.push(used);
                ledger += u64::from(is_group_end);
            }
        }
        let mut reopened = Books::new(window_ms, references_max);
        let from = books.ledger_from().unwrap_or(ledger);
        uses.iter().filter(|used| used.ledger >= from).for_each(|used| enter(&mut reopened, *used));
        let latest: BTreeMap<u8, Use> = uses.iter().map(|used| (used.name, *used)).collect();
        let last_ms = uses.last().map_or(0, |used| used.at_ms);
        for (position, used) in uses.iter().rev().enumerate() {
            let is_due = position >= references_max || used.at_ms + window_ms < last_ms;
            let is_latest = latest[&used.name].content == used.content;
            for books in [&books, &reopened] {
                let known = books.remembered(&name(used.name)).map(|known| known.content);
                prop_assert!(is_due || !is_latest || known == Some(used.content), "{:?}: {:?}", used, known);
                prop_assert!(known.is_none_or(|known| known == latest[&used.name].content), "an earlier use");
            }
            let known = reopened.remembered(&name(used.name)).is_some();
            prop_assert!(known || books.remembered(&name(used.name)).is_none() || is_due);
        }
        prop_assert!(books.references() <= references_max && reopened.references() <= references_max);
    }
}
