//! What the benchmarks share: options, samples of a subject and its floor, and one line per figure.
//!
//! The machine may be busy with other things. So a subject and its floor are measured in turns in the same run, each
//! pair of turns gives a ratio, and the medians are printed, with the middle half of the ratios where there are several.
//! The heading says how contended the processors were: what waits for a disk or a wake-up then measures the scheduler.

pub(crate) mod quic;
pub(crate) mod stores;

use std::time::Instant;

/// How a benchmark is run.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// Small sizes: shows only that it runs.
    pub(crate) quick: bool,
}

impl Options {
    /// `full`, or `quick` when run with `--quick`.
    pub(crate) fn size<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Reads the options and prints the heading. Cargo adds arguments of its own, which mean nothing here.
pub(crate) fn start(question: &str) -> Options {
    println!("\n# {question}");
    if let Some(pressure) = processor_pressure() {
        println!("(in the last 10 s, tasks waited for a processor {pressure} % of the time)");
    }
    println!("name | value | floor | ratio | goal | met?");
    Options { quick: std::env::args().any(|argument| argument == "--quick") }
}

/// How much of the time some task wanted a processor and had none, where the system tells.
fn processor_pressure() -> Option<String> {
    let pressure = std::fs::read_to_string("/proc/pressure/cpu").ok()?;
    Some(pressure.split("avg10=").nth(1)?.split(' ').next()?.to_owned())
}

/// A runtime with two threads, as on the smallest machine that the goals are meant for.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A directory on the disk that holds the build, removed at the end. `/tmp` may be memory, where a sync costs nothing.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// What a figure should reach.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// None: the figure is there to be watched.
    None,
    /// At most so much.
    ValueAtMost(f64),
    /// At most so many times the floor.
    RatioAtMost(f64),
    /// At least so many times the floor.
    RatioAtLeast(f64),
}

/// A subject and its floor, in one unit, measured in turns.
#[derive(Default)]
pub(crate) struct Turns {
    values: Vec<f64>,
    floors: Vec<f64>,
}

impl Turns {
    /// One value and one floor.
    pub(crate) fn of(value: f64, floor: f64) -> Self {
        Self { values: vec![value], floors: vec![floor] }
    }

    pub(crate) fn add(&mut self, value: f64, floor: f64) {
        self.values.push(value);
        self.floors.push(floor);
    }

    /// Prints the figure's line.
    pub(crate) fn report(&self, name: &str, unit: &str, goal: Goal) {
        let ratios: Vec<f64> = self.values.iter().zip(&self.floors).map(|(value, floor)| value / floor).collect();
        let (value, floor, ratio) = (median(&self.values), median(&self.floors), median(&ratios));
        let (goal, met) = match goal {
            Goal::None => ("-".to_owned(), None),
            Goal::ValueAtMost(most) => (format!("<= {} {unit}", number(most)), Some(value <= most)),
            Goal::RatioAtMost(most) => (format!("<= {most} x"), Some(ratio <= most)),
            Goal::RatioAtLeast(least) => (format!(">= {least} x"), Some(ratio >= least)),
        };
        let met = met.map_or("-", |met| if met { "yes" } else { "NO" });
        let spread = match ratios.len() {
            1 => String::new(),
            _ => format!(" ({:.2} to {:.2})", quantile(&ratios, 0.25), quantile(&ratios, 0.75)),
        };
        println!("{name} | {} {unit} | {} {unit} | {ratio:.2}{spread} | {goal} | {met}", number(value), number(floor));
    }
}

/// The middle of some figures.
pub(crate) fn median(figures: &[f64]) -> f64 {
    quantile(figures, 0.5)
}

/// The figure that a share of all figures does not exceed.
pub(crate) fn quantile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let position = (share * (sorted.len() as f64 - 1.0)).round() as usize;
    sorted[position]
}

/// Three digits that count.
fn number(figure: f64) -> String {
    match figure {
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure if figure >= 10.0 => format!("{figure:.1}"),
        figure => format!("{figure:.2}"),
    }
}

/// Runs something, and returns its result and the seconds it took.
pub(crate) fn timed<T>(run: impl FnOnce() -> T) -> (T, f64) {
    let begun = Instant::now();
    let result = run();
    (result, begun.elapsed().as_secs_f64())
}

/// Numbers that look random and are the same in each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number below `bound`. SplitMix64, by Steele, Lea and Flood 2014.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
