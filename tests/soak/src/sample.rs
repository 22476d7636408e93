//! What a process takes, as the kernel tells it, and what its directory takes.

use std::fs::{read_dir, read_to_string};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a node said of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) state_bytes: u64,
    /// What the process has of its allocator.
    pub(crate) heap_bytes: u64,
    pub(crate) ledger_bytes: u64,
    pub(crate) journal_bytes: u64,
    pub(crate) slots: u64,
    pub(crate) holds: u64,
    pub(crate) links: u64,
    pub(crate) operations: u64,
    pub(crate) pushes_dropped: u64,
    pub(crate) reconciliations: u64,
    /// Whether a whole journal was written and folded since the process began, so that the engine's cache was full once.
    pub(crate) has_folded: bool,
}

impl Figures {
    pub(crate) fn parse(words: &[&str]) -> Self {
        let number = |place: usize| words[place].parse().unwrap();
        Self {
            state_bytes: number(0),
            ledger_bytes: number(1),
            journal_bytes: number(2),
            slots: number(3),
            holds: number(4),
            links: number(5),
            operations: number(6),
            pushes_dropped: number(7),
            reconciliations: number(8),
            heap_bytes: number(9),
            has_folded: words[10] == "true",
        }
    }
}

/// One node at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at_seconds: f64,
    pub(crate) node: usize,
    /// Which of the node's processes it was.
    pub(crate) life: usize,
    /// How long that process ran.
    pub(crate) age_seconds: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    /// Of processors, since it began.
    pub(crate) processor_seconds: f64,
    pub(crate) allocated_bytes: u64,
    pub(crate) apparent_bytes: u64,
    /// The latest that came; there may be none of this process yet.
    pub(crate) figures: Option<Figures>,
}

/// What the kernel tells of a process.
pub(crate) struct Process {
    pub(crate) rss_bytes: u64,
    pub(crate) descriptors: u64,
    pub(crate) threads: u64,
    pub(crate) processor_seconds: f64,
}

impl Process {
    /// Nothing if it ended meanwhile.
    pub(crate) fn look(id: u32) -> Option<Self> {
        let status = read_to_string(format!("/proc/{id}/status")).ok()?;
        let number = |name: &str| -> Option<u64> {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        let stat = read_to_string(format!("/proc/{id}/stat")).ok()?;
        // Behind the name, which may hold anything: the 12th and 13th, in hundredths of a second on all Linux.
        let after = stat.rsplit(')').next()?.split_whitespace();
        let ticks: u64 = after.skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Some(Self {
            rss_bytes: number("VmRSS:")? << 10,
            descriptors: read_dir(format!("/proc/{id}/fd")).ok()?.count() as u64,
            threads: number("Threads:")?,
            processor_seconds: ticks as f64 / 100.0,
        })
    }
}

/// What the files of a directory take on the disk, and how long they are.
pub(crate) fn directory(path: &Path) -> (u64, u64) {
    let files = read_dir(path).into_iter().flatten().flatten().filter_map(|file| file.metadata().ok());
    files.fold((0, 0), |(allocated, apparent), file| (allocated + file.blocks() * 512, apparent + file.len()))
}
