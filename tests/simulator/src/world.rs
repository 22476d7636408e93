//! The nodes of a run: opened, killed, closed and opened again.

use std::time::Duration;

use stockmesh::{Builder, CloseError, OpenError, ReplicaId, Store, simulation};
use tokio::task::JoinSet;

use crate::books::Books;
use crate::chance::Chance;
use crate::checkers::Broken;
use crate::copies::Copied;
use crate::departures::Leaving;
use crate::disks::{Disks, Images};
use crate::endpoint::{identity, maker};
use crate::generator::LARGE;
use crate::network::{Network, address};
use crate::operations::{Caller, signed};
use crate::plan::{Action, Directory, PLACES, Plan};
use crate::trace::Trace;
use crate::watching::Watched;

/// How long callers may take to hear of their writes when a node is closed.
const CALLERS_TIME_MAX: Duration = Duration::from_secs(20);
/// How long a node may take to close.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(120);
/// How many nodes of a large cluster are closed at once at the end.
const CLOSED_AT_ONCE_OF_LARGE: usize = 20;

/// A node of the run.
#[derive(Debug)]
pub struct Node {
    /// Its number, from 1.
    pub number: u16,
    /// The number of its certificate.
    pub certificate: u16,
    /// The ids in the directory of another node that it was opened with a copy of, those before the last too.
    pub shared_ids: Vec<ReplicaId>,
    /// Its store while it is up.
    pub store: Option<Store>,
    /// The id of its last life.
    pub replica: Option<ReplicaId>,
    pub(crate) disks: Disks,
    /// What its disks held when it went down, or never yet.
    pub(crate) images: Images,
    /// An old copy of them, and when it was made.
    pub(crate) copy: Option<(Images, Duration, ReplicaId)>,
    /// Whether it ever went on with less than it had acknowledged, or came back from the dead.
    pub was_set_back: bool,
    /// Whether nobody told it of an old copy.
    pub was_cloned: bool,
    /// Whether it came back from the dead.
    pub has_returned: bool,
    /// What is expected of it since it was opened with an old copy.
    pub copied: Option<Copied>,
    /// The id in the old copy that it was opened with last and told of.
    pub told_copy_of: Option<ReplicaId>,
    /// Whether bits flipped since it was up.
    pub(crate) is_rotten: bool,
    /// Whether it went down last because its power was lost.
    pub(crate) has_lost_power: bool,
    /// Whether it left or died, and is not opened any more.
    pub is_out: bool,
    /// Whether it died, and was not told to leave.
    pub is_dead: bool,
    pub(crate) leaving: Option<Leaving>,
    pub(crate) callers: JoinSet<()>,
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
        let nodes = plan.numbers.iter().map(|number| Node::new(*number, chance.fork())).collect();
        Self { plan, trace, books: Books::default(), network, nodes, chance }
    }

    /// The nodes that are up, with their numbers.
    #[must_use]
    pub fn up(&self) -> Vec<(u16, Store)> {
        self.nodes.iter().filter_map(|node| Some((node.number, node.store.clone()?))).collect()
    }

    pub(crate) fn node(&mut self, number: u16) -> Option<&mut Node> {
        self.nodes.iter_mut().find(|node| node.number == number)
    }

    /// Opens a node that is not up.
    ///
    /// # Errors
    /// If it cannot be opened, which no fault here excuses.
    pub async fn open(&mut self, number: u16, with: Directory) -> Result<(), String> {
        let is_down = |node: &&mut Node| node.store.is_none() && !node.is_out;
        let Some(node) = self.node(number).filter(is_down) else { return Ok(()) };
        let is_rotten = std::mem::take(&mut node.is_rotten);
        let copy = if with == Directory::Own { None } else { node.copy.take() };
        node.told_copy_of = copy.as_ref().filter(|_| with == Directory::Copy).map(|(.., former)| *former);
        if let Some((images, since, _)) = &copy {
            node.images = images.clone();
            node.was_set_back = true;
            node.was_cloned |= with == Directory::SecretCopy;
            self.books.doubt(number, *since);
            self.doubt_departed();
        }
        let is_told = copy.is_some() && with == Directory::Copy;
        let opened = match self.open_images(number, is_told).await? {
            Err(OpenError::Damaged { .. } | OpenError::Storage(_)) if is_rotten => {
                // It is set up anew, and gets from its peers what they have.
                self.trace.note(format_args!("node {number}: is damaged, and begins anew"));
                let Some(node) = self.node(number) else { return Ok(()) };
                (node.images, node.was_set_back) = (Images::default(), true);
                self.books.doubt(number, Duration::ZERO);
                self.doubt_departed();
                self.open_images(number, false).await?
            }
            opened => opened,
        };
        let store = opened.map_err(|error| format!("node {number} cannot be opened: {error}"))?;
        let copied = if copy.is_some() && !is_told {
            self.books.suspect(store.replica_id());
            self.copied(&store)
        } else {
            self.node(number).and_then(|node| node.copied)
        };
        let (times, trace) = (self.plan.sync_time, self.trace.clone());
        let Some(node) = self.node(number) else { return Ok(()) };
        node.disks.set_sync_time(times.0, times.1);
        let back = if copy.is_some() { ", set back" } else { "" };
        trace.note(format_args!("node {number}: opened as {}{back}", store.replica_id()));
        node.watched = Some(Watched::start(&store));
        node.copied = copied;
        node.replica = Some(store.replica_id());
        node.store = Some(store);
        self.ask_again(number);
        Ok(())
    }

    /// Opens what a node's disks hold.
    async fn open_images(&mut self, number: u16, is_told: bool) -> Result<Result<Store, OpenError>, String> {
        let (mut chance, network) = (self.chance.fork(), self.network.clone());
        let Some(certificate) = self.node(number).map(|node| node.certificate) else {
            return Err(format!("there is no node {number}"));
        };
        let mut builder = settings(number, certificate, &self.plan)?;
        let Some(node) = self.node(number) else { return Err(format!("there is no node {number}")) };
        // Kept for the case that they cannot be opened.
        node.disks = Disks::new(std::mem::take(&mut node.images), chance.fork());
        let (store_disk, mark_disk) = node.disks.boxes();
        builder = builder.disks(store_disk, mark_disk).simulated(u32::from(number), maker(&network, chance));
        if is_told {
            builder = builder.restored();
        }
        Ok(builder.open().await)
    }

    /// Ends a node without a word to anybody.
    pub fn kill(&mut self, number: u16, power: Option<u64>) {
        let (trace, network) = (self.trace.clone(), self.network.clone());
        let Some(node) = self.node(number) else { return };
        let Some(store) = node.store.take() else { return };
        node.replica = Some(store.replica_id());
        if let Some(leaving) = node.leaving.take() {
            leaving.abort();
        }
        // What callers have not heard yet stays unknown.
        node.callers.abort_all();
        node.callers = JoinSet::new();
        node.watched = None;
        network.unplug(address(number));
        node.has_lost_power = power.is_some();
        node.images = match power {
            Some(seed) => node.disks.lose_power(seed),
            None => node.disks.kill(),
        };
        drop(store);
        self.witness_ended(number);
        trace.note(format_args!("node {number}: {}", if power.is_some() { "loses power" } else { "is killed" }));
    }

    /// Closes these nodes at once. Returns those whose stores say that something went wrong.
    async fn close(&mut self, numbers: &[u16]) -> Result<Vec<(u16, CloseError)>, Broken> {
        let mut faults = Vec::new();
        let mut closing = Vec::new();
        for number in numbers {
            // Whoever leaves closes the store itself.
            let Some(node) = self.node(*number).filter(|node| node.leaving.is_none()) else { continue };
            let Some(store) = node.store.take() else { continue };
            let closes = async move { tokio::time::timeout(CLOSE_TIME_MAX, store.close()).await };
            closing.push((*number, tokio::spawn(closes)));
        }
        for (number, closes) in closing {
            let unanswered = |what: &str| Broken { checker: "answered", what: format!("node {number}: {what}") };
            let closed = closes.await.map_err(|_| unanswered("ends without being closed"))?;
            let closed = closed.map_err(|_| unanswered("does not close"))?;
            let in_time = self.end_callers(number).await;
            self.trace.note(format_args!("node {number}: closed, {closed:?}"));
            if !in_time {
                return Err(unanswered("callers have not heard of their writes after it was closed"));
            }
            faults.extend(closed.err().map(|fault| (number, fault)));
        }
        Ok(faults)
    }

    /// The process of a closed node ends. Whether its callers were answered in time.
    async fn end_callers(&mut self, number: u16) -> bool {
        let (trace, network) = (self.trace.clone(), self.network.clone());
        let Some(node) = self.node(number) else { return true };
        let mut callers = std::mem::take(&mut node.callers);
        let all_heard = async { while callers.join_next().await.is_some() {} };
        let in_time = tokio::time::timeout(CALLERS_TIME_MAX, all_heard).await.is_ok();
        (node.watched, node.has_lost_power) = (None, false);
        node.images = node.disks.kill();
        let disk_bytes = node.images.iter().map(Vec::len).sum::<usize>();
        trace.comment(|| format!("node {number}: has {disk_bytes} bytes on its disks"));
        // Though its connections would be drained for a while.
        network.unplug(address(number));
        self.witness_ended(number);
        in_time
    }

    /// Closes all nodes, when all is over. In large clusters some at once: each takes seconds, in which all others go on.
    ///
    /// # Errors
    /// If one does not close, or leaves callers without an answer.
    pub async fn close_all(&mut self) -> Result<(), Broken> {
        let numbers = self.plan.numbers.clone();
        let at_once = if self.plan.nodes > LARGE { CLOSED_AT_ONCE_OF_LARGE } else { 1 };
        for numbers in numbers.chunks(at_once) {
            // Their disks are well by now.
            if let Some((number, fault)) = self.close(numbers).await?.into_iter().next() {
                let what = format!("node {number} does not close well, though all is well: {fault}");
                return Err(Broken { checker: "healthy", what });
            }
        }
        Ok(())
    }

    /// Does what the plan says.
    ///
    /// # Errors
    /// If a node cannot be opened, or closed.
    pub async fn act(&mut self, number: u16, action: Action) -> Result<(), Broken> {
        match action {
            Action::Kill => self.kill(number, None),
            Action::LosePower { seed } => self.kill(number, Some(seed)),
            Action::Close => drop(self.close(&[number]).await?),
            Action::Open { with } => self.open(number, with).await.map_err(unopened)?,
            Action::Rot { seed } => self.rot(number, seed),
            Action::Leave => self.leave(number),
            Action::Die => self.die(number),
            Action::Retire { dead } => self.retire(number, dead),
            Action::Return => {
                if self.may_return(number) {
                    self.open(number, Directory::Own).await.map_err(unopened)?;
                }
            }
            Action::Rotate => self.rotate(number).map_err(unopened)?,
            Action::Twin { of, has_its_certificate } => {
                self.twin(number, of, has_its_certificate).await.map_err(unopened)?;
            }
            Action::Copy => {
                let now = self.trace.now();
                if let Some(node) = self.node(number)
                    && let Some(store) = &node.store
                {
                    node.copy = Some((node.disks.copy(), now, store.replica_id()));
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
        if node.copied.is_some_and(|copied| copied.replica == store.replica_id()) {
            return;
        }
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
        self.departures_end().await;
        let right_ms = simulation::wall_ms(0).unwrap_or_default();
        for number in self.plan.numbers.clone() {
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
                self.open(number, Directory::Own).await?;
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
        Self {
            number,
            certificate: number,
            shared_ids: Vec::new(),
            store: None,
            replica: None,
            disks,
            images: Images::default(),
            copy: None,
            was_set_back: false,
            was_cloned: false,
            has_returned: false,
            copied: None,
            told_copy_of: None,
            is_rotten: false,
            has_lost_power: false,
            is_out: false,
            is_dead: false,
            leaving: None,
            callers: JoinSet::new(),
            watched: None,
        }
    }
}

/// A node that cannot be opened.
pub(crate) fn unopened(what: String) -> Broken {
    Broken { checker: "opens", what }
}

fn settings(number: u16, certificate: u16, plan: &Plan) -> Result<Builder, String> {
    let identity = identity(certificate).map_err(|error| error.to_string())?;
    let mut builder = Store::builder()
        .cluster("simulated")
        .location(PLACES[0])
        .shards(plan.shards)
        .listen(address(number))
        .identity(identity)
        .links(plan.links)
        .reconcile_every(plan.reconcile_every)
        .timing(plan.timing);
    // The first ones know each other, and whoever comes later knows two of them.
    for peer in (1..=plan.nodes.min(3)).filter(|peer| *peer != number) {
        builder = builder.peer(address(peer).to_string());
    }
    Ok(builder)
}
