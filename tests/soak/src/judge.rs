//! Holds what was measured against bounds that were known before, and tells both.

use crate::drive::{Drive, LONG_LIVED, Plan, Window};
use crate::lag::Arrival;
use crate::sample::Sample;
use crate::soaking::NODES;
use crate::stats::{Slope, quantile, slope};

const MIB: f64 = (1 << 20) as f64;

/// A node that is restarted four times a year must not take 8 GiB more by then: 8192 MiB in some 2,000 hours.
const GROWTH_MIB_PER_HOUR: f64 = 4.0;
/// Besides, each node remembers the holds that were resolved, for a week, and gives two in a second. In memory a hold is a
/// record with two names in a tree, and a key in another one; both trees may be half full.
const HOLDS_PER_SECOND: f64 = 2.0;
const HOLD_MEMORY_BYTES: f64 = 512.0;
/// On disk it is a row of its key and about a hundred bytes.
const HOLD_DISK_BYTES: f64 = 256.0;

/// The journal is folded when it is longer than this, as the store's limits say.
const JOURNAL_BYTES: f64 = 16.0 * MIB;
/// The largest group of writes that is committed at once: what may come on top before folding begins. While it goes on, the
/// journal grows by no more than what is folded, the state: a commit carries 256 KiB of snapshots, and far less of new writes.
const GROUP_BYTES: f64 = 2.0 * MIB;
/// How much a file may be larger than what lives in it: twice, since pages of a tree may be half empty; and that twice,
/// since a file stays as large as it was when the most was in it, and old pages are free only after the commit that
/// replaced them: the ledger is trimmed once a minute.
const DISK_FACTOR: f64 = 4.0;
/// The journal is cut at once, and its rows fill their pages: twice is for the pages that wait to be free.
const JOURNAL_FACTOR: f64 = 2.0;
/// What no process may take: the engine's cache of 16 MiB and the links are the most of it, the state is small.
const RSS_MIB_MAX: f64 = 128.0;
/// With fewer the nodes had nothing to do.
const OPERATIONS_PER_SECOND_MIN: f64 = 10.0;

/// Descriptors do not depend on links, requests, or time: one socket serves all links, and the files stay open. What
/// comes and goes is the kernel's and the runtime's: a little room for that, and none for what stays.
const DESCRIPTORS_PASSING: u64 = 8;

/// A write is elsewhere after a push and two syncs. If the push was dropped, a reconciliation brings it: each node begins
/// one every second, a quarter more at the most, with a peer by chance. Two of these, so that the wrong peer may be chosen once.
const LAG_P99_SECONDS: f64 = 2.5;
/// The same, where chance is against it eight times in a row. By then most others have it too, and any of them will do, and
/// they come to this node as it goes to them: later is no chance any more.
const LAG_MAX_SECONDS: f64 = 10.0;
/// After a fault links may have to be made anew: a pause of up to 10 s before it is dialled again, a handshake, and a
/// reconciliation.
const LATE_SECONDS_MAX: f64 = 15.0;
/// How certain it must be that memory grows: two standard errors.
const ERRORS: f64 = 2.0;
/// Whoever is warm for less than this is allowed what the engine's cache of 16 MiB may still take, which fills up as the
/// journal is written. It cannot be told from growth, and only what is far beyond it counts. Those that are never killed are
/// held to more.
const SHORT_HOURS: f64 = 0.5;
/// Those that are never killed must be seen not to grow if they are warm for so long: that it cannot be told is not enough.
const CLEAR_AFTER_HOURS: f64 = 0.2;
/// From so many minutes on each kind of fault must have happened.
const ALL_FAULTS_MINUTES: f64 = 10.0;
const STILL_FILLING_MIB: f64 = 16.0;

/// What was told to be wrong.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) broken: Vec<String>,
}

impl Verdict {
    fn hold(&mut self, what: &str, is_good: bool, found: &str) {
        println!("{} {what}: {found}", if is_good { "ok    " } else { "BROKEN" });
        if !is_good {
            self.broken.push(what.to_owned());
        }
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}

pub(crate) fn judge(drive: &Drive, plan: Plan, settled: std::time::Duration) -> Verdict {
    let warm_seconds = plan.warm_up.as_secs_f64();
    let is_warm = |sample: &Sample| {
        sample.age_seconds.min(sample.at_seconds) >= warm_seconds
            && sample.figures.is_some_and(|figures| figures.has_folded)
    };
    let warm: Vec<Sample> = drive.samples.iter().copied().filter(is_warm).collect();
    let mut verdict = Verdict::default();
    println!(
        "\nwarm after {warm_seconds:.0} s and a fold of the journal; {} samples, {} of them warm",
        drive.samples.len(),
        warm.len()
    );
    processes(&warm, &mut verdict);
    disks(&drive.samples, &mut verdict);
    lag(drive, &mut verdict);
    traffic(&drive.samples, &mut verdict);
    println!("\nall nodes were equal {settled:.1?} after the load ended");
    crate::sums::check(drive, &mut |what, is_good, found| verdict.hold(what, is_good, found));
    verdict
}

/// Memory and descriptors of each process that lived long enough.
fn processes(warm: &[Sample], verdict: &mut Verdict) {
    let mut lives: Vec<(usize, usize)> = warm.iter().map(|sample| (sample.node, sample.life)).collect();
    lives.sort_unstable();
    lives.dedup();
    println!(
        "\nprocess minutes | RSS MiB first   last    max |    MiB per hour | allocated per hour | descriptors first last max | threads first last max"
    );
    let of_life =
        |life: &(usize, usize)| warm.iter().copied().filter(|sample| (sample.node, sample.life) == *life).collect();
    let lives: Vec<Life> = lives.iter().filter_map(|life| Life::of(of_life(life))).collect();
    let (mut growing, mut leaking, mut unclear) = (Vec::new(), Vec::new(), 0);
    for life in &lives {
        println!("{}", life.to_line());
        unclear += usize::from(life.is_unclear());
        growing.extend(life.grows().then(|| life.name()));
        leaking.extend(life.leaks().then(|| format!("{} from {} to {}", life.name(), life.before(), life.after())));
    }
    let rate = growth_mib_per_hour();
    let found = format!(
        "{} processes; by more than {rate:.1} MiB per hour grow: {growing:?}; too short or too restless to tell: {unclear}",
        lives.len()
    );
    verdict.hold("memory is flat", !lives.is_empty() && growing.is_empty(), &found);
    let most = lives.iter().map(|life| mib(life.max(|sample| sample.rss_bytes))).fold(0.0, f64::max);
    verdict.hold(
        "memory is small",
        most <= RSS_MIB_MAX,
        &format!("{most:.1} MiB at the most, {RSS_MIB_MAX} are allowed"),
    );
    let long: Vec<&Life> = lives.iter().filter(|life| life.is_long_lived()).collect();
    // Of a short run nobody can tell; of a long one each of them must be told of.
    let hours = lives.iter().map(|life| life.hours).fold(0.0, f64::max);
    let are_all_there = hours < CLEAR_AFTER_HOURS || long.len() == LONG_LIVED;
    let slopes: [(&str, SlopeOf); 2] = [
        ("memory is seen to be flat", |life| life.slope),
        // The allocator may keep more than it was asked for, and more the longer it works: this is what the store itself holds.
        ("what is allocated is seen to be flat", |life| life.allocated),
    ];
    for (what, slope) in slopes {
        let doubtful: Vec<String> =
            long.iter().filter(|life| !life.is_seen_flat(slope)).map(|life| life.name()).collect();
        let found = format!("{} that were never killed; not sure of: {doubtful:?}", long.len());
        verdict.hold(what, doubtful.is_empty() && are_all_there, &found);
    }
    let found = format!("these have more than before: {leaking:?}");
    verdict.hold("descriptors are flat", !lives.is_empty() && leaking.is_empty(), &found);
}

fn growth_mib_per_hour() -> f64 {
    GROWTH_MIB_PER_HOUR + HOLDS_PER_SECOND * 3_600.0 * HOLD_MEMORY_BYTES / MIB
}

/// Which of its slopes.
type SlopeOf = fn(&Life) -> Slope;

/// What one process took, once it was warm.
struct Life {
    samples: Vec<Sample>,
    hours: f64,
    slope: Slope,
    /// The same of what it has allocated, less the journal, which the engine's cache holds until it is folded.
    allocated: Slope,
}

impl Life {
    fn of(samples: Vec<Sample>) -> Option<Self> {
        let point = |sample: &Sample| (sample.at_seconds / 3_600.0, mib(sample.rss_bytes));
        let resident = slope(&samples.iter().map(point).collect::<Vec<_>>())?;
        let beside_journal = |sample: &Sample| {
            let figures = sample.figures?;
            Some((sample.at_seconds / 3_600.0, mib(figures.heap_bytes) - mib(figures.journal_bytes)))
        };
        let allocated = slope(&samples.iter().filter_map(beside_journal).collect::<Vec<_>>())?;
        let hours = (samples.last()?.at_seconds - samples.first()?.at_seconds) / 3_600.0;
        Some(Self { samples, hours, slope: resident, allocated })
    }

    fn name(&self) -> String {
        let Sample { node, life, .. } = self.samples[0];
        format!("n{node}.{life}")
    }

    fn max(&self, value: fn(&Sample) -> u64) -> u64 {
        self.samples.iter().map(value).max().unwrap_or_default()
    }

    /// By as much as it must at the least have grown, if it grew.
    fn grows(&self) -> bool {
        let filling = if self.hours < SHORT_HOURS { STILL_FILLING_MIB } else { 0.0 };
        let least = (self.slope.per_hour - ERRORS * self.slope.error) * self.hours;
        least > growth_mib_per_hour() * self.hours + filling
    }

    fn is_long_lived(&self) -> bool {
        self.samples[0].node < LONG_LIVED && self.hours >= CLEAR_AFTER_HOURS
    }

    /// At the most, it grows as much as it may.
    fn is_seen_flat(&self, slope: SlopeOf) -> bool {
        let slope = slope(self);
        slope.per_hour + ERRORS * slope.error <= growth_mib_per_hour()
    }

    fn is_unclear(&self) -> bool {
        self.hours < SHORT_HOURS || ERRORS * self.slope.error > growth_mib_per_hour()
    }

    /// The least of several samples, so that what is open for a moment does not count.
    fn before(&self) -> u64 {
        let samples = &self.samples[..self.samples.len().div_ceil(4)];
        samples.iter().map(|sample| sample.descriptors).min().unwrap_or_default()
    }

    fn after(&self) -> u64 {
        let samples = &self.samples[self.samples.len() / 4 * 3..];
        samples.iter().map(|sample| sample.descriptors).min().unwrap_or_default()
    }

    fn leaks(&self) -> bool {
        self.after() > self.before() || self.max(|sample| sample.descriptors) > self.before() + DESCRIPTORS_PASSING
    }

    fn to_line(&self) -> String {
        let (first, last) = (self.samples[0], self.samples[self.samples.len() - 1]);
        format!(
            "{:7} {:7.1} | {:13.1} {:6.1} {:6.1} | {:+7.1} ± {:5.1} | {:+10.1} ± {:5.1} | {:17} {:4} {:3} | {:13} {:4} {:3}",
            self.name(),
            self.hours * 60.0,
            mib(first.rss_bytes),
            mib(last.rss_bytes),
            mib(self.max(|sample| sample.rss_bytes)),
            self.slope.per_hour,
            self.slope.error,
            self.allocated.per_hour,
            self.allocated.error,
            first.descriptors,
            last.descriptors,
            self.max(|sample| sample.descriptors),
            first.threads,
            last.threads,
            self.max(|sample| sample.threads),
        )
    }
}

/// What a node's disk may take: a multiple of what lives there, the state, the movements within the retention and holds; and
/// a journal before it is folded.
fn disk_bytes_max(sample: &Sample) -> Option<f64> {
    let figures = sample.figures?;
    let holds = sample.at_seconds * HOLDS_PER_SECOND * HOLD_DISK_BYTES;
    let live = (figures.state_bytes + figures.ledger_bytes) as f64 + holds;
    Some(DISK_FACTOR * live + JOURNAL_FACTOR * JOURNAL_BYTES)
}

fn disks(samples: &[Sample], verdict: &mut Verdict) {
    println!(
        "\nnode | slots first   last | state MiB first  last | ledger max | journal max | disk MiB first   last    max | apparent max | of allowed"
    );
    let (mut worst, mut beyond) = (0.0_f64, f64::MIN);
    for node in 0..NODES {
        let of: Vec<&Sample> =
            samples.iter().filter(|sample| sample.node == node && sample.figures.is_some()).collect();
        let (Some(first), Some(last)) = (of.first(), of.last()) else { continue };
        let max = |value: &dyn Fn(&Sample) -> f64| of.iter().map(|sample| value(sample)).fold(0.0, f64::max);
        let factor = max(&|sample| disk_bytes_max(sample).map_or(0.0, |most| sample.allocated_bytes as f64 / most));
        let journal_max = max(&|sample| sample.figures.map_or(0.0, |figures| figures.journal_bytes as f64));
        let state_max = max(&|sample| sample.figures.map_or(0.0, |figures| figures.state_bytes as f64));
        (worst, beyond) = (worst.max(factor), beyond.max(journal_max - JOURNAL_BYTES - GROUP_BYTES - state_max));
        let state = |sample: &Sample| sample.figures.map_or(0.0, |figures| mib(figures.state_bytes));
        let slots = |sample: &Sample| sample.figures.map_or(0, |figures| figures.slots);
        println!(
            "n{node}   | {:11} {:6} | {:15.2} {:5.2} | {:10.1} | {:11.1} | {:14.1} {:6.1} {:6.1} | {:12.1} | {factor:11.2}",
            slots(first),
            slots(last),
            state(first),
            state(last),
            max(&|sample| sample.figures.map_or(0.0, |figures| mib(figures.ledger_bytes))),
            journal_max / MIB,
            mib(first.allocated_bytes),
            mib(last.allocated_bytes),
            max(&|sample| mib(sample.allocated_bytes)),
            max(&|sample| mib(sample.apparent_bytes)),
        );
    }
    let found = format!(
        "{worst:.2} of {DISK_FACTOR} times what lives and {JOURNAL_FACTOR} times the journal before it is folded"
    );
    verdict.hold("disk is bounded", worst > 0.0 && worst <= 1.0, &found);
    let found = format!("at the most {:+.1} MiB from what is allowed", beyond / MIB);
    verdict.hold("journals are folded", beyond <= 0.0, &found);
}

/// Whether a probe had its time while nothing was broken. One that was written long before the next fault counts also if
/// it came after that.
fn is_calm(arrival: Arrival, calm: &[Window]) -> bool {
    let in_time_us = (LAG_P99_SECONDS * 1e6) as u64;
    let within = |(from, to): &Window| {
        arrival.written_us >= *from && (arrival.seen_us <= *to || arrival.written_us + in_time_us <= *to)
    };
    calm.iter().any(within)
}

fn lag(drive: &Drive, verdict: &mut Verdict) {
    let (arrivals, missing) = drive.lag.arrivals();
    let (calm, other): (Vec<Arrival>, Vec<Arrival>) =
        arrivals.iter().partition(|arrival| is_calm(**arrival, &drive.calm));
    println!("\nlag       | probes |   p50 s   p99 s   max s");
    let mut p99_and_max = (0.0, 0.0);
    for (name, part) in [("faults", other), ("no faults", calm)] {
        let mut seconds: Vec<f64> = part.iter().map(|arrival| arrival.seconds()).collect();
        let [p50, p99, max] = [0.5, 0.99, 1.0].map(|part| quantile(&mut seconds, part));
        println!("{name:9} | {:6} | {p50:7.3} {p99:7.3} {max:7.3}", seconds.len());
        p99_and_max = (p99, max);
    }
    for kind in ["weather", "partition", "kill", "standstill", "slow node"] {
        let ends: Vec<&Window> =
            drive.faults.iter().filter(|(what, _)| *what == kind).map(|(_, window)| window).collect();
        let late = |(from, to): &Window| {
            let of = arrivals.iter().filter(|arrival| (*from..*to).contains(&arrival.written_us));
            of.map(|arrival| arrival.seen_us.saturating_sub(*to)).max().unwrap_or_default() as f64 / 1e6
        };
        let last = ends.iter().map(|window| late(window)).fold(0.0, f64::max);
        let found =
            format!("{} times; the last of what was written meanwhile is everywhere {last:.2} s later", ends.len());
        let minutes = drive.samples.last().map_or(0.0, |sample| sample.at_seconds / 60.0);
        let has_happened = !ends.is_empty() || minutes < ALL_FAULTS_MINUTES;
        verdict.hold(&format!("lag ends with a {kind}"), has_happened && last <= LATE_SECONDS_MAX, &found);
    }
    let (p99, max) = p99_and_max;
    let found = format!("p99 {p99:.3} s of {LAG_P99_SECONDS} s, max {max:.3} s of {LAG_MAX_SECONDS} s");
    verdict.hold(
        "lag is bounded without faults",
        p99 <= LAG_P99_SECONDS && max <= LAG_MAX_SECONDS && max > 0.0,
        &found,
    );
    verdict.hold("every probe arrives", missing == 0, &format!("{missing} did not"));
}

/// How busy it was.
fn traffic(samples: &[Sample], verdict: &mut Verdict) {
    let seconds = samples.iter().map(|sample| sample.at_seconds).fold(0.0, f64::max).max(1.0);
    let (mut sums, mut processors) = ([0_u64; 3], 0.0);
    for node in 0..NODES {
        for life in 1.. {
            let of = samples.iter().filter(|sample| (sample.node, sample.life) == (node, life));
            let Some(last) = of.clone().next_back() else { break };
            // Without what filled the catalogue.
            let first = of.clone().find_map(|sample| sample.figures).unwrap_or_default();
            let figures = last.figures.unwrap_or(first);
            sums[0] += figures.operations - first.operations;
            sums[1] += figures.reconciliations - first.reconciliations;
            sums[2] += figures.pushes_dropped - first.pushes_dropped;
            processors += last.processor_seconds / seconds;
        }
    }
    let [operations, reconciliations, dropped] = sums.map(|sum| sum as f64 / seconds);
    let there_are = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "\nper second of all nodes: {operations:.0} operations, {reconciliations:.1} reconciliations, {dropped:.1} pushes dropped from full queues; they kept {processors:.2} of {there_are} processors busy"
    );
    let found = format!("{operations:.0} operations per second, {OPERATIONS_PER_SECOND_MIN} at the least");
    verdict.hold("the nodes had work", operations >= OPERATIONS_PER_SECOND_MIN, &found);
}

#[cfg(test)]
mod tests;
