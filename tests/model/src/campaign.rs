//! The full campaign: which models are searched, how large, and how it is told.

use std::time::Instant;

use crate::breaks;
use crate::check::{Report, Search, System, check};
use crate::models::heirs::LeftOut;
use crate::models::{chains, grants, heirs, holds, merge, push, reconcile, retire};

const THREADS: usize = 2;

struct Entry {
    model: &'static str,
    replicas: usize,
    /// How many operations, in words.
    operations: String,
    run: Box<dyn Fn(Search) -> Report>,
}

impl Entry {
    /// As it may be asked for.
    fn name(&self) -> String {
        format!("{}-{}", self.model, self.replicas)
    }
}

fn entry<S: System + Clone>(model: &'static str, replicas: usize, operations: impl Into<String>, system: S) -> Entry {
    Entry { model, replicas, operations: operations.into(), run: Box::new(move |search| check(system.clone(), search)) }
}

fn merge(replicas: usize, writes: u8) -> Entry {
    entry(
        "merge",
        replicas,
        format!("{writes} requests"),
        merge::Merge { replicas, writes, broken: Default::default() },
    )
}

fn reconcile(replicas: usize, writes: u8, (sessions, meetings): (u8, u8), deaths: u8) -> Entry {
    let system = reconcile::Reconcile { replicas, writes, sessions, meetings, deaths, broken: Default::default() };
    let all = format!("{writes} writes, {sessions} + {meetings} sessions, {deaths} deaths");
    entry("reconcile", replicas, all, system)
}

fn push(replicas: usize, requests: u8, crashes: u8, deaths: u8) -> Entry {
    let system = push::Pushes { replicas, requests, crashes, deaths, broken: Default::default() };
    entry("push", replicas, format!("{requests} requests, {crashes} crashes, {deaths} deaths"), system)
}

fn grants(replicas: usize, stock: u64, grants: u8, crashes: u8) -> Entry {
    let system = grants::Grants { replicas, stock, grants, crashes, broken: Default::default() };
    entry("grants", replicas, format!("{grants} grants, {stock} sales, {crashes} crashes"), system)
}

fn holds(replicas: usize, stock: u64, (holds, sales): (u8, u8), ticks: u8, crashes: u8) -> Entry {
    let system = holds::Holds { replicas, stock, holds, sales, ticks, crashes, broken: Default::default() };
    entry("holds", replicas, format!("{holds} holds, {sales} sales, {ticks} ticks, {crashes} restarts"), system)
}

fn retire(replicas: usize, stock: u64, grants: u8) -> Entry {
    let system = retire::Retire { replicas, stock, grants, broken: Default::default() };
    entry("retire", replicas, format!("{grants} grants, {stock} sales, 1 death, 1 return"), system)
}

fn heirs(members: usize, heirs: usize, left_out: LeftOut, attempts: u8) -> Entry {
    let system = heirs::Heirs { members, heirs, left_out, attempts, broken: Default::default() };
    let who = match left_out {
        LeftOut::Nobody | LeftOut::Others => "",
        LeftOut::Lower => ", who leave out the lower",
    };
    entry("heirs", members, format!("{heirs} heirs{who}, {attempts} attempts"), system)
}

fn chains(
    members: usize,
    dying: &'static [usize],
    (products, first_takes): (usize, usize),
    attempts: u8,
    in_parts: bool,
) -> Entry {
    let broken = Default::default();
    let system = chains::Chains { members, dying, products, first_takes, attempts, in_parts, returns: false, broken };
    let (deaths, parts) = (dying.len(), if in_parts { ", in parts" } else { "" });
    entry("chains", members, format!("{deaths} deaths, {products} products, {attempts} attempts{parts}"), system)
}

fn returns(members: usize, dying: &'static [usize], (products, first_takes): (usize, usize), attempts: u8) -> Entry {
    let (in_parts, returns, broken) = (false, true, Default::default());
    let system = chains::Chains { members, dying, products, first_takes, attempts, in_parts, returns, broken };
    let cut_off = dying.len();
    entry("returns", members, format!("{cut_off} cut off, {products} products, {attempts} attempts"), system)
}

fn all() -> Vec<Entry> {
    vec![
        merge(2, 5),
        merge(3, 4),
        reconcile(2, 4, (2, 0), 0),
        reconcile(3, 3, (1, 1), 1),
        reconcile(3, 2, (2, 0), 1),
        push(2, 5, 2, 0),
        push(3, 3, 1, 1),
        grants(2, 4, 5, 2),
        grants(3, 3, 4, 1),
        holds(2, 2, (2, 1), 1, 1),
        holds(3, 2, (1, 1), 1, 1),
        retire(2, 2, 3),
        retire(3, 1, 2),
        retire(3, 2, 1),
        heirs(3, 2, LeftOut::Nobody, 4),
        heirs(3, 2, LeftOut::Lower, 4),
        heirs(3, 3, LeftOut::Nobody, 4),
        chains(3, &[0], (2, 2), 2, false),
        chains(3, &[0, 1], (1, 1), 3, false),
        chains(3, &[1, 0], (1, 1), 3, false),
        chains(3, &[0, 1], (2, 1), 2, false),
        chains(4, &[0, 2], (1, 1), 3, false),
        chains(4, &[2, 0], (1, 1), 3, false),
        chains(4, &[0, 2], (2, 1), 2, true),
        chains(4, &[2, 0], (2, 1), 2, true),
        returns(3, &[0], (2, 1), 2),
        returns(4, &[0], (2, 1), 2),
    ]
}

fn is_named(names: &[String], any: &[&str]) -> bool {
    names.is_empty() || names.iter().any(|name| any.contains(&name.as_str()))
}

/// Runs the searches whose models are named, or all. Whether all were complete.
pub(crate) fn run(names: &[String]) -> bool {
    if let Some(unknown) = names.iter().find(|name| !is_known(name)) {
        eprintln!("there is no model {unknown:?}");
        return false;
    }
    let begun = Instant::now();
    println!(
        "{:10} {:>8}  {:44} {:>12} {:>13} {:>5} {:>8}",
        "model", "replicas", "up to", "states", "steps", "depth", "time"
    );
    let mut is_sound = true;
    for entry in all().into_iter().filter(|entry| is_named(names, &[entry.model, &entry.name()])) {
        let report = (entry.run)(Search::Depth(THREADS));
        let word = if report.is_complete() { "complete" } else { "NOT COMPLETE" };
        println!(
            "{:10} {:>8}  {:44} {:>12} {:>13} {:>5} {:>6.1} s  {word}",
            entry.model,
            entry.replicas,
            entry.operations,
            report.unique,
            report.generated,
            report.depth,
            report.time.as_secs_f64(),
        );
        is_sound &= report.is_complete();
        tell(&report);
    }
    is_sound &= run_breaks(names);
    println!("\nall in {:.0} s, with at most {}", begun.elapsed().as_secs_f64(), memory_max());
    is_sound
}

fn is_known(name: &str) -> bool {
    let models = all().into_iter().any(|entry| [entry.model, &entry.name()].contains(&name));
    models || breaks::all().into_iter().any(|entry| [entry.model, "breaks"].contains(&name))
}

/// The most memory that this process ever had, as Linux tells it.
fn memory_max() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or("an unknown amount of memory".into(), |peak| format!("{} of memory", peak.trim()))
}

/// The models bite: each break is found, by the rule that it breaks.
fn run_breaks(names: &[String]) -> bool {
    println!(
        "\n{:10} {:42} {:10} {:>5} {:>9} {:>8}",
        "model", "broken on purpose", "found by", "steps", "states", "time"
    );
    let mut are_found = true;
    for entry in breaks::all().into_iter().filter(|entry| is_named(names, &[entry.model, "breaks"])) {
        let report = entry.find();
        let found = report.counter_example.as_ref();
        let is_found = found.is_some_and(|found| found.fault.rule == entry.rule);
        println!(
            "{:10} {:42} {:10} {:>5} {:>9} {:>6.1} s  {}",
            entry.model,
            entry.what,
            found.map_or("nothing", |found| found.fault.rule),
            found.map_or(0, |found| found.path.len()),
            report.unique,
            report.time.as_secs_f64(),
            if is_found { "found" } else { "NOT FOUND" },
        );
        are_found &= is_found;
    }
    are_found
}

/// What stands against a search, if anything does.
fn tell(report: &Report) {
    if let Some(found) = &report.counter_example {
        println!("  broken: {}: {}", found.fault.rule, found.fault.text);
        for (number, action) in (1..).zip(&found.path) {
            println!("  {number:3}. {action}");
        }
    } else if report.expanded != report.unique {
        println!("  {} of {} states were left by all of their actions", report.expanded, report.unique);
    }
    for witness in &report.unseen {
        println!("  never happened: {witness}");
    }
}
