//! What the models share: a node on disks that are known byte by byte, and the schedules.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, MaxSteps, Runner};
use stockmesh_proto::operation::{Operation, Outcome};
use stockmesh_proto::{ClusterId, Location, Quantity, ReplicaId, ShardCount, ShardIndex, Sku};

use crate::clock::WallClock;
use crate::commit::{Commits, Committer, Worker};
use crate::error::WriteError;
use crate::recovery::{Recovered, Wanted, recover};
use crate::storage::{Disk, Engine, FaultyDisk, Mark};
use crate::sync::choose;
use crate::table::Table;

/// Switches at which PCT takes the processor from a thread that could go on.
const PREEMPTIONS: usize = 3;
/// Steps of a schedule after which somebody turns in circles.
const STEPS_MAX: usize = 100_000;
/// The engine needs more than shuttle's 32 KiB.
const STACK_BYTES: usize = 1 << 20;

fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn number(name: &str, otherwise: u64) -> u64 {
    setting(name).map_or(otherwise, |value| value.parse().unwrap())
}

/// Runs a model under many schedules, or again under the one that it failed under.
pub(super) fn explore(name: &str, model: fn()) {
    if let Some(schedule) = setting("STOCKMESH_SCHEDULE") {
        shuttle::replay(model, &schedule);
        return;
    }
    let schedules = usize::try_from(number("STOCKMESH_SCHEDULES", 1000).max(1)).unwrap();
    let seed = number("STOCKMESH_SEED", 1);
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    config.silence_warnings = true;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    let begun = Instant::now();
    let at_random = RandomScheduler::new_from_seed(seed, schedules);
    run(name, "at random", model, |model| Runner::new(at_random, config.clone()).run(model));
    let by_pct = PctScheduler::new_from_seed(seed, PREEMPTIONS, schedules);
    run(name, "by PCT", model, |model| Runner::new(by_pct, config).run(model));
    let seconds = begun.elapsed().as_secs_f64();
    println!("{name}: {schedules} schedules at random and {schedules} by PCT in {seconds:.1} s");
}

/// Runs a model, and says after how many schedules it failed.
fn run(name: &str, how: &str, model: fn(), runner: impl FnOnce(Box<dyn Fn() + Send + Sync>) -> usize) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let model = Box::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        model();
    });
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| runner(model))) {
        println!("{name}: RED in schedule {} {how}", count.load(Ordering::SeqCst));
        resume_unwind(panic);
    }
}

/// A disk at whose syncs others may go on.
#[derive(Debug)]
struct SharedDisk {
    disk: FaultyDisk,
    open: Arc<AtomicBool>,
}

impl Drop for SharedDisk {
    fn drop(&mut self) {
        self.open.store(false, Ordering::SeqCst);
    }
}

impl Disk for SharedDisk {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        self.disk.set_len(length_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        choose();
        let synced = self.disk.sync();
        choose();
        synced
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write(offset, data)
    }
}

/// A committer over its table, and the disks under it.
pub(super) struct Node {
    pub(super) table: Arc<Table>,
    pub(super) committer: Committer,
    pub(super) disks: Disks,
}

/// What a node lies on.
#[derive(Clone)]
pub(super) struct Disks {
    pub(super) store: FaultyDisk,
    mark: FaultyDisk,
    open: Arc<AtomicBool>,
}

fn wanted() -> Wanted {
    Wanted {
        cluster: ClusterId::new("models").unwrap(),
        shards: ShardCount::new(SHARDS).unwrap(),
        location: here(),
        references: (u64::MAX, usize::MAX),
        restored: false,
    }
}

/// A new store, which each model begins with.
static NEW: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let (store, mark) = (FaultyDisk::new(), FaultyDisk::new());
    let engine = Engine::create(Box::new(store.clone()), Box::new(mark.clone()), Mark::default()).unwrap();
    drop(recover(engine, &wanted()).unwrap());
    (store.kill(), mark.kill())
});

const SHARDS: u32 = 2;

impl Node {
    pub(super) fn open() -> (Self, Commits) {
        let (store, mark) = (FaultyDisk::from_image(NEW.0.clone()), FaultyDisk::from_image(NEW.1.clone()));
        let open = Arc::new(AtomicBool::new(true));
        let shared = SharedDisk { disk: store.clone(), open: Arc::clone(&open) };
        let engine = Engine::open(Box::new(shared), Box::new(mark.clone())).unwrap();
        let Recovered { table, engine, clock, settings, books, .. } = recover(engine, &wanted()).unwrap();
        let rest = ((settings.former, settings.retired), books, Duration::MAX);
        let start = Worker::start(Arc::clone(&table), (engine, None), clock, (WallClock::default(), 60_000), rest);
        let (committer, commits) = start.unwrap();
        (Self { table, committer, disks: Disks { store, mark, open } }, commits)
    }

    pub(super) fn close(&self) {
        block_on(self.committer.close());
    }
}

impl Disks {
    /// The table as it would be found if power were lost now.
    pub(super) fn durable(&self) -> Table {
        Arc::into_inner(self.recovered().table).unwrap()
    }

    /// The id under which the store would go on.
    pub(super) fn durable_id(&self) -> ReplicaId {
        self.recovered().settings.replica
    }

    fn recovered(&self) -> Recovered {
        // What was not synced is kept, lost or torn: always by the same rule, so that a schedule can be played again.
        let seed = self.store.operations();
        let (store, mark) = (self.store.crash(seed), self.mark.crash(seed));
        let disks = (Box::new(FaultyDisk::from_image(store)), Box::new(FaultyDisk::from_image(mark)));
        recover(Engine::open(disks.0, disks.1).unwrap(), &wanted()).unwrap()
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }
}

pub(super) fn here() -> Location {
    Location::new("here").unwrap()
}

/// A product of the shard that is named.
pub(super) fn sku(shard: u16) -> Sku {
    let count = ShardCount::new(SHARDS).unwrap();
    let candidates = (0..).map(|number| Sku::new(&format!("{number}")).unwrap());
    candidates.into_iter().find(|sku| count.shard_of(sku) == ShardIndex(shard)).unwrap()
}

pub(super) fn receive(sku: &Sku, units: u64) -> Operation {
    Operation::Receive { sku: sku.clone(), location: here(), units: Quantity::new(units).unwrap() }
}

pub(super) fn write(committer: &Committer, operations: Vec<Operation>) -> Result<Vec<Outcome>, WriteError> {
    block_on(committer.write(operations.into()))
}

pub(super) fn units(table: &Table, sku: &Sku) -> i128 {
    table.get(sku.as_str()).map_or(0, |product| product.on_hand())
}

/// The id under which others write.
pub(super) fn elsewhere() -> ReplicaId {
    ReplicaId::from_random(7)
}
