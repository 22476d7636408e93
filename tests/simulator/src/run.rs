//! One run: a world, from its first node to its last check.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use stockmesh::simulation;

use crate::checkers::{self, Broken, Checker};
use crate::plan::{Action, Directory, Plan, Size};
use crate::stuck::Watchdog;
use crate::trace::Trace;
use crate::world::{World, unopened};

/// How often the checkers look while there are faults.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long callers may take to hear of their writes once the faults have ended.
const CALLERS_TIME_MAX: Duration = Duration::from_secs(60);
/// What became of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What was to happen, in one line.
    pub plan: String,
    /// Equal in every run of the same seed, in any process.
    pub hash: u64,
    /// Events and datagrams that were noted.
    pub counts: (u64, u64),
    /// Writes that were done, refused, and of which nobody knows.
    pub writes: [usize; 3],
    /// How long it took in simulated time.
    pub simulated: Duration,
    /// The most memory that it took, in bytes.
    pub bytes_max: u64,
    /// What did not hold, if anything.
    pub broken: Option<Broken>,
    /// What happened, if lines were asked for.
    pub lines: Vec<String>,
}

thread_local! {
    static KEEP_DATAGRAMS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Notes panics, also of tasks that nobody waits for; not those of the storage engine that become errors. For the process; to
/// be called once.
pub fn note_panics() {
    std::panic::set_hook(Box::new(|info| {
        if !simulation::is_guarded() {
            PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string()));
        }
    }));
}

/// From now on the traces of this thread have a line for each datagram.
pub fn keep_datagrams() {
    KEEP_DATAGRAMS.with(|keep| keep.set(true));
}

/// Runs a seed. Of the plan's events only those are carried out that `keep` names, all without it.
///
/// # Panics
/// If the system gives no runtime.
#[must_use]
pub fn run(seed: u64, size: Size, keep_lines: bool, keep: Option<&BTreeSet<usize>>) -> Report {
    let mut plan = Plan::generate(seed, size);
    if let Some(keep) = keep {
        let events = std::mem::take(&mut plan.events);
        let kept = events.into_iter().enumerate().filter(|(place, _)| keep.contains(place));
        plan.events = kept.map(|(_, event)| event).collect();
    }
    run_plan(plan, keep_lines)
}

/// Runs a seed twice. Both must be the same run, or no failure could be played again.
///
/// # Panics
/// If the system gives no runtime.
#[must_use]
pub fn run_twice(seed: u64, size: Size) -> Report {
    let first = run(seed, size, false, None);
    if first.broken.is_some() {
        return first;
    }
    let mut second = run(seed, size, false, None);
    if second.broken.is_none() && second.hash != first.hash {
        let what = format!("the hash is {:016x}, and was {:016x} before", second.hash, first.hash);
        second.broken = Some(Broken { checker: "repeatable", what });
    }
    second
}

/// Runs a plan.
///
/// # Panics
/// If the system gives no runtime.
#[must_use]
pub fn run_plan(plan: Plan, keep_lines: bool) -> Report {
    let (seed, told) = (plan.seed, plan.to_string());
    PANIC.with(|panic| *panic.borrow_mut() = None);
    #[expect(clippy::expect_used, reason = "nothing can be simulated without one")]
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without threads");
    let (nodes, links) = (plan.numbers.len(), plan.links);
    let mut report = Report {
        seed,
        plan: told,
        hash: 0,
        counts: (0, 0),
        writes: [0; 3],
        simulated: Duration::ZERO,
        bytes_max: 0,
        broken: None,
        lines: Vec::new(),
    };
    let watchdog = Watchdog::start(seed);
    let memory = allocation_counter::measure(|| {
        let simulated = AssertUnwindSafe(|| {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = simulate(plan, keep_lines, &mut report) => {}
                    () = watchdog.teller() => {}
                }
            });
        });
        let is_panic = std::panic::catch_unwind(simulated).is_err();
        simulation::end();
        drop(runtime);
        let panic = PANIC.with(|panic| panic.borrow_mut().take());
        if is_panic || panic.is_some() {
            report.broken = Some(Broken { checker: "no panic", what: panic.unwrap_or_default() });
        }
    });
    report.bytes_max = memory.bytes_max;
    if report.broken.is_none() && !keep_lines {
        let bounded = checkers::check_memory(memory.bytes_max, nodes, links);
        report.broken = bounded.and(checkers::check_memory_left(memory.bytes_current)).err();
    }
    report
}

async fn simulate(plan: Plan, keep_lines: bool, report: &mut Report) {
    simulation::begin(plan.seed);
    simulation::fold_beyond(plan.journal_bytes_max);
    let trace = Trace::new(keep_lines);
    if KEEP_DATAGRAMS.with(std::cell::Cell::get) {
        trace.keep_datagrams();
    }
    let mut world = World::new(plan, trace.clone());
    report.broken = drive(&mut world).await.err();
    if let Some(broken) = &report.broken {
        trace.note(format_args!("broken: {}: {}", broken.checker, broken.what));
    }
    report.writes = world.books.counts();
    (report.hash, report.counts, report.simulated) = (trace.hash(), trace.counts(), trace.now());
    report.lines = trace.lines();
}

async fn drive(world: &mut World) -> Result<(), Broken> {
    let mut checkers = checkers::all();
    for node in 1..=world.plan.nodes {
        open(world, node, Directory::Own, &mut checkers).await?;
    }
    let events = std::mem::take(&mut world.plan.events);
    let mut look_at = LOOK_EVERY;
    for event in events {
        while look_at < event.at {
            sleep_until(world, look_at).await;
            checkers::ask(&mut checkers, |checker| checker.now_and_then(world))?;
            tell_links(world);
            look_at += LOOK_EVERY;
        }
        sleep_until(world, event.at).await;
        world.note_departures().await;
        match event.action {
            Action::Open { with } => open(world, event.node, with, &mut checkers).await?,
            action => {
                if !is_operation(&action) {
                    world.trace.note(format_args!("node {}: {action:?}", event.node));
                }
                world.act(event.node, action).await?;
            }
        }
    }
    sleep_until(world, world.plan.ends).await;
    checkers::ask(&mut checkers, |checker| checker.now_and_then(world))?;
    world.heal().await.map_err(unopened)?;
    if !world.callers_end(CALLERS_TIME_MAX).await {
        let what = format!("callers have heard nothing {CALLERS_TIME_MAX:?} after the faults ended");
        return Err(Broken { checker: "answered", what });
    }
    checkers::wait_converged(world, world.plan.agree_time_max).await?;
    world.probe(CALLERS_TIME_MAX).await?;
    checkers::wait_converged(world, world.plan.agree_time_max).await?;
    for (number, store) in world.up() {
        world.trace.note(format_args!("node {number}: ends with {}", store.status().fingerprint));
    }
    checkers::ask(&mut checkers, |checker| checker.at_end(world))?;
    world.retire_dead().await?;
    checkers::wait_converged(world, world.plan.agree_time_max).await?;
    // Taking over for the dead moves rights and holds, and changes nothing that anybody counted.
    checkers::ask(&mut checkers, |checker| checker.at_end(world)).map_err(|Broken { checker, what }| {
        let what = format!("once the last of the dead are retired: {what}");
        Broken { checker, what }
    })?;
    world.close_all().await?;
    let drained = checkers::wait_no_tasks().await?;
    world.trace.note(format_args!("the last task ended {drained:?} after the last node was closed"));
    Ok(())
}

/// For whoever reads the trace: what links are missing, and why.
fn tell_links(world: &World) {
    for (number, store) in world.up() {
        let status = store.status();
        for peer in status.peers.iter().filter(|peer| peer.last_error.is_some()) {
            let (to, why) = (&peer.address, peer.last_error.as_deref().unwrap_or_default());
            world.trace.comment(|| format!("node {number}: {to:?} is {:?}: {why}", peer.state));
        }
        for refused in &status.refusals {
            world.trace.comment(|| format!("node {number}: refused {}: {}", refused.address, refused.reason));
        }
        for dial in status.dials.iter().filter(|dial| dial.last_error.is_some()) {
            world.trace.comment(|| format!("node {number}: dialled {dial:?}"));
        }
    }
}

async fn open(world: &mut World, node: u16, with: Directory, checkers: &mut [Box<dyn Checker>]) -> Result<(), Broken> {
    world.open(node, with).await.map_err(unopened)?;
    checkers::ask(checkers, |checker| checker.at_opening(world, node))
}

async fn sleep_until(world: &World, at: Duration) {
    tokio::time::sleep(at.saturating_sub(world.trace.now())).await;
}

fn is_operation(action: &Action) -> bool {
    !matches!(
        action,
        Action::Kill
            | Action::LosePower { .. }
            | Action::Close
            | Action::Copy
            | Action::Rot { .. }
            | Action::Leave
            | Action::Die
            | Action::Retire { .. }
            | Action::Return
            | Action::Rotate
            | Action::Twin { .. }
            | Action::Change { .. }
            | Action::ShiftClock { .. }
            | Action::DriftClock { .. }
            | Action::SlowDisk { .. }
            | Action::FailSync
            | Action::FillDisk
    )
}
