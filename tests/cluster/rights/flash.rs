//! A flash sale under faults: partitions, and a node that is killed in the middle. Nothing is sold twice, and all is sold.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stockmesh::certificates::Issued;
use stockmesh::{Builder, DemandShare, Identity, Reason, Store, WriteError};
use tokio::task::JoinSet;

use super::{MUG, assert_shared_out, available, giver_and_asker, is_insufficient, mug, sell_in_time, sold_by_ledger};
use crate::support::{
    Mesh, SHARDS, address, dial, full_mesh, links_up, on_hand, wait_converged, wait_linked, wait_until,
};

const THIS_TEST: &str = "rights::flash::a_flash_sale_under_faults_sells_every_unit_once";
const DIRECTORY: &str = "STOCKMESH_TEST_SELLER_DIRECTORY";
const PEERS: &str = "STOCKMESH_TEST_SELLER_PEERS";
const UNITS: u64 = 1_000;
/// At each node.
const SELLERS: u64 = 20;
/// The process that is killed stops by itself after so many sales, so that there is something left for the others.
const SOLD_BY_PROCESS_MAX: u64 = 200;

fn read_identity(directory: &Path) -> Identity {
    let part = |name: &str| std::fs::read(directory.join(name)).unwrap();
    Identity::from_pem_bytes(&part("authority"), &part("certificate"), &part("key")).unwrap()
}

/// The node that is killed, in its process and afterwards.
fn fifth(directory: &Path) -> Builder {
    let builder = Store::builder().data_dir(directory.join("data")).location("fifth").shards(SHARDS);
    let builder = builder.identity(read_identity(directory)).listen("127.0.0.1:0".parse().unwrap());
    builder.reconcile_every(Duration::from_millis(200))
}

/// The process: sells single units at many tasks, and prints each sale that was acknowledged.
async fn sell_until_killed(directory: &Path, peers: &str) {
    let store = peers.split(' ').fold(fifth(directory), Builder::peer).open().await.unwrap();
    wait_until("the stock arrives", || on_hand(&store, MUG) > 0).await;
    let left = Arc::new(AtomicU64::new(SOLD_BY_PROCESS_MAX));
    let mut sellers = JoinSet::new();
    for _ in 0..SELLERS {
        let (store, left) = (store.clone(), Arc::clone(&left));
        sellers.spawn(async move {
            let take = |left: u64| left.checked_sub(1);
            while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok() {
                match mug(&store).sell(1).await {
                    Ok(()) => println!("\nsold"),
                    Err(_) => _ = left.fetch_add(1, Ordering::SeqCst),
                }
            }
        });
    }
    sellers.join_all().await;
    std::future::pending::<()>().await;
}

/// The process from outside. It is killed at the end at the latest.
struct Process {
    child: Child,
    reading: Option<JoinHandle<()>>,
    sold: Arc<AtomicU64>,
}

impl Process {
    fn start(directory: &Path, stores: &[Store]) -> Self {
        let peers: Vec<String> = stores.iter().map(|store| address(store).to_string()).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", THIS_TEST, "--nocapture"])
            .env(DIRECTORY, directory)
            .env(PEERS, peers.join(" "))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let sold = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&sold);
        let reading = std::thread::spawn(move || {
            lines.filter(|line| line == "sold").for_each(|_| _ = counted.fetch_add(1, Ordering::SeqCst));
        });
        Self { child, reading: Some(reading), sold }
    }

    /// Waits until so many of its sales were acknowledged.
    async fn wait_sold(&self, units: u64) {
        wait_until("the process sells", || self.sold.load(Ordering::SeqCst) >= units).await;
    }

    /// On Unix this is SIGKILL. Returns how many sales were acknowledged.
    fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.reading.take().unwrap().join().unwrap();
        self.sold.load(Ordering::SeqCst)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sellers at several nodes, who together may sell as much as they are let.
#[derive(Clone, Default)]
struct Sellers {
    allowed: Arc<AtomicU64>,
    sold: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Sellers {
    fn start(&self, stores: &[Store], seed: u64) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for (store, number) in stores.iter().flat_map(|store| (0..SELLERS).map(move |number| (store.clone(), number))) {
            let (sellers, mut random) = (self.clone(), StdRng::seed_from_u64(seed + number));
            tasks.spawn(async move {
                while !sellers.over.load(Ordering::SeqCst) {
                    sellers.try_once(&store, random.random_range(1..=3)).await;
                    tokio::time::sleep(Duration::from_millis(random.random_range(1..10))).await;
                }
            });
        }
        tasks
    }

    async fn try_once(&self, store: &Store, units: u64) {
        let take = |allowed: u64| allowed.checked_sub(units);
        if self.allowed.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            return;
        }
        match mug(store).sell(units).await {
            Ok(()) => {
                let sold = self.sold.fetch_add(units, Ordering::SeqCst) + units;
                assert!(sold <= UNITS, "{sold} units were sold of {UNITS}");
            }
            Err(WriteError::Insufficient { .. }) => _ = self.allowed.fetch_add(units, Ordering::SeqCst),
            Err(error) => panic!("a sale failed: {error}"),
        }
    }

    /// Lets them sell so many more, and waits until they have, but for what no single sale may take.
    async fn sell(&self, more: u64, what: &str) {
        let target = self.sold.load(Ordering::SeqCst) + more;
        self.allowed.fetch_add(more, Ordering::SeqCst);
        wait_until(what, || self.sold.load(Ordering::SeqCst) + 3 >= target).await;
    }

    async fn stop(&self, tasks: JoinSet<()>) -> u64 {
        self.over.store(true, Ordering::SeqCst);
        tasks.join_all().await;
        self.sold.load(Ordering::SeqCst)
    }
}

/// Partitions and a kill in the middle of the sale. Returns what was acknowledged in this process and in the other.
async fn sell_under_faults(stores: &[Store], directory: &Path, seed: u64) -> (u64, u64) {
    let process = Process::start(directory, stores);
    let sellers = Sellers::default();
    let tasks = sellers.start(stores, seed);
    sellers.sell(100, "all sell").await;
    process.wait_sold(20).await;

    stores[3].go_offline();
    sellers.sell(100, "one is cut off").await;
    stores[3].go_online();
    process.wait_sold(60).await;
    let by_process = process.kill();
    sellers.sell(60, "one is dead").await;

    // Two on either side: those who have most of the stock, and the others with what they got.
    stores[..2].iter().for_each(Store::go_offline);
    sellers.sell(100, "two are cut off").await;
    stores[..2].iter().for_each(Store::go_online);
    sellers.sell(60, "all are back").await;
    (sellers.stop(tasks).await, by_process)
}

/// Five nodes sell a thousand units with twenty sellers each, through two partitions and the death of one of them. What
/// was acknowledged never exceeds the stock; a sale that was in flight at the kill was made or not; once all are back,
/// all that is left can be sold at any one node, and then a thousand units were sold, not one more or less.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flash_sale_under_faults_sells_every_unit_once() {
    // This test starts itself as the process that it kills.
    if let Ok(directory) = std::env::var(DIRECTORY) {
        return sell_until_killed(Path::new(&directory), &std::env::var(PEERS).unwrap()).await;
    }
    let seed = u64::from(std::process::id());
    let (mesh, root) = (Mesh::new(), tempfile::tempdir().unwrap());
    let mut stores = Vec::new();
    for name in ["first", "second", "third", "fourth"] {
        // No node gets rights for long, so that those that die with one leave enough to the others.
        let builder = mesh.builder(name).data_dir(root.path().join(name));
        stores.push(builder.grant_policy(DemandShare::with_horizon_ms(30_000)).open().await.unwrap());
    }
    full_mesh(&stores);
    let Issued { certificate_pem, key_pem } = mesh.issue("fifth");
    for (name, pem) in [("authority", mesh.authority_pem()), ("certificate", &*certificate_pem), ("key", &*key_pem)] {
        std::fs::write(root.path().join(name), pem).unwrap();
    }
    mug(&stores[0]).receive(600).await.unwrap();
    mug(&stores[1]).receive(400).await.unwrap();
    wait_converged(&stores).await;

    let (here, by_process) = sell_under_faults(&stores, root.path(), seed).await;
    let reopened = fifth(root.path()).open().await.unwrap();
    stores.iter().for_each(|store| dial(&reopened, store));
    stores.push(reopened);
    wait_linked(&stores, 4).await;
    wait_converged(&stores).await;
    let left = available(&stores[0]);
    let in_flight = i128::from(UNITS) - i128::from(here + by_process) - left;
    assert!((0..=i128::from(SELLERS)).contains(&in_flight), "{here} + {by_process} were sold, {left} are left");
    assert_eq!(i128::from(sold_by_ledger(&stores[4]).await), i128::from(by_process) + in_flight);

    let chosen = seed as usize % stores.len();
    sell_in_time(&stores[chosen], left as u64).await;
    wait_converged(&stores).await;
    let mut sold = 0;
    for store in &stores {
        assert_eq!((available(store), on_hand(store, MUG)), (0, 0), "seed {seed}");
        assert!(is_insufficient(&mug(store).sell(1).await));
        assert_eq!(store.status().former_replicas, []);
        assert_shared_out(store);
        sold += sold_by_ledger(store).await;
    }
    assert_eq!(sold, UNITS as i64, "seed {seed}");
}

/// The same in a partition with adjustments, each after a look at what is available: both sides sell all of it. So the
/// check above bites, and rights are what keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_before_each_sale_does_not_keep_two_sides_from_selling_the_same_units() {
    let mesh = Mesh::new();
    let (stores, _) = giver_and_asker(&mesh, 50).await;
    stores[1].go_offline();
    wait_until("they are apart", || stores.iter().all(|store| links_up(store) == 0)).await;
    for (store, sells) in stores.iter().zip([50, 0]) {
        let mut sold = 0;
        while !is_insufficient(&mug(store).sell(1).await) {
            sold += 1;
            assert!(sold <= 50);
        }
        assert_eq!(sold, sells, "within rights");
    }
    mug(&stores[0]).receive(50).await.unwrap();
    stores[1].go_online();
    wait_converged(&stores).await;

    stores[1].go_offline();
    wait_until("they are apart again", || stores.iter().all(|store| links_up(store) == 0)).await;
    let mut adjusted = 0;
    for store in &stores {
        while available(store) > 0 {
            mug(store).adjust(-1, Reason::Sold).await.unwrap();
            adjusted += 1;
        }
    }
    stores[1].go_online();
    wait_converged(&stores).await;
    assert_eq!(adjusted, 100, "both sides sold all 50");
    for store in &stores {
        let view = store.get(MUG).unwrap();
        assert_eq!((available(store), view.oversold()), (-50, 50));
    }
}
