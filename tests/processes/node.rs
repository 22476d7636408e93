//! The process that is a node: told what to do line by line, it tells what it did.
//!
//! In: `load on`, `load off`, `status`, `cut ADDRESS…`, `heal`, `weather LOST DELAY_MS JITTER_MS`, `leave`, `close`.
//! Out: `open REPLICA ADDRESS`, `own` and `sold` for each write that was acknowledged, `status …`, `left`, `closed`.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stockmesh::{FaultyNetwork, Identity, LinkState, MemberState, Store, WriteError};

/// Set for the process; empty for the test that starts it.
pub(crate) const NAME: &str = "STOCKMESH_TEST_NODE_NAME";
pub(crate) const ROOT: &str = "STOCKMESH_TEST_NODE_ROOT";
pub(crate) const PEERS: &str = "STOCKMESH_TEST_NODE_PEERS";
/// Sold by all, so that rights move.
pub(crate) const SHARED: &str = "SHARED";
/// Products that a node alone counts in.
const OWN_PRODUCTS: u64 = 20;

/// One call, so that a kill leaves at most one cut line, the last.
fn tell(line: &str) {
    let _ = std::io::stdout().lock().write_all(format!("\n{line}\n").as_bytes());
}

pub(crate) fn own_prefix(name: &str) -> String {
    format!("own-{name}-")
}

async fn open(name: &str, network: &FaultyNetwork) -> Store {
    let root = PathBuf::from(std::env::var(ROOT).unwrap());
    let file = |end: &str| root.join(format!("{name}.{end}"));
    let identity = Identity::from_pem(root.join("ca.pem"), file("pem"), file("key")).unwrap();
    let mut builder = Store::builder()
        .data_dir(file("db"))
        .location(name)
        .shards(16)
        .identity(identity)
        .network(network)
        .reconcile_every(Duration::from_millis(500))
        .listen(std::fs::read_to_string(file("address")).unwrap().parse().unwrap());
    for peer in std::env::var(PEERS).unwrap_or_default().split_whitespace() {
        builder = builder.peer(peer);
    }
    builder.open().await.unwrap()
}

/// Counts in and sells for as long as it is told to.
async fn load(store: Store, name: String, is_on: Arc<AtomicBool>) {
    for number in 0_u64.. {
        if !is_on.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let own = store.product(&format!("{}{}", own_prefix(&name), number % OWN_PRODUCTS)).unwrap();
        match own.receive(1).await {
            Ok(()) => tell("own"),
            Err(WriteError::Closed | WriteError::Leaving) => return,
            Err(error) => panic!("{error}"),
        }
        let shared = store.product(SHARED).unwrap().at("all").unwrap();
        match shared.sell(1).deadline(Duration::from_millis(200)).await {
            Ok(()) => tell("sold"),
            Err(WriteError::Closed | WriteError::Leaving) => return,
            Err(WriteError::Insufficient { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn status(store: &Store) {
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
    tell(&format!(
        "status {} {links} {alive} {down} {left} {} {shared} {}",
        status.fingerprint,
        status.bytes_sent,
        owns.join(",")
    ));
}

/// Runs the node until it is told to end, or is killed.
pub(crate) async fn run(name: String) {
    let network = FaultyNetwork::default();
    let store = open(&name, &network).await;
    let is_on = Arc::new(AtomicBool::new(false));
    let loading = tokio::spawn(load(store.clone(), name.clone(), Arc::clone(&is_on)));
    tell(&format!("open {} {}", store.replica_id(), store.local_addr().unwrap()));
    let (lines, mut commands) = tokio::sync::mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = commands.recv().await {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["load", switch] => is_on.store(*switch == "on", Ordering::SeqCst),
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
                match store.leave().deadline(Duration::from_secs(60)).await {
                    Ok(left) => tell(&format!("left {}", left.units)),
                    Err(error) => tell(&format!("stayed {error}")),
                }
                return;
            }
            ["close"] => {
                is_on.store(false, Ordering::SeqCst);
                store.close().await.unwrap();
                loading.abort();
                tell("closed");
                return;
            }
            other => panic!("{other:?}"),
        }
    }
}
