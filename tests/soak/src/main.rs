//! Eight nodes, each a process in a network namespace of its own, work as hard as they can while their network and they
//! themselves fail; then it is judged whether anything grew that should not.
//!
//! Needs root, and `ip` and `nft` (Debian: `iproute2`, `nftables`), as the tests of real faults do, and whose clusters, weather and
//! namespaces it uses. Data lies in `TMPDIR`: on a disk the disk is the limit, in `/dev/shm` the processors are.
//!
//! Exit code: 0 if all bounds hold, 1 if one is broken, 2 if this machine cannot run it. The bounds and why they are as they
//! are stand in `judge`.
//!
//! Modules in reading order: `told` (what callers were told), `recorder`, `load`, `soaking` (a node's process); `sample`, `lag`,
//! `stats`; `drive` (the cluster and its faults), `sums`, `judge`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss, clippy::cast_lossless)]

// What the tests of real faults use. Not all of it is of use here.
#[allow(dead_code)]
#[path = "../../faults/air.rs"]
mod air;
#[allow(dead_code)]
#[path = "../../processes/node.rs"]
mod node;
#[allow(dead_code)]
#[path = "../../processes/process.rs"]
mod process;
#[path = "../../faults/sky.rs"]
mod sky;
#[path = "../../faults/tools.rs"]
mod tools;
#[allow(dead_code)]
#[path = "../../faults/world.rs"]
mod world;

mod told;
mod recorder;
mod load;
mod soaking;
mod sample;
mod lag;
mod stats;
mod drive;
mod sums;
mod judge;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use peak_alloc::PeakAlloc;

use drive::{Drive, Plan};
use sample::Sample;

/// Counts what a process has allocated: what its resident memory is more is the allocator's.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// The processes that it starts are this program again.
const PROGRAM: &str = "soak";

/// Runs eight nodes at full load with faults, and judges memory, descriptors, disk and lag.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long, in minutes.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Seconds between two samples; by default 1 to 5, as the length is.
    #[arg(long)]
    every: Option<f64>,
    /// A file for all samples, as CSV.
    #[arg(long)]
    samples: Option<PathBuf>,
}

fn main() -> ExitCode {
    // Before the arguments, which are those of a test then.
    if let Ok(name) = std::env::var(node::NAME) {
        process::block_on(soaking::run(name));
        return ExitCode::SUCCESS;
    }
    if std::env::var(sky::SKY).is_ok() {
        world::faults(PROGRAM, 0, |_| {});
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    let length = Duration::from_secs_f64(arguments.minutes.max(1.0) * 60.0);
    let every = arguments.every.unwrap_or_else(|| (length.as_secs_f64() / 240.0).clamp(1.0, 5.0));
    let plan = Plan::new(length, Duration::from_secs_f64(every));
    let mut code = ExitCode::from(2);
    world::faults(PROGRAM, soaking::NODES, |mut world| {
        world.air.raise_sky(PROGRAM);
        code = soak(Drive::new(world, plan), plan, arguments.samples.as_deref());
    });
    code
}

fn soak(mut drive: Drive, plan: Plan, samples: Option<&Path>) -> ExitCode {
    drive.grow();
    println!("{} nodes work for {:?}", soaking::NODES, plan.length);
    drive.run();
    let settled = drive.settle();
    if let Some(path) = samples {
        write_samples(&drive.samples, path).expect("the samples can be written");
    }
    let verdict = judge::judge(&drive, plan, settled);
    drive.end();
    if verdict.broken.is_empty() {
        println!("\nall bounds hold");
        return ExitCode::SUCCESS;
    }
    println!("\nBROKEN: {}", verdict.broken.join(", "));
    ExitCode::FAILURE
}

fn write_samples(samples: &[Sample], path: &Path) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
    writeln!(
        file,
        "seconds,node,life,rss_bytes,descriptors,threads,allocated_bytes,apparent_bytes,state_bytes,ledger_bytes,journal_bytes,slots,holds,links,operations,heap_bytes"
    )?;
    for sample in samples {
        let Sample { at_seconds, node, life, rss_bytes, descriptors, threads, .. } = sample;
        let figures = sample.figures.unwrap_or_default();
        writeln!(
            file,
            "{at_seconds:.1},{node},{life},{rss_bytes},{descriptors},{threads},{},{},{},{},{},{},{},{},{},{}",
            sample.allocated_bytes,
            sample.apparent_bytes,
            figures.state_bytes,
            figures.ledger_bytes,
            figures.journal_bytes,
            figures.slots,
            figures.holds,
            figures.links,
            figures.operations,
            figures.heap_bytes,
        )?;
    }
    file.flush()
}
