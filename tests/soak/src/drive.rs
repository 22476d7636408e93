//! Drives the cluster: starts it, plans its faults, collects what the nodes tell and what they take.

use std::collections::BTreeSet;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::lag::Lag;
use crate::process::{Node, PATIENCE, Status, all_known, running, until};
use crate::sample::{Figures, Process, Sample, directory};
use crate::sky::Weather;
use crate::soaking::{NODES, name, now_us};
use crate::world::World;

/// These are never killed, so that their processes live as long as the run: growth shows best there.
pub(crate) const LONG_LIVED: usize = 4;
/// How often it is looked what nodes tell.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The one place that says how long things take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) length: Duration,
    /// What is sampled before is not judged: caches, windows and the ledger fill, and the allocator finds its size.
    pub(crate) warm_up: Duration,
    fault: Duration,
    /// How long the cluster may take to be as before after a fault.
    grace: Duration,
    calm: Duration,
    every: Duration,
}

impl Plan {
    pub(crate) fn new(length: Duration, every: Duration) -> Self {
        let seconds = Duration::from_secs;
        let warm_up = (length / 4).clamp(seconds(20), seconds(300));
        // In a long run a fault lasts longer than the 20 s after which a silent link is given up and a member is taken for
        // dead; then redialling, which pauses for up to 10 s, and a handshake must fit into the grace.
        let (fault, grace, calm) = if length < seconds(600) { (6, 8, 6) } else { (25, 15, 15) };
        Self { length, warm_up, fault: seconds(fault), grace: seconds(grace), calm: seconds(calm), every }
    }
}

/// Microseconds of the clock between which something was.
pub(crate) type Window = (u64, u64);

pub(crate) struct Drive {
    pub(crate) world: World,
    plan: Plan,
    begun: Instant,
    next_sample: Instant,
    paused: BTreeSet<usize>,
    /// When each node's present process began, and which it is.
    lives: [(Instant, usize); NODES],
    figures: [Option<Figures>; NODES],
    pub(crate) samples: Vec<Sample>,
    pub(crate) lag: Lag,
    pub(crate) calm: Vec<Window>,
    pub(crate) faults: Vec<(&'static str, Window)>,
    /// What must not happen, as it was told.
    pub(crate) odd: Vec<String>,
    /// What all nodes said when they had settled, and the sums that one told.
    pub(crate) statuses: Vec<Status>,
    pub(crate) last: Vec<String>,
}

impl Drive {
    pub(crate) fn new(world: World, plan: Plan) -> Self {
        let now = Instant::now();
        Self {
            world,
            plan,
            begun: now,
            next_sample: now,
            paused: BTreeSet::new(),
            lives: [(now, 0); NODES],
            figures: [None; NODES],
            samples: Vec::new(),
            lag: Lag::default(),
            calm: Vec::new(),
            faults: Vec::new(),
            odd: Vec::new(),
            statuses: Vec::new(),
            last: Vec::new(),
        }
    }

    /// Starts all, fills the catalogue, and lets them work.
    pub(crate) fn grow(&mut self) {
        (0..NODES).for_each(|number| self.start(number));
        all_known(&mut self.world.nodes);
        self.world.nodes[0].say("fill");
        until("the catalogue is there", PATIENCE, || {
            self.listen();
            !self.last.is_empty()
        });
        self.begun = Instant::now();
        self.world.load();
    }

    fn start(&mut self, number: usize) {
        self.world.start(number);
        self.lives[number] = (Instant::now(), self.lives[number].1 + 1);
        self.figures[number] = None;
    }

    /// Lets faults happen until the time is over.
    pub(crate) fn run(&mut self) {
        self.rest();
        for round in 0.. {
            for fault in [Self::weather, Self::part, Self::kill, Self::stop, Self::slow] {
                let left = self.plan.length.saturating_sub(self.begun.elapsed());
                if left < self.plan.fault + self.plan.grace + self.plan.calm {
                    return self.pass(left);
                }
                let begun_us = now_us();
                let what = fault(self, round);
                self.faults.push((what, (begun_us, now_us())));
                self.tell(what);
                self.pass(self.plan.grace);
                self.rest();
            }
        }
    }

    /// For whoever waits an hour.
    fn tell(&self, what: &str) {
        let latest = &self.samples[self.samples.len().saturating_sub(NODES)..];
        let mib = |bytes: Option<u64>| bytes.unwrap_or_default() >> 20;
        let (rss, disk) =
            (latest.iter().map(|sample| sample.rss_bytes), latest.iter().map(|sample| sample.allocated_bytes));
        println!(
            "{:5} s: {what:10} is over; {} to {} MiB resident, {} to {} MiB on disk",
            self.begun.elapsed().as_secs(),
            mib(rss.clone().min()),
            mib(rss.max()),
            mib(disk.clone().min()),
            mib(disk.max())
        );
    }

    /// A time without faults, after the last one is overcome.
    fn rest(&mut self) {
        let begun_us = now_us();
        self.pass(self.plan.calm);
        self.calm.push((begun_us, now_us()));
    }

    fn weather(&mut self, _: usize) -> &'static str {
        // A quarter overtakes the others by the whole delay.
        self.world.air.make(Weather {
            delay_ms: 20,
            jitter_ms: 10,
            lost_percent: 5,
            doubled_percent: 5,
            overtaking_percent: 25,
            kilobits: 0,
        });
        self.pass(self.plan.fault);
        self.world.air.make(Weather::default());
        "weather"
    }

    /// In halves, or one from all others, by turns.
    fn part(&mut self, round: usize) -> &'static str {
        let is_left = |node: usize| if round.is_multiple_of(2) { node % 4 < 2 } else { node == round % NODES };
        let pairs = (0..NODES).flat_map(|one| (0..NODES).map(move |other| (one, other)));
        let apart: Vec<(usize, usize)> = pairs.filter(|(one, other)| is_left(*one) != is_left(*other)).collect();
        self.world.air.cut(&apart);
        self.pass(self.plan.fault);
        self.world.air.cut(&[]);
        "partition"
    }

    fn kill(&mut self, round: usize) -> &'static str {
        let victim = LONG_LIVED + round % (NODES - LONG_LIVED);
        self.world.nodes[victim].kill();
        self.pass(self.plan.fault);
        self.start(victim);
        self.world.nodes[victim].say("load on");
        "kill"
    }

    fn stop(&mut self, round: usize) -> &'static str {
        let victim = (round * 3 + 1) % NODES;
        self.world.pause(victim);
        self.paused.insert(victim);
        self.pass(self.plan.fault);
        self.world.go_on(victim);
        self.paused.remove(&victim);
        "standstill"
    }

    /// One node gets a fifth of the time.
    fn slow(&mut self, round: usize) -> &'static str {
        let victim = (round * 3 + 2) % NODES;
        let brake = Brake::on(self.world.nodes[victim].process_id());
        self.paused.insert(victim);
        self.pass(self.plan.fault);
        drop(brake);
        self.paused.remove(&victim);
        "slow node"
    }

    /// Lets time pass, and writes down what happens.
    fn pass(&mut self, length: Duration) {
        let end = Instant::now() + length;
        loop {
            self.listen();
            if Instant::now() >= self.next_sample {
                self.next_sample = Instant::now() + self.plan.every;
                self.sample();
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            sleep(left.min(LOOK_EVERY));
        }
    }

    fn sample(&mut self) {
        for number in 0..NODES {
            let node = &mut self.world.nodes[number];
            if !node.runs() || self.paused.contains(&number) {
                continue;
            }
            let Some(process) = Process::look(node.process_id()) else { continue };
            let Process { rss_bytes, descriptors, threads, processor_seconds } = process;
            let (allocated_bytes, apparent_bytes) = directory(&node.directory());
            let (began, life) = self.lives[number];
            self.samples.push(Sample {
                at_seconds: self.begun.elapsed().as_secs_f64(),
                node: number,
                life,
                age_seconds: began.elapsed().as_secs_f64(),
                rss_bytes,
                descriptors,
                threads,
                processor_seconds,
                allocated_bytes,
                apparent_bytes,
                figures: self.figures[number],
            });
            node.say("figures");
        }
    }

    pub(crate) fn listen(&mut self) {
        for number in 0..NODES {
            for line in self.world.nodes[number].take_besides() {
                self.hear(number, &line);
            }
        }
    }

    fn hear(&mut self, node: usize, line: &str) {
        let words: Vec<&str> = line.split_whitespace().skip(1).collect();
        let number = |place: usize| words[place].parse::<u64>().unwrap();
        match words.as_slice() {
            ["figures", figures @ ..] => self.figures[node] = Some(Figures::parse(figures)),
            ["probed", ..] => self.lag.wrote(node, number(1), number(2)),
            ["seen", writer, ..] => {
                let writer = (0..NODES).find(|number| name(*number) == *writer).unwrap();
                self.lag.saw(writer, node, number(2), number(3));
            }
            ["final" | "filled", ..] => self.last = words.iter().map(|word| (*word).to_owned()).collect(),
            _ => self.odd.push(format!("{}: {line}", name(node))),
        }
    }

    /// Ends the load, and waits until all hold the same. Returns how long that took.
    pub(crate) fn settle(&mut self) -> Duration {
        self.world.rest();
        // At rest nothing grows.
        self.next_sample = Instant::now() + Duration::from_secs(3_600);
        // Holds are to run out.
        self.pass(Duration::from_millis(crate::load::HOLD_MS_MAX + 2_000));
        let took = self.converge();
        self.pass(Duration::from_millis(500));
        self.last.clear();
        self.world.nodes[0].say("final");
        until("the sums are told", PATIENCE, || {
            self.listen();
            !self.last.is_empty()
        });
        let new_ids = self.statuses.iter().map(|status| status.new_ids).sum::<usize>();
        if new_ids > 0 {
            self.odd.push(format!("{new_ids} new ids were taken"));
        }
        took
    }

    /// Waits until all hold the same. Rights go on moving after the last sale, so what was equal may differ a moment later.
    fn converge(&mut self) -> Duration {
        let begun = Instant::now();
        loop {
            self.statuses = running(&mut self.world.nodes).map(Node::status).collect();
            let is_equal = self.statuses.windows(2).all(|pair| pair[0].fingerprint == pair[1].fingerprint);
            if is_equal || begun.elapsed() > PATIENCE {
                return begun.elapsed();
            }
            sleep(LOOK_EVERY);
        }
    }

    /// A store that grew must close as any other.
    pub(crate) fn end(&mut self) {
        running(&mut self.world.nodes).for_each(Node::close);
    }
}

/// Stops a process four fifths of the time.
struct Brake {
    process: u32,
    child: Child,
}

impl Brake {
    fn on(process: u32) -> Self {
        let script = format!("while kill -STOP {process}; do sleep 0.08; kill -CONT {process}; sleep 0.02; done");
        let child = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        Self { process, child }
    }
}

impl Drop for Brake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = Command::new("kill").args(["-CONT", &self.process.to_string()]).status();
    }
}
