//! Subscriptions: every change is told, or that some were missed, and then all that there is.

use std::collections::BTreeMap;
use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::thread;
use stockmesh_proto::Sku;
use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::Operation;

use super::support::{Node, explore, here, receive, sku, units, write};
use crate::subscribe::{Change, Changes, Filter};

fn subscribe(node: &Node, filter: Filter) -> Changes {
    let Node { table, committer, .. } = node;
    Changes::new(Arc::clone(table), filter, committer.changes(), committer.watchers())
}

/// What a reader knows in the end that read all once it was subscribed, and was told the rest.
fn follow(node: &Node, mut changes: Changes) -> (BTreeMap<Sku, i128>, u64) {
    let mut known: BTreeMap<Sku, i128> = [0, 1].map(|shard| (sku(shard), units(&node.table, &sku(shard)))).into();
    let (mut told, mut lagged) = (0, false);
    let mut told_of: BTreeMap<Sku, i128> = BTreeMap::new();
    while let Some(change) = block_on(changes.next()) {
        match change {
            Change::Product(view) => {
                told += 1;
                let durable = units(&node.disks.durable(), view.sku());
                // Each write is of one unit. The view may show later ones, which this node's readers see before they are durable.
                let told_of = told_of.entry(view.sku().clone()).or_default();
                *told_of += 1;
                assert!(lagged || durable >= *told_of, "told before it is durable");
                let before = known.insert(view.sku().clone(), view.on_hand());
                assert!(before <= Some(view.on_hand()), "a view that goes back");
            }
            Change::Lagged { missed } => {
                assert!(missed > 0);
                lagged = true;
            }
            other => panic!("{other:?}"),
        }
    }
    (known, if lagged { u64::MAX } else { told })
}

const WRITES: u64 = 5;

fn write_on(node: &Node) {
    for number in 0..WRITES {
        write(&node.committer, vec![receive(&sku(u16::from(number % 2 == 1)), 1)]).unwrap();
    }
}

#[test]
fn a_subscription_misses_nothing_or_is_told() {
    explore("a subscription from the beginning", || {
        let (node, _commits) = Node::open();
        let node = Arc::new(node);
        let changes = subscribe(&node, Filter::all());
        let following = {
            let node = Arc::clone(&node);
            thread::spawn(move || follow(&node, changes))
        };
        write_on(&node);
        node.close();
        let (known, told) = following.join().unwrap();
        assert!(told >= WRITES, "{told} changes were told of {WRITES}");
        for (sku, known) in known {
            assert_eq!(units(&node.table, &sku), known);
        }
    });
}

#[test]
fn a_subscription_that_begins_under_writes_misses_nothing_since() {
    explore("a subscription under writes", || {
        let (node, _commits) = Node::open();
        let node = Arc::new(node);
        let following = {
            let node = Arc::clone(&node);
            thread::spawn(move || {
                let changes = subscribe(&node, Filter::all());
                follow(&node, changes).0
            })
        };
        write_on(&node);
        node.close();
        for (sku, known) in following.join().unwrap() {
            assert_eq!(units(&node.table, &sku), known);
        }
    });
}

fn adjust(units: i64) -> Operation {
    Operation::Adjust { sku: sku(0), location: here(), units, reason: Reason::Lost }
}

/// Whoever sees, once subscribed, that there is plenty, is told when it runs low, and once.
#[test]
fn stock_that_runs_low_is_told_once() {
    explore("stock that runs low", || {
        let (node, _commits) = Node::open();
        write(&node.committer, vec![receive(&sku(0), 12)]).unwrap();
        let node = Arc::new(node);
        let watching = {
            let node = Arc::clone(&node);
            thread::spawn(move || {
                let mut changes = subscribe(&node, Filter::all().below(10).events_only());
                let seen = units(&node.table, &sku(0));
                let (mut told, mut lagged) = (Vec::new(), false);
                while let Some(change) = block_on(changes.next()) {
                    match change {
                        Change::LowStock { available, .. } => told.push(available),
                        Change::BackInStock(_) => {}
                        Change::Lagged { .. } => lagged = true,
                        other => panic!("{other:?}"),
                    }
                }
                (seen, told, lagged)
            })
        };
        for change in [-3, 5, -6] {
            write(&node.committer, vec![adjust(change)]).unwrap();
        }
        node.close();
        let (seen, told, lagged) = watching.join().unwrap();
        if lagged {
            assert_eq!(told.last(), Some(&8), "what is low now is told after a lag");
            return;
        }
        // 12, 9, 14, 8: what may have been told, if the subscription came before or while it was written, and what must.
        let must: &[i128] = match seen {
            12 => &[9, 8],
            9 | 14 => &[8],
            8 => &[],
            other => panic!("{other} units"),
        };
        assert!(told.ends_with(must) && [9, 8].ends_with(&told), "{seen} units were seen, then {told:?} told");
    });
}
