//! References over restarts and kills: a request that was acknowledged is never done again, until it may be forgotten.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use stockmesh::{Builder, MovementKind, Store};

const THIS_TEST: &str = "remembered::no_request_is_done_twice_when_its_node_is_killed";
const DIRECTORY: &str = "STOCKMESH_TEST_ORDERS_DIRECTORY";
const HOUR: Duration = Duration::from_secs(3_600);
/// Tasks of the process that is killed.
const TASKS: u64 = 4;

fn at(path: &Path) -> Builder {
    Store::builder().data_dir(path).shards(4)
}

fn later(path: &Path, later: Duration) -> Builder {
    at(path).clock_offset_ms(later.as_millis() as i64)
}

async fn order(store: &Store, name: &str) {
    store.product("MUG").unwrap().reference(name).unwrap().try_sell(1).await.unwrap();
}

async fn received(builder: Builder, units: u64) -> Store {
    let store = builder.open().await.unwrap();
    store.product("MUG").unwrap().receive(units).await.unwrap();
    store
}

fn on_hand(store: &Store) -> i128 {
    store.get("MUG").unwrap().on_hand()
}

/// The references in the ledger, oldest first.
async fn in_ledger(store: &Store) -> Vec<String> {
    let movements = store.ledger().collect().await.unwrap();
    let named = movements.iter().filter_map(|movement| movement.reference.as_ref());
    named.map(|reference| reference.as_str().to_owned()).collect()
}

/// The process: makes orders, and prints each that was acknowledged.
async fn order_until_killed(path: &Path) {
    let store = at(path).open().await.unwrap();
    let begun = store.status().last_batch;
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for number in 0.. {
                    let name = format!("order-{begun}-{task}-{number}");
                    order(&store, &name).await;
                    std::io::stdout().lock().write_all(format!("\ndone {name}\n").as_bytes()).unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

/// Runs the process and kills it. Returns the orders that were acknowledged.
fn kill_after(path: &Path, orders: usize) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", THIS_TEST, "--nocapture"])
        .env(DIRECTORY, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut done = lines.filter_map(|line| line.strip_prefix("done ").map(str::to_owned));
    let mut told: Vec<String> = done.by_ref().take(orders).collect();
    // On Unix this is SIGKILL.
    child.kill().unwrap();
    child.wait().unwrap();
    told.extend(done);
    told
}

/// A node that makes orders is killed. Each order that was acknowledged, made again, changes nothing; those in flight were
/// made or not, and made again they are made once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_done_twice_when_its_node_is_killed() {
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return order_until_killed(Path::new(&directory)).await;
    }
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    received(at(&path), 1_000_000).await.close().await.unwrap();
    let mut all = Vec::new();
    for orders in [1, 40, 100] {
        let killed = path.clone();
        let told = tokio::task::spawn_blocking(move || kill_after(&killed, orders)).await.unwrap();
        assert!(told.len() >= orders);
        all.extend(told);
        let store = at(&path).open().await.unwrap();
        let before = on_hand(&store);
        for name in &all {
            order(&store, name).await;
        }
        assert_eq!(on_hand(&store), before, "an order was made twice");
        let made = in_ledger(&store).await;
        assert_eq!(i128::try_from(made.len()).unwrap(), 1_000_000 - before);
        let in_flight: Vec<String> = made.iter().filter(|name| !all.contains(name)).cloned().collect();
        assert!(in_flight.len() <= TASKS as usize, "{in_flight:?}");
        for name in &in_flight {
            order(&store, name).await;
        }
        assert_eq!(on_hand(&store), before, "an order in flight was made twice");
        all.extend(in_flight);
        store.close().await.unwrap();
    }
}

/// No more references are remembered than the settings say, the latest, also after a restart.
#[tokio::test]
async fn references_are_forgotten_by_their_number() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let store = received(at(&path).references_max(3), 100).await;
    for name in ["one", "two", "three", "four", "five"] {
        order(&store, name).await;
    }
    assert_eq!(on_hand(&store), 95);
    store.close().await.unwrap();
    let store = at(&path).references_max(3).open().await.unwrap();
    for name in ["five", "four", "three"] {
        order(&store, name).await;
    }
    assert_eq!(on_hand(&store), 95);
    order(&store, "one").await;
    assert_eq!(on_hand(&store), 94, "it was forgotten");
    order(&store, "three").await;
    assert_eq!(on_hand(&store), 93, "it was the oldest then");
    order(&store, "five").await;
    assert_eq!(on_hand(&store), 93);
    store.close().await.unwrap();
}

/// References are forgotten when their time is over, not before, and the time goes on while the store is closed.
#[tokio::test]
async fn references_are_forgotten_by_their_age() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let window = |builder: Builder| builder.reference_window(HOUR);
    let store = received(window(at(&path)), 100).await;
    order(&store, "early").await;
    store.close().await.unwrap();
    let store = window(later(&path, HOUR / 2)).open().await.unwrap();
    order(&store, "middle").await;
    order(&store, "early").await;
    assert_eq!(on_hand(&store), 98);
    store.close().await.unwrap();
    let store = window(later(&path, HOUR + HOUR / 4)).open().await.unwrap();
    order(&store, "late").await;
    order(&store, "middle").await;
    assert_eq!(on_hand(&store), 97);
    order(&store, "early").await;
    assert_eq!(on_hand(&store), 96, "it was forgotten, and is a new request");
    store.close().await.unwrap();
}

/// The ledger drops what is older than its retention, but never an entry that is needed to remember a reference.
#[tokio::test]
async fn the_ledger_is_trimmed_but_keeps_what_references_need() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let kept = |builder: Builder| builder.ledger_retention(HOUR);
    let store = received(kept(at(&path)), 100).await;
    let mug = store.product("MUG").unwrap();
    mug.try_sell(1).await.unwrap();
    order(&store, "needed").await;
    mug.try_sell(2).await.unwrap();
    store.close().await.unwrap();
    for round in 0..3_u64 {
        let store = kept(later(&path, 2 * HOUR)).open().await.unwrap();
        store.product("MUG").unwrap().try_sell(1).await.unwrap();
        order(&store, "needed").await;
        assert_eq!(on_hand(&store), 95 - i128::from(round), "the reference is remembered");
        let kinds: Vec<_> = store.ledger().collect().await.unwrap().into_iter().map(|movement| movement.kind).collect();
        assert_eq!(kinds, vec![MovementKind::Sold; 3 + round as usize], "without the receipt and the first sale");
        assert_eq!(in_ledger(&store).await, ["needed"]);
        store.close().await.unwrap();
    }
    // Once the reference may go, its entry and those behind it may go too.
    let store = kept(later(&path, 10 * 24 * HOUR)).open().await.unwrap();
    order(&store, "other").await;
    store.close().await.unwrap();
    let store = kept(later(&path, 10 * 24 * HOUR)).open().await.unwrap();
    store.product("MUG").unwrap().try_sell(1).await.unwrap();
    assert_eq!(in_ledger(&store).await, ["other"]);
    assert_eq!(store.ledger().collect().await.unwrap().len(), 2);
    store.close().await.unwrap();
}
