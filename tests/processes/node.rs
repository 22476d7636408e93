//! The process that is a node: told what to do line by line, it tells what it did.
//!
//! In: `load on`, `load off`, `status`, `cut ADDRESS…`, `heal`, `weather LOST DELAY_MS JITTER_MS`, `bulk WRITES`,
//! `leave`, `close`, `abandon`.
//! Out: `open REPLICA ADDRESS`; for each write `own UNITS` or `sold UNITS` if it was acknowledged, the same after `unsure` if the
//! disk failed under it, `refused` if it had failed before; `idle` once no write is under way after
//! `load off`; `status …`, `left`, `closed`, `abandoned`.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use stockmesh::{Builder, Durability, FaultyNetwork, Identity, LinkState, MemberState, Store, WriteError};
use tokio::sync::Mutex;
use tokio::sync::mpsc::Receiver;

/// Set for the process; empty for the test that starts it.
pub(crate) const NAME: &str = "STOCKMESH_TEST_NODE_NAME";
pub(crate) const ROOT: &str = "STOCKMESH_TEST_NODE_ROOT";
pub(crate) const PEERS: &str = "STOCKMESH_TEST_NODE_PEERS";
/// Set if the node is to have a socket that loses and delays, and not the kernel's alone.
pub(crate) const SEAM: &str = "STOCKMESH_TEST_NODE_SEAM";
/// Sold by all, so that rights move.
pub(crate) const SHARED: &str = "SHARED";
/// Products that a node alone counts in.
const OWN_PRODUCTS: u64 = 20;
/// Products of a write that is to take much room.
const BULK_PRODUCTS: u64 = 200;

/// One call, so that a kill leaves at most one cut line, the last.
pub(crate) fn tell(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("\n{line}\n").as_bytes());
}

pub(crate) fn own_prefix(name: &str) -> String {
    format!("own-{name}-")
}

/// The settings of a node with a certificate and an address of its own.
pub(crate) fn settings(name: &str) -> Builder {
    let root = PathBuf::from(std::env::var(ROOT).unwrap());
    let file = |end: &str| root.join(format!("{name}.{end}"));
    let identity = Identity::from_pem(root.join("ca.pem"), file("pem"), file("key")).unwrap();
    let mut builder = Store::builder()
        .data_dir(file("db"))
        .location(name)
        .shards(16)
        .identity(identity)
        .listen(std::fs::read_to_string(file("address")).unwrap().parse().unwrap());
    for peer in std::env::var(PEERS).unwrap_or_default().split_whitespace() {
        builder = builder.peer(peer);
    }
    builder
}

async fn open(name: &str, network: &FaultyNetwork) -> Store {
    let mut builder = settings(name).reconcile_every(Duration::from_millis(500));
    if std::env::var(SEAM).is_ok() {
        builder = builder.network(network);
    }
    builder.open().await.unwrap()
}

/// Returns false if the node takes no more writes, since it ends.
fn tell_answer(kind: &str, units: u64, answer: Result<(), WriteError>) -> bool {
    match answer {
        Ok(()) => tell(&format!("{kind} {units}")),
        Err(WriteError::Closed | WriteError::Leaving) => return false,
        Err(WriteError::Insufficient { .. }) if kind == "sold" => {}
        Err(WriteError::Indeterminate { .. }) => tell(&format!("unsure {kind} {units}")),
        Err(WriteError::Poisoned { .. }) => tell("refused"),
        // A panic would end this task alone, and nobody would hear of it.
        Err(error) => {
            eprintln!("a write failed: {error}");
            std::process::exit(1);
        }
    }
    true
}

/// Counts in much at a time, as often as it is told to.
async fn bulk(store: Store, name: String, left: Arc<AtomicU64>) {
    for number in 0_u64.. {
        if left.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let mut batch = store.batch();
        for product in 0..BULK_PRODUCTS {
            let sku = format!("{}{number}-{product}-{}", own_prefix(&name), "x".repeat(80));
            batch = batch.receive(&sku, 1).unwrap();
        }
        if !tell_answer("own", BULK_PRODUCTS, batch.commit().await.map(drop)) {
            return;
        }
        // It may have been told otherwise meanwhile.
        let _ = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Counts in and sells for as long as it is told to; holds the lock meanwhile.
async fn load(store: Store, name: String, is_on: Arc<AtomicBool>, at_work: Arc<Mutex<()>>) {
    for number in 0_u64.. {
        let working = at_work.lock().await;
        if !is_on.load(Ordering::SeqCst) {
            drop(working);
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let own = store.product(&format!("{}{}", own_prefix(&name), number % OWN_PRODUCTS)).unwrap();
        if !tell_answer("own", 1, own.receive(1).await) {
            return;
        }
        let shared = store.product(SHARED).unwrap().at("all").unwrap();
        if !tell_answer("sold", 1, shared.sell(1).deadline(Duration::from_millis(200)).await) {
            return;
        }
        drop(working);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) fn status(store: &Store) {
    let status = store.status();
    let count = |state: MemberState| store.members().iter().filter(|member| member.state == state).count();
    let links = status.peers.iter().filter(|peer| peer.state == LinkState::Up).count();
    let (alive, down, left) = (count(MemberState::Alive), count(MemberState::Down), count(MemberState::Left));
    let shared = store.get(SHARED).map(|view| view.on_hand()).unwrap_or_default();
    let mut owns = std::collections::BTreeMap::<String, i128>::new();
    for product in store.query().prefix("own-").iter() {
        let name = product.sku().as_str().split('-').nth(1).unwrap_or_default().to_owned();
        *owns.entry(name).or_default() += product.on_hand();
    }
    let owns: Vec<String> = owns.into_iter().map(|(name, units)| format!("{name}={units}")).collect();
    let members = store.members();
    let generations = members.iter().map(|member| format!("{}={}", member.location, member.generation));
    let generations: Vec<String> = generations.collect();
    // One word.
    let refused: Vec<String> = status.refusals.iter().map(|refused| refused.reason.replace(' ', "_")).collect();
    let refused = format!("[{}]", refused.join("|"));
    tell(&format!(
        "status {} {links} {alive} {down} {left} {} {shared} {} {} [{}] [{}] {refused}",
        status.fingerprint,
        status.bytes_sent,
        status.former_replicas.len(),
        matches!(status.durability, Durability::Poisoned { .. }),
        generations.join(","),
        owns.join(",")
    ));
}

/// What it is told to do, line by line.
pub(crate) fn commands() -> Receiver<String> {
    let (lines, commands) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    commands
}

/// Runs the node until it is told to end, or is killed.
pub(crate) async fn run(name: String) {
    let network = FaultyNetwork::default();
    let store = open(&name, &network).await;
    let is_on = Arc::new(AtomicBool::new(false));
    let at_work = Arc::new(Mutex::new(()));
    let loading = tokio::spawn(load(store.clone(), name.clone(), Arc::clone(&is_on), Arc::clone(&at_work)));
    let bulks = Arc::new(AtomicU64::new(0));
    tokio::spawn(bulk(store.clone(), name.clone(), Arc::clone(&bulks)));
    tell(&format!("open {} {}", store.replica_id(), store.local_addr().unwrap()));
    let mut commands = commands();
    while let Some(line) = commands.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["load", "on"] => is_on.store(true, Ordering::SeqCst),
            ["load", "off"] => {
                is_on.store(false, Ordering::SeqCst);
                drop(at_work.lock().await);
                tell("idle");
            }
            ["bulk", writes] => bulks.store(writes.parse().unwrap(), Ordering::SeqCst),
            ["stock", units] => {
                let shared = store.product(SHARED).unwrap().at("all").unwrap();
                shared.receive(units.parse().unwrap()).await.unwrap();
                tell("stocked");
            }
            ["status"] => status(&store),
            ["cut", addresses @ ..] => {
                network.cut_off(addresses.iter().map(|address| address.parse::<SocketAddr>().unwrap()));
            }
            ["heal"] => network.cut_off([]),
            ["weather", lost, delay_ms, jitter_ms] => {
                network.lose_per_mille(lost.parse().unwrap());
                let ms = |text: &str| Duration::from_millis(text.parse().unwrap());
                network.delay(ms(delay_ms), ms(jitter_ms));
            }
            ["leave"] => {
                let left = store.leave().deadline(Duration::from_secs(60)).await;
                // What was acknowledged last is told first.
                drop(at_work.lock().await);
                match left {
                    Ok(left) => tell(&format!("left {}", left.units)),
                    Err(error) => tell(&format!("stayed {error}")),
                }
                return;
            }
            ["close"] => {
                is_on.store(false, Ordering::SeqCst);
                store.close().await.unwrap();
                drop(at_work.lock().await);
                loading.abort();
                tell("closed");
                return;
            }
            ["abandon"] => {
                drop(store.close().await);
                tell("abandoned");
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}
