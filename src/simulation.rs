//! What a simulator of whole nodes sets, for the thread that it runs on: randomness from a seed, clocks that it shifts, and
//! the time that disks take. A thread on which nothing was begun is not concerned.
//!
//! Everything else of time is tokio's: a simulator runs the nodes in one runtime of one thread, whose clock is paused.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::distr::{Distribution, StandardUniform};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

/// Where simulated clocks begin, in milliseconds since 1970: late in 2026.
const BEGINNING_MS: i64 = 1_793_000_000_000;

thread_local! {
    /// Calls under way that turn a panic into an error.
    static GUARDED: Cell<u32> = const { Cell::new(0) };
    static RUN: RefCell<Option<Run>> = const { RefCell::new(None) };
}

#[derive(Debug)]
struct Run {
    chance: StdRng,
    begun: Instant,
    clocks: BTreeMap<u32, NodeClock>,
    disk_time: Duration,
    journal_bytes_max: Option<u64>,
}

/// A node's clock, from the last time it was set.
#[derive(Clone, Copy, Debug)]
struct NodeClock {
    since: Instant,
    /// What it showed then.
    then_ms: i64,
    /// By how many millionths it runs too fast.
    drift_millionths: i64,
}

impl NodeClock {
    fn now_ms(&self) -> i64 {
        let elapsed_ms = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        let drift_ms = elapsed_ms.saturating_mul(self.drift_millionths) / 1_000_000;
        self.then_ms.saturating_add(elapsed_ms).saturating_add(drift_ms)
    }
}

impl Run {
    fn clock(&mut self, node: u32) -> &mut NodeClock {
        let fresh = NodeClock { since: self.begun, then_ms: BEGINNING_MS, drift_millionths: 0 };
        self.clocks.entry(node).or_insert(fresh)
    }

    fn set_clock(&mut self, node: u32, set: impl FnOnce(&mut NodeClock)) {
        let clock = self.clock(node);
        (clock.then_ms, clock.since) = (clock.now_ms(), Instant::now());
        set(clock);
    }
}

fn with_run<T>(look: impl FnOnce(&mut Run) -> T) -> Option<T> {
    RUN.with(|run| run.borrow_mut().as_mut().map(look))
}

/// Begins a simulation on this thread, within a runtime whose clock is paused. Everything random follows from the seed.
pub fn begin(seed: u64) {
    let chance = StdRng::seed_from_u64(seed);
    let run = Run {
        chance,
        begun: Instant::now(),
        clocks: BTreeMap::new(),
        disk_time: Duration::ZERO,
        journal_bytes_max: None,
    };
    RUN.with(|present| *present.borrow_mut() = Some(run));
}

/// Ends the simulation of this thread.
pub fn end() {
    RUN.with(|run| *run.borrow_mut() = None);
}

/// Whether a simulation runs on this thread.
#[must_use]
pub fn is_running() -> bool {
    RUN.with(|run| run.borrow().is_some())
}

/// Sets a node's clock forward, or back.
pub fn shift_clock(node: u32, by_ms: i64) {
    with_run(|run| run.set_clock(node, |clock| clock.then_ms = clock.then_ms.saturating_add(by_ms)));
}

/// Lets a node's clock run too fast from now on, by so many millionths; below zero too slow.
pub fn drift_clock(node: u32, millionths: i64) {
    with_run(|run| run.set_clock(node, |clock| clock.drift_millionths = millionths));
}

/// What a node's clock shows, in milliseconds since 1970, if a simulation runs on this thread.
#[must_use]
pub fn wall_ms(node: u32) -> Option<u64> {
    with_run(|run| u64::try_from(run.clock(node).now_ms()).unwrap_or_default())
}

/// Lets all nodes fold their journals once these are longer than so many bytes, for runs too short to get to the usual length.
pub fn fold_beyond(journal_bytes_max: u64) {
    with_run(|run| run.journal_bytes_max = Some(journal_bytes_max));
}

/// See [`fold_beyond`].
pub(crate) fn journal_bytes_max() -> Option<u64> {
    with_run(|run| run.journal_bytes_max).flatten()
}

/// Whether a panic on this thread now would become an error: the storage engine's, on a damaged file.
#[must_use]
pub fn is_guarded() -> bool {
    GUARDED.get() > 0
}

/// A call under way that turns a panic into an error.
pub(crate) struct Guarded;

impl Guarded {
    pub(crate) fn begin() -> Self {
        GUARDED.set(GUARDED.get() + 1);
        Self
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        GUARDED.set(GUARDED.get().saturating_sub(1));
    }
}

/// Called by simulated disks: the commit that is under way takes so much longer.
pub fn spend_on_disk(time: Duration) {
    with_run(|run| run.disk_time = run.disk_time.saturating_add(time));
}

/// The time that disks took since it was last asked for.
pub(crate) fn take_disk_time() -> Duration {
    with_run(|run| std::mem::take(&mut run.disk_time)).unwrap_or_default()
}

pub(crate) fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    RUN.with(|run| match run.borrow_mut().as_mut() {
        Some(run) => run.chance.random(),
        None => rand::random(),
    })
}

pub(crate) fn random_range<T: SampleUniform>(range: impl SampleRange<T>) -> T {
    RUN.with(|run| match run.borrow_mut().as_mut() {
        Some(run) => run.chance.random_range(range),
        None => rand::random_range(range),
    })
}
