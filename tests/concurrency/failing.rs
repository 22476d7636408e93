//! A disk that fails under writes: nothing is half applied, nothing of the failed batch is shown, nobody waits for ever.

use std::sync::Arc;

use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::leaving::{push, send_deltas};
use super::support::{Node, explore, receive, sku, units, write};
use crate::commit::Committer;
use crate::error::WriteError;
use crate::storage::FaultMode;

/// Operations of the disk within which it fails: those of about two commits.
const OPERATIONS: u64 = 24;

/// Units of what was acknowledged, and of what may be there or not.
#[derive(Default)]
struct Written {
    acknowledged: i128,
    indeterminate: i128,
}

/// Writes until it is refused; then all else must be refused.
fn write_on(committer: &Committer, shard: u16) -> Written {
    let mut written = Written::default();
    let mut failed = false;
    for _ in 0..2 {
        match write(committer, vec![receive(&sku(shard), 1)]) {
            Ok(_) => {
                assert!(!failed, "a write after the disk failed");
                written.acknowledged += 1;
            }
            Err(WriteError::Indeterminate { .. }) => {
                assert!(!failed, "a second batch after the disk failed");
                (failed, written.indeterminate) = (true, 1);
            }
            Err(WriteError::Poisoned { .. }) => failed = true,
            Err(other) => panic!("{other}"),
        }
    }
    written
}

#[test]
fn a_failing_disk_takes_nothing_that_was_acknowledged_or_shown() {
    explore("a failing disk", || {
        let (Node { table, committer, disks }, commits) = Node::open();
        let mode = if thread_rng().r#gen() { FaultMode::Once } else { FaultMode::Forever };
        disks.store.fail_at(thread_rng().gen_range(1..=OPERATIONS), mode);
        let pushing = {
            let disks = disks.clone();
            thread::spawn(move || push(commits, &disks))
        };
        let sending = {
            let (table, committer, disks) = (Arc::clone(&table), committer.clone(), disks.clone());
            thread::spawn(move || send_deltas(&table, &committer, &disks))
        };
        let another = {
            let committer = committer.clone();
            thread::spawn(move || write_on(&committer, 1))
        };
        let written = [write_on(&committer, 0), another.join().unwrap()];
        sending.join().unwrap();
        let failed = committer.failure().is_some();
        block_on(committer.close());
        drop(committer);
        pushing.join().unwrap();
        let durable = disks.durable();
        for (shard, Written { acknowledged, indeterminate }) in (0..).zip(written) {
            assert!(failed || acknowledged == 2, "refused although the disk did not fail");
            assert_eq!(units(&table, &sku(shard)), acknowledged + indeterminate, "in memory");
            let on_disk = units(&durable, &sku(shard));
            assert!((acknowledged..=acknowledged + indeterminate).contains(&on_disk), "{on_disk} on disk");
        }
    });
}
