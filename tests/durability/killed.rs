//! A process that writes is killed again and again, at random moments, and its directory opened after each kill.
//!
//! Ten kills by default; `STOCKMESH_KILLS=100` for the long campaign.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stockmesh::{Fingerprint, Store, inspect};

use crate::chance::Chance;
use crate::model::{Change, add, perform};

const THIS_TEST: &str = "killed::a_killed_process_loses_no_acknowledged_write_and_leaves_no_half_batch";
const DIRECTORY: &str = "STOCKMESH_TEST_WRITER_DIRECTORY";
/// Tasks that write single units, and tasks that write batches.
const SINGLES: u64 = 4;
const BATCHES: u64 = 2;
/// Products of a batch.
const BATCH_PRODUCTS: u64 = 60;
/// Bytes of journal before the first kill: folding, which begins at 16 MB, is then due soon.
const JOURNAL_BYTES: u64 = 15_500_000;

/// The writing process. It writes for ever, and prints each write that was acknowledged.
async fn writer(directory: String) {
    let store = Store::builder().data_dir(directory).shards(16).open().await.unwrap();
    let tasks: Vec<_> = (0..SINGLES + BATCHES)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 1..u64::MAX {
                    perform(&store, &write_of(task, number)).await.unwrap();
                    // One call, so that a kill leaves at most one cut line, the last.
                    let line = format!("\nacknowledged {task}\n");
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn single(task: u64) -> String {
    format!("single-{task}")
}

fn batched(task: u64, number: u64) -> String {
    format!("batch-{task}-{number:03}-{}", "x".repeat(100))
}

fn write_of(task: u64, number: u64) -> Vec<Change> {
    if task < SINGLES {
        return vec![add(single(task), 1)];
    }
    let mut write: Vec<Change> = (0..BATCH_PRODUCTS).map(|product| add(batched(task, product), 1)).collect();
    write.push(Change::Price(batched(task, 0), number));
    write
}

fn start(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", THIS_TEST, "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Kills the process a while after its first acknowledged write, and counts those it told of, by task.
fn kill_under_load(directory: &Path, after: Duration) -> BTreeMap<u64, u64> {
    let mut child = start(directory);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let first = lines.by_ref().find(|line| line.starts_with("acknowledged"));
    let killer = std::thread::spawn(move || {
        std::thread::sleep(after);
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "the writer ended by itself: {ended:?}");
        // On Unix this is SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let mut told = BTreeMap::new();
    for line in first.into_iter().chain(lines) {
        if let Some(task) = line.strip_prefix("acknowledged ").and_then(|task| task.parse().ok()) {
            *told.entry(task).or_default() += 1;
        }
    }
    killer.join().unwrap();
    told
}

/// Units of one task's product; nothing was written of a product that is unknown.
fn units(store: &Store, sku: &str) -> u64 {
    store.get(sku).map_or(0, |product| product.on_hand() as u64)
}

/// Holds what is there against what was there before and what was acknowledged since. Returns what is there.
fn check(store: &Store, before: &BTreeMap<u64, u64>, told: &BTreeMap<u64, u64>, round: u64) -> BTreeMap<u64, u64> {
    let mut found = BTreeMap::new();
    for task in 0..SINGLES + BATCHES {
        let sku = if task < SINGLES { single(task) } else { batched(task, 0) };
        let units_found = units(store, &sku);
        let sure = before.get(&task).unwrap_or(&0) + told.get(&task).unwrap_or(&0);
        // One more may have been durable, but not told of yet.
        assert!((sure..=sure + 1).contains(&units_found), "kill {round}: {sku} has {units_found}, {sure} were told");
        if task >= SINGLES {
            let half = (0..BATCH_PRODUCTS).find(|product| units(store, &batched(task, *product)) != units_found);
            assert_eq!(half, None, "kill {round}: half a batch");
        }
        found.insert(task, units_found);
    }
    found
}

/// Fills the journal with products that no task writes, and returns their number.
async fn fill(directory: &Path) -> u64 {
    let store = Store::builder().data_dir(directory).shards(16).open().await.unwrap();
    let write: Vec<_> = (0..2_000).map(|number| add(format!("filler-{number}-{}", "x".repeat(100)), 1)).collect();
    while store.status().journal_bytes < JOURNAL_BYTES {
        perform(&store, &write).await.unwrap();
    }
    store.close().await.unwrap();
    store.status().products
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_no_acknowledged_write_and_leaves_no_half_batch() {
    // This test starts itself as the process that it kills.
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return writer(directory).await;
    }
    let kills = std::env::var("STOCKMESH_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("data");
    let mut chance = Chance::new(u64::from(std::process::id()));
    let (mut before, mut told_total, mut folds, mut replica) = (BTreeMap::new(), 0, 0, None);
    let filled = fill(&directory).await;
    let mut journal_bytes = JOURNAL_BYTES;
    for round in 0..kills {
        let after = Duration::from_millis(chance.below(300));
        let path = directory.clone();
        let told = tokio::task::spawn_blocking(move || kill_under_load(&path, after)).await.unwrap();
        told_total += told.values().sum::<u64>();

        // A look first, which changes nothing; then it is opened like any other.
        let looked = inspect(&directory).unwrap();
        assert_eq!(looked.damage, Vec::<String>::new(), "kill {round}");
        let store = Store::builder().data_dir(&directory).shards(16).open().await.unwrap();
        before = check(&store, &before, &told, round);
        let status = store.status();
        let known: (_, Fingerprint) = (status.replica, status.fingerprint);
        assert_eq!(known, (looked.replica, looked.fingerprint), "kill {round}");
        assert!(status.products >= filled, "kill {round}");
        assert_eq!(status.replica, *replica.get_or_insert(status.replica), "kill {round}");
        folds += u32::from(status.journal_bytes < journal_bytes);
        journal_bytes = status.journal_bytes;
        store.close().await.unwrap();
    }
    println!("{kills} kills, {told_total} acknowledged writes, the journal was folded {folds} times or more");
    assert!(told_total > kills, "the writer must come to write");
}
