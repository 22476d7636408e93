//! Runs many seeds of the simulator on all cores, or one of them with its trace.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use parking_lot::Mutex;
use stockmesh_sim::minimise::minimise;
use stockmesh_sim::plan::Size;
use stockmesh_sim::run::{Report, keep_datagrams, note_panics, run, run_twice};

/// Simulates whole nodes, a cluster for each seed, and checks what must hold.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long to run, in seconds of the wall clock.
    #[arg(long, default_value_t = 60, conflicts_with = "seeds")]
    seconds: u64,
    /// How many seeds to run, however long it takes.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Runs one seed, and prints what happened.
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: leaves out what the failure does not need.
    #[arg(long, requires = "seed")]
    minimise: bool,
    /// Prints the hash of each run, with --seed that alone.
    #[arg(long)]
    hash: bool,
    /// With --seed: prints each datagram too.
    #[arg(long, requires = "seed")]
    datagrams: bool,
    /// Nodes at the beginning, 3 to 100; without it 3 to 9, as the seed says
    #[arg(long, value_parser = clap::value_parser!(u16).range(3..=100))]
    nodes: Option<u16>,
    /// Simulated minutes with faults.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_440))]
    minutes: u64,
    /// Threads; one for each core by default.
    #[arg(long)]
    threads: Option<usize>,
    /// Runs each seed twice, and requires that both are the same run.
    #[arg(long, conflicts_with = "seed")]
    twice: bool,
    /// Goes on after a failure.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    note_panics();
    let size = Size { nodes: arguments.nodes, minutes: arguments.minutes };
    match arguments.seed {
        Some(seed) => replay(seed, size, arguments.minimise.then_some(Duration::MAX), &arguments),
        None => campaign(size, &arguments),
    }
}

/// How long the events are looked for that the failure of a campaign needs.
const MINIMISE_TIME: Duration = Duration::from_secs(60);

fn replay(seed: u64, size: Size, minimise_for: Option<Duration>, arguments: &Arguments) -> ExitCode {
    if arguments.datagrams {
        keep_datagrams();
    }
    if arguments.hash {
        let report = run(seed, size, false, None);
        println!("{:016x}", report.hash);
        return code(report.broken.is_none());
    }
    let minimal = minimise_for.and_then(|limit| minimise(seed, size, limit, |left| eprintln!("{left} events left")));
    let is_minimal = minimal.is_some();
    let mut report = minimal.map_or_else(|| run(seed, size, true, None), |(_, report)| report);
    if report.broken.is_none() {
        // What is kept to be told takes memory itself, so memory is not judged with it.
        report.broken = run(seed, size, false, None).broken;
    }
    println!("{}{}", report.plan, if is_minimal { ", of those that the failure needs" } else { "" });
    report.lines.iter().for_each(|line| println!("{line}"));
    tell(&report);
    code(report.broken.is_none())
}

fn campaign(size: Size, arguments: &Arguments) -> ExitCode {
    let begun = Instant::now();
    let next = AtomicU64::new(arguments.first_seed);
    let (done, simulated_ms, datagrams) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed: Mutex<Vec<Report>> = Mutex::default();
    let is_over = || {
        let is_late = arguments.seeds.is_none() && begun.elapsed() >= Duration::from_secs(arguments.seconds);
        is_late || !(arguments.keep_going || failed.lock().is_empty())
    };
    let work = || {
        while !is_over() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if arguments.seeds.is_some_and(|seeds| seed >= arguments.first_seed.saturating_add(seeds)) {
                return;
            }
            let report = if arguments.twice { run_twice(seed, size) } else { run(seed, size, false, None) };
            done.fetch_add(1, Ordering::Relaxed);
            if arguments.hash {
                println!("seed {seed}: hash {:016x}", report.hash);
            }
            datagrams.fetch_add(report.counts.1, Ordering::Relaxed);
            simulated_ms.fetch_add(u64::try_from(report.simulated.as_millis()).unwrap_or(0), Ordering::Relaxed);
            if report.broken.is_some() {
                tell(&report);
                failed.lock().push(report);
            }
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.unwrap_or(cores) {
            scope.spawn(work);
        }
    });
    let (seconds, done) = (begun.elapsed().as_secs_f64(), done.into_inner());
    let hours = Duration::from_millis(simulated_ms.into_inner()).as_secs_f64() / 3_600.0;
    let failed = failed.into_inner();
    #[expect(clippy::cast_precision_loss, reason = "a figure for a reader")]
    let per_second = done as f64 / seconds;
    println!(
        "{done} seeds of {} nodes in {seconds:.1} s: {per_second:.2} seeds per second, {hours:.1} h of simulated time, {} datagrams, {} failed",
        size.nodes.map_or_else(|| "3 to 9".to_owned(), |nodes| nodes.to_string()),
        datagrams.into_inner(),
        failed.len()
    );
    if let Some(first) = failed.iter().min_by_key(|report| report.seed) {
        replay(first.seed, size, Some(MINIMISE_TIME), arguments);
    }
    code(failed.is_empty())
}

fn tell(report: &Report) {
    let Report { seed, hash, counts: (events, datagrams), writes: [done, refused, unknown], simulated, .. } = report;
    let megabytes = report.bytes_max >> 20;
    let told = report.broken.as_ref().map(|broken| format!("BROKEN {}: {}", broken.checker, broken.what));
    println!(
        "seed {seed}: {}; hash {hash:016x}, {:.0} s, {events} events, {datagrams} datagrams, writes: {done} done, {refused} refused, {unknown} unknown, {megabytes} MiB",
        told.unwrap_or_else(|| "all holds".into()),
        simulated.as_secs_f64()
    );
}

fn code(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
