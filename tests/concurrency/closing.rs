//! A store that is closed, or dropped, while others use it: all of them are told, and its files are free then.

use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::thread;

use super::leaving::{from_elsewhere, send_deltas, source};
use super::support::{Node, explore, receive, sku, units, write};
use crate::error::WriteError;
use crate::subscribe::{Change, Changes, Filter};

#[test]
fn closing_ends_all_who_write_or_wait() {
    explore("closing under writes", || {
        let (node, _commits) = Node::open();
        let writing = [0, 1].map(|shard| {
            let committer = node.committer.clone();
            thread::spawn(move || {
                let mut acknowledged = 0;
                for _ in 0..2 {
                    match write(&committer, vec![receive(&sku(shard), 1)]) {
                        Ok(_) => acknowledged += 1,
                        Err(WriteError::Closed) => break,
                        // Of a healthy store that is closed everybody knows what became of a write.
                        Err(other) => panic!("{other}"),
                    }
                }
                acknowledged
            })
        });
        let sending = {
            let (table, committer, disks) = (Arc::clone(&node.table), node.committer.clone(), node.disks.clone());
            thread::spawn(move || send_deltas(&table, &committer, &disks))
        };
        node.close();
        assert!(!node.disks.is_open(), "closed before its file is");
        for (shard, writing) in (0..).zip(writing) {
            let acknowledged = writing.join().unwrap();
            assert_eq!(units(&node.disks.durable(), &sku(shard)), acknowledged, "on disk");
            assert_eq!(units(&node.table, &sku(shard)), acknowledged, "in memory");
        }
        sending.join().unwrap();
    });
}

#[test]
fn each_who_closes_finds_the_file_closed() {
    explore("closing twice", || {
        let (node, _commits) = Node::open();
        let closing = {
            let (committer, disks) = (node.committer.clone(), node.disks.clone());
            thread::spawn(move || {
                block_on(committer.close());
                assert!(!disks.is_open());
            })
        };
        let written = write(&node.committer, vec![receive(&sku(0), 1)]);
        assert!(matches!(written, Ok(_) | Err(WriteError::Closed)));
        node.close();
        assert!(!node.disks.is_open());
        closing.join().unwrap();
    });
}

/// Also who was given room in the queue at the last moment, and has not used it yet.
#[test]
fn who_waits_for_room_is_answered() {
    explore("waiting for room", || {
        let (node, _commits) = Node::open();
        let writing: Vec<_> = (0..3)
            .map(|_| {
                let committer = node.committer.clone();
                thread::spawn(move || write(&committer, vec![receive(&sku(0), 1)]))
            })
            .collect();
        node.close();
        for writing in writing {
            let written = writing.join().unwrap();
            assert!(matches!(written, Ok(_) | Err(WriteError::Closed)), "{written:?}");
        }
    });
}

/// Nobody closes, but nobody has the store any more.
#[test]
fn dropping_ends_all_who_wait() {
    explore("dropping", || {
        let (Node { committer, table, disks }, _commits) = Node::open();
        let mut changes = Changes::new(Arc::clone(&table), Filter::all(), committer.changes(), committer.watchers());
        let merging = {
            let committer = committer.clone();
            thread::spawn(move || {
                let merged = block_on(committer.merge(from_elsewhere(1), source())).unwrap();
                drop(committer);
                block_on(merged).expect("an answer").is_ok()
            })
        };
        drop(committer);
        let is_merged = merging.join().unwrap();
        let told = block_on(changes.next());
        assert_eq!(matches!(told, Some(Change::Product(_))), is_merged);
        assert!(!is_merged || block_on(changes.next()).is_none());
        assert!(!disks.is_open(), "ended before its file is closed");
        assert_eq!(units(&disks.durable(), &sku(0)), i128::from(is_merged));
    });
}
