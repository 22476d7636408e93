//! The nodes of a run: opened, killed, closed and opened again.

use std::time::Duration;

use stockmesh::{Builder, Store, simulation};
use tokio::task::JoinSet;

use crate::books::Books;
use crate::chance::Chance;
use crate::disks::{Disks, Images};
use crate::endpoint::{NODES_MAX, identity, maker};
use crate::network::{Network, address};
use crate::operations::{Caller, signed};
use crate::plan::{Action, PLACES, Plan};
use crate::trace::Trace;
use crate::watching::Watched;

/// How long callers may take to hear of their writes when a node is closed.
const CALLERS_TIME_MAX: Duration = Duration::from_secs(20);

/// A node of the run.
#[derive(Debug)]
pub struct Node {
    /// Its number, from 1.
    pub number: u16,
    /// Its store while it is up.
    pub store: Option<Store>,
    disks: Disks,
    /// What its disks held when it went down, or never yet.
    images: Images,
    /// An old copy of them, and when it was made.
    copy: Option<(Images, Duration)>,
    /// Whether it ever went on with an old copy.
    pub was_set_back: bool,
    callers: JoinSet<()>,
    /// What a subscriber was told since the node was opened.
    pub watched: Option<Watched>,
}

/// All of a run.
#[derive(Debug)]
pub struct World {
    /// What is to happen.
    pub plan: Plan,
    /// What happened.
    pub trace: Trace,
    /// What callers know.
    pub books: Books,
    /// The network.
    pub network: Network,
    /// The nodes.
    pub nodes: Vec<Node>,
    chance: Chance,
}

impl World {
    /// A world in which no node is up.
    #[must_use]
    pub fn new(plan: Plan, trace: Trace) -> Self {
        let mut chance = Chance::new(plan.seed);
        let network = Network::new(chance.fork(), trace.clone(), plan.usual);
        let nodes = (1..=NODES_MAX).map(|number| Node::new(number, chance.fork())).collect();
        Self { plan, trace, books: Books::default(), network, nodes, chance }
    }

    /// The nodes that are up, with their numbers.
    #[must_use]
    pub fn up(&self) -> Vec<(u16, Store)> {
        self.nodes.iter().filter_map(|node| Some((node.number, node.store.clone()?))).collect()
    }

    fn node(&mut self, number: u16) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.number == number)
    }

    /// Opens a node that is not up.
    ///
    /// # Errors
    /// If it cannot be opened, which no fault here excuses.
    pub async fn open(&mut self, number: u16, with_copy: bool) -> Result<(), String> {
        let (chance, network) = (self.chance.fork(), self.network.clone());
        let (plan, trace) = (self.plan.clone(), self.trace.clone());
        let Some(node) = self.nodes.iter_mut().find(|node| node.number == number && node.store.is_none()) else {
            return Ok(());
        };
        let copy = node.copy.take().filter(|_| with_copy);
        if let Some((images, since)) = &copy {
            node.images = images.clone();
            node.was_set_back = true;
            self.books.doubt(number, *since);
        }
        let mut chance = chance;
        node.disks = Disks::new(std::mem::take(&mut node.images), chance.fork());
        let (store_disk, mark_disk) = node.disks.boxes();
        let mut builder =
            settings(number, &plan)?.disks(store_disk, mark_disk).simulated(u32::from(number), maker(&network, chance));
        if copy.is_some() {
            builder = builder.restored();
        }
        let opened = builder.open().await;
        let store = opened.map_err(|error| format!("node {number} cannot be opened: {error}"))?;
        node.disks.set_sync_time(plan.sync_time.0, plan.sync_time.1);
        trace.note(format_args!(
            "node {number}: opened as {}{}",
            store.replica_id(),
            if copy.is_some() { ", set back" } else { "" }
        ));
        node.watched = Some(Watched::start(&store));
        // Under another id a write might be done a second time.
        let unanswered = if node.was_set_back { Vec::new() } else { self.books.unanswered(number) };
        for (write, action) in unanswered {
            let (store, books, trace) = (store.clone(), self.books.clone(), trace.clone());
            node.callers.spawn(Caller { node: number, store, books, trace }.retry(write, action));
        }
        node.store = Some(store);
        Ok(())
    }

    /// Ends a node without a word to anybody.
    pub fn kill(&mut self, number: u16, power: Option<u64>) {
        let (trace, network) = (self.trace.clone(), self.network.clone());
        let Some(node) = self.node(number) else { return };
        let Some(store) = node.store.take() else { return };
        // What callers have not heard yet stays unknown.
        node.callers.abort_all();
        node.callers = JoinSet::new();
        node.watched = None;
        network.unplug(address(number));
        node.images = match power {
            Some(seed) => node.disks.lose_power(seed),
            None => node.disks.kill(),
        };
        drop(store);
        trace.note(format_args!("node {number}: {}", if power.is_some() { "loses power" } else { "is killed" }));
    }

    async fn close(&mut self, number: u16) {
        let (trace, network) = (self.trace.clone(), self.network.clone());
        let Some(node) = self.node(number) else { return };
        let Some(store) = node.store.take() else { return };
        let closed = store.close().await;
        let mut callers = std::mem::take(&mut node.callers);
        let all_heard = async { while callers.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(CALLERS_TIME_MAX, all_heard).await.is_ok();
        node.watched = None;
        node.images = node.disks.kill();
        // The process ends, though its connections would be drained for a while.
        network.unplug(address(number));
        trace.note(format_args!("node {number}: closed, {closed:?}, callers heard: {in_time}"));
    }

    /// Does what the plan says.
    ///
    /// # Errors
    /// If a node cannot be opened.
    pub async fn act(&mut self, number: u16, action: Action) -> Result<(), String> {
        match action {
            Action::Kill => self.kill(number, None),
            Action::LosePower { seed } => self.kill(number, Some(seed)),
            Action::Close => self.close(number).await,
            Action::Open { with_copy } => self.open(number, with_copy).await?,
            Action::Copy => {
                let now = self.trace.now();
                if let Some(node) = self.node(number).filter(|node| node.store.is_some()) {
                    node.copy = Some((node.disks.copy(), now));
                }
            }
            Action::Change { to, line } => {
                let usual = self.plan.usual;
                let line = if line == crate::network::Line::default() { usual } else { line };
                self.network.change(address(number), address(to), |present| *present = line);
            }
            Action::ShiftClock { by_ms } => simulation::shift_clock(u32::from(number), by_ms),
            Action::DriftClock { millionths } => simulation::drift_clock(u32::from(number), millionths),
            Action::SlowDisk { sync_ms } => {
                if let Some(node) = self.node(number) {
                    node.disks.set_sync_time(Duration::from_millis(sync_ms), Duration::from_millis(sync_ms));
                }
            }
            Action::FailSync => self.node(number).into_iter().for_each(|node| node.disks.fail_at_sync()),
            Action::FillDisk => self.node(number).into_iter().for_each(|node| node.disks.fill()),
            operation => self.call(number, operation),
        }
        Ok(())
    }

    fn call(&mut self, number: u16, action: Action) {
        let (books, trace) = (self.books.clone(), self.trace.clone());
        let Some(node) = self.node(number) else { return };
        let Some(store) = node.store.clone() else { return };
        while node.callers.try_join_next().is_some() {}
        node.callers.spawn(Caller { node: number, store, books, trace }.carry_out(action));
    }

    /// Ends all faults: the network is good, clocks are right, and every node that ever was is up, on a disk that works.
    ///
    /// # Errors
    /// If a node cannot be opened.
    pub async fn heal(&mut self) -> Result<(), String> {
        self.trace.note("the faults end");
        self.network.heal_for_good();
        let right_ms = simulation::wall_ms(0).unwrap_or_default();
        for number in 1..=NODES_MAX {
            let clock = u32::from(number);
            let off_ms = simulation::wall_ms(clock).map_or(0, |shown_ms| signed(shown_ms) - signed(right_ms));
            simulation::drift_clock(clock, 0);
            simulation::shift_clock(clock, -off_ms);
            let Some(node) = self.node(number) else { continue };
            node.disks.set_sync_time(Duration::from_millis(1), Duration::ZERO);
            let is_failed = node
                .store
                .as_ref()
                .is_some_and(|store| !matches!(store.status().durability, stockmesh::Durability::Synced))
                || node.disks.is_bad();
            if is_failed {
                self.kill(number, None);
            }
            if self.node(number).is_some_and(|node| node.store.is_none() && !node.images[0].is_empty()) {
                self.open(number, false).await?;
            }
        }
        Ok(())
    }

    /// Waits until all callers heard of their writes. Returns whether they did in time.
    pub async fn callers_end(&mut self, limit: Duration) -> bool {
        let all = async {
            for node in &mut self.nodes {
                while node.callers.join_next().await.is_some() {}
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }
}

impl Node {
    fn new(number: u16, chance: Chance) -> Self {
        let disks = Disks::new(Images::default(), chance);
        let (images, callers) = (Images::default(), JoinSet::new());
        Self { number, store: None, disks, images, copy: None, was_set_back: false, callers, watched: None }
    }
}

fn settings(number: u16, plan: &Plan) -> Result<Builder, String> {
    let identity = identity(number).map_err(|error| error.to_string())?;
    let mut builder = Store::builder()
        .cluster("simulated")
        .location(PLACES[0])
        .shards(plan.shards)
        .listen(address(number))
        .identity(identity)
        .reconcile_every(plan.reconcile_every)
        .timing(plan.timing);
    // The first ones know each other, and whoever comes later knows two of them.
    for peer in (1..=plan.nodes.min(3)).filter(|peer| *peer != number) {
        builder = builder.peer(address(peer).to_string());
    }
    Ok(builder)
}
