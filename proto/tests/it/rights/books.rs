//! References that are forgotten with time, and what a reopen remembers of them (rules O4, D7).

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use stockmesh_proto::Reference;
use stockmesh_proto::operation::Books;

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
