//! Groups of several writers, and what else a group may bring.

use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::thread;
use stockmesh_proto::ShardIndex;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::LedgerRecord;

use super::leaving::{push, source};
use super::support::{Node, explore, receive, sku, units, write};
use crate::subscribe::{Change, Changes, Filter};

/// As many as make a group wait for more, and more than the queue has room for.
const WRITERS: u64 = 4;

#[test]
fn writers_that_come_together_are_all_served() {
    explore("groups of writers", || {
        let (Node { table, committer, disks }, commits) = Node::open();
        let pushing = {
            let disks = disks.clone();
            thread::spawn(move || push(commits, &disks))
        };
        let write_on = move |committer: &_| {
            for _ in 0..2 {
                write(committer, vec![receive(&sku(0), 1)]).unwrap();
            }
        };
        let writing: Vec<_> = (1..WRITERS)
            .map(|_| {
                let committer = committer.clone();
                thread::spawn(move || write_on(&committer))
            })
            .collect();
        write_on(&committer);
        writing.into_iter().for_each(|writing| writing.join().unwrap());
        assert_eq!(units(&disks.durable(), &sku(0)), i128::from(2 * WRITERS));
        assert_eq!(table.own_writes(), 2 * WRITERS);
        block_on(committer.close());
        drop(committer);
        assert_eq!(pushing.join().unwrap(), 2 * WRITERS);
    });
}

/// Who read of the counters, and asks for the ledger then, finds there what it read.
#[test]
fn the_ledger_is_not_behind_the_counters() {
    explore("the ledger", || {
        let (node, _commits) = Node::open();
        let node = Arc::new(node);
        let looking = {
            let node = Arc::clone(&node);
            thread::spawn(move || {
                for _ in 0..2 {
                    let seen = units(&node.table, &sku(0));
                    let view = block_on(node.committer.ledger()).unwrap();
                    let entries = view.read(0, usize::MAX).unwrap();
                    let requests = entries.iter().flat_map(|(_, entry)| LedgerRecord::decode(entry).unwrap().parts);
                    let entered: usize = requests.map(|part| part.requests.len()).sum();
                    assert!(i128::try_from(entered).unwrap() >= seen, "{entered} in the ledger, {seen} seen");
                }
            })
        };
        for _ in 0..3 {
            write(&node.committer, vec![receive(&sku(0), 1)]).unwrap();
        }
        looking.join().unwrap();
        node.close();
    });
}

/// A new id is on disk before anybody is told of it, and each write is pushed under the id under which it was made.
#[test]
fn a_new_id_is_durable_when_it_is_told() {
    explore("a new id", || {
        let (Node { table, committer, disks }, commits) = Node::open();
        let former = table.own();
        let mut changes = Changes::new(Arc::clone(&table), Filter::all(), committer.changes(), committer.watchers());
        let pushing = {
            let disks = disks.clone();
            thread::spawn(move || push(commits, &disks))
        };
        let telling = {
            let committer = committer.clone();
            let witness = source().witness;
            thread::spawn(move || block_on(committer.own_future(former, ShardIndex(0), 1000, &witness)).unwrap())
        };
        let listening = {
            let disks = disks.clone();
            thread::spawn(move || {
                let (mut told, mut lagged) = (None, false);
                while let Some(change) = block_on(changes.next()) {
                    lagged |= matches!(change, Change::Lagged { .. });
                    if let Change::NewIncarnation { own, .. } = change {
                        assert_eq!(disks.durable_id(), own, "told before it is durable");
                        told = Some(own);
                    }
                }
                (told, lagged)
            })
        };
        write(&committer, vec![receive(&sku(0), 1)]).unwrap();
        telling.join().unwrap();
        write(&committer, vec![receive(&sku(0), 1)]).unwrap();
        block_on(committer.close());
        pushing.join().unwrap();
        assert_ne!(table.own(), former);
        let (told, lagged) = listening.join().unwrap();
        assert!(told == Some(table.own()) || lagged, "not told of the new id");
        assert_eq!(committer.incarnations().last().map(|minted| minted.own), Some(table.own()));
        assert_eq!(units(&disks.durable(), &sku(0)), 2);
    });
}
