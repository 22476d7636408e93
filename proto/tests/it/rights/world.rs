//! The model world: replicas, what is on its way between them, and everything that can happen to either.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use stockmesh_proto::check::{DriftCheck, check_granted};
use stockmesh_proto::gossip::check_push;
use stockmesh_proto::grant::{DemandShare, GrantPolicy, GrantRequest, NeedOnly};
use stockmesh_proto::operation::{Operation, OperationRefused, Outcome, Request};
use stockmesh_proto::reconcile::{Effect, Session, Settings};
use stockmesh_proto::wire::{Ask, Granted, Message, Push};
use stockmesh_proto::{Location, ReplicaId, ShardCount, Sku};

use super::checks::{Check, run_checks};
use super::disk::{Disk, ForgetsExpiry, difference};
use super::goods::{Ack, Goods, History};
use super::judge::{disagreement, inherit, kind};
use super::node::{Node, Out};
use super::retire::Retired;
use crate::support::{replica_id, shard_count};

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Broken {
    #[default]
    Nothing,
    /// A grant is told before it is durable (against rule B3).
    TellsEarly,
    /// A reopen forgets that a hold has expired (against rule O6).
    ExpiresTwice,
    /// A restored copy goes on under its id (against rule B6).
    KeepsId,
    /// A restored copy takes a new id and gives it the rights of the old one (against rule B6).
    Inherits,
    /// An heir takes over by what it knows alone, and nobody stops taking writes of the retired (against rule E7).
    SkipsTheFence,
    /// An heir counts again what the retired replica counts already (against rule E2).
    CountsAgain,
    /// Who comes back counts what it alone had once more, in its own name (against rule E5).
    ReappliesTwice,
}

/// A message on its way, as bytes. An answer knows the number of its question, as a stream does.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: (usize, ReplicaId),
    pub(super) to: (usize, ReplicaId),
    question: Option<usize>,
    bytes: Rc<Vec<u8>>,
}

/// Messages on their way at the most; older ones are lost then.
const PACKETS_MAX: usize = 64;

/// A poor policy: it gives whatever is wanted, and more than there is (rule B3 holds all the same).
#[derive(Debug)]
struct Boundless;

impl GrantPolicy for Boundless {
    fn units(&self, request: &GrantRequest) -> u64 {
        request.needed * 2
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) nodes: Vec<Node>,
    /// By how much each clock runs ahead, in milliseconds.
    pub(super) skews: Vec<u64>,
    /// Who can talk with whom: those of equal numbers.
    pub(super) sides: Vec<u8>,
    /// Who is down, perhaps for good.
    pub(super) dead: Vec<bool>,
    /// Ids of which each replica takes no further write.
    pub(super) fenced: Vec<BTreeSet<ReplicaId>>,
    /// Ids that each directory wrote under before.
    pub(super) former: Vec<BTreeSet<ReplicaId>>,
    pub(super) retired: BTreeMap<ReplicaId, Retired>,
    /// Ids whose directory was put back to an old copy.
    pub(super) cut_short: BTreeSet<ReplicaId>,
    pub(super) now_ms: u64,
    pub(super) network: VecDeque<Packet>,
    questions: Vec<Ask>,
    /// Requests with a reference that callers may send again, and where.
    pub(super) said: Vec<(usize, Request)>,
    pub(super) goods: Goods,
    pub(super) history: History,
    pub(super) broken: Broken,
    /// What went wrong in a step itself.
    pub(super) faults: Vec<String>,
    /// How often what happened: so that a test can tell that schedules reach it.
    pub(super) seen: BTreeMap<&'static str, u64>,
    checks: &'static [(&'static str, Check)],
    ids_minted: u64,
    need_only: bool,
}

impl World {
    pub(super) fn new(replicas: usize, references_max: usize, checks: &'static [(&'static str, Check)]) -> Self {
        let count = shard_count(2);
        let ids = (1..).take(replicas);
        Self {
            nodes: ids.map(|bits| Node::new(bits, count, references_max)).collect(),
            skews: vec![0; replicas],
            sides: vec![0; replicas],
            dead: vec![false; replicas],
            fenced: vec![BTreeSet::new(); replicas],
            former: vec![BTreeSet::new(); replicas],
            retired: BTreeMap::new(),
            cut_short: BTreeSet::new(),
            now_ms: 1_000_000,
            network: VecDeque::new(),
            questions: Vec::new(),
            said: Vec::new(),
            goods: Goods::default(),
            history: History::default(),
            broken: Broken::Nothing,
            faults: Vec::new(),
            seen: BTreeMap::new(),
            checks,
            ids_minted: 100,
            need_only: false,
        }
    }

    pub(super) fn count(&self) -> ShardCount {
        self.nodes[0].count
    }

    pub(super) fn clock(&self, index: usize) -> u64 {
        self.now_ms + self.skews[index]
    }

    /// Holds every rule against one replica and the omniscient model.
    pub(super) fn check(&self, index: usize) -> Result<(), String> {
        run_checks(self.checks, self, index)
    }

    fn fault(&mut self, text: String) {
        self.faults.push(text);
    }

    /// A caller's request. It is acknowledged with the next sync.
    pub(super) fn request(&mut self, index: usize, request: &Request) -> Result<Vec<Outcome>, OperationRefused> {
        let now_ms = self.clock(index);
        let expected = self.nodes[index].predict(request, now_ms);
        let done = self.nodes[index].apply(request, now_ms);
        if let Some(text) = disagreement(&expected, &done) {
            self.fault(format!("at {} {request:?}: {text}", self.nodes[index].id));
        }
        *self.seen.entry(kind(request.operations.first(), &done)).or_default() += 1;
        let evaluation = done?;
        if !evaluation.repeated {
            self.history.note(&evaluation);
            let excess = expected.map(|expected| expected.excess).unwrap_or_default();
            let (operations, outcomes) = (request.operations.clone(), evaluation.outcomes.clone());
            let node = &mut self.nodes[index];
            node.waiting.push(Ack { id: node.id, operations, outcomes, now_ms, excess });
        }
        Ok(evaluation.outcomes)
    }

    pub(super) fn sync(&mut self, index: usize) {
        for ack in self.nodes[index].sync() {
            self.goods.acknowledge(&ack);
        }
        for out in std::mem::take(&mut self.nodes[index].outbox) {
            match out {
                Out::Push(push) => {
                    let others = (0..self.nodes.len()).filter(|other| *other != index);
                    for other in others.collect::<Vec<_>>() {
                        self.send(index, (other, self.nodes[other].id), None, &Message::Push(push.clone()));
                    }
                }
                Out::Answer(to, id, question, granted) => {
                    self.send(index, (to, id), Some(question), &Message::Granted(granted));
                }
            }
        }
    }

    fn send(&mut self, index: usize, to: (usize, ReplicaId), question: Option<usize>, message: &Message) {
        let bytes = Rc::new(message.encode().unwrap()[4..].to_vec());
        self.network.push_back(Packet { from: (index, self.nodes[index].id), to, question, bytes });
        if self.network.len() > PACKETS_MAX {
            self.network.pop_front();
        }
    }

    /// Rule B4: asks a peer for rights.
    pub(super) fn ask(
        &mut self,
        index: usize,
        peer: usize,
        sku: &Sku,
        location: &Location,
        (needed, per_hour): (u64, u64),
    ) {
        let node = &self.nodes[index];
        let rights = u64::try_from(node.product_of(sku).rights(location, node.id).max(0)).unwrap();
        let ask = Ask { sku: sku.clone(), location: location.clone(), needed, rights, per_hour };
        self.questions.push(ask.clone());
        self.send(index, (peer, self.nodes[peer].id), Some(self.questions.len() - 1), &Message::Ask(ask));
    }

    /// Delivers a message, if its sides are linked; a copy may stay behind.
    pub(super) fn deliver(&mut self, position: usize, keep_copy: bool) -> Option<usize> {
        let Packet { from, to, .. } = self.network[position];
        if self.sides[from.0] != self.sides[to.0] {
            return None;
        }
        let packet = self.network[position].clone();
        if !keep_copy || self.dead[to.0] {
            self.network.remove(position);
        }
        if self.dead[to.0] {
            return None;
        }
        if self.fenced[to.0].contains(&from.1) {
            if self.is_live(from.0) && self.nodes[from.0].id == from.1 {
                self.tells_retirement(to.0, from.0);
            }
            return Some(to.0);
        }
        match Message::decode(&packet.bytes) {
            Ok(Message::Push(push)) => self.take_push(to.0, &push),
            Ok(Message::Ask(ask)) => self.answer(&packet, &ask),
            Ok(Message::Granted(granted)) => self.take_grant(&packet, &granted),
            other => self.fault(format!("{other:?} is on its way")),
        }
        Some(to.0)
    }

    fn take_push(&mut self, index: usize, push: &Push) {
        let drift = DriftCheck { now_ms: self.clock(index), drift_ms_max: u64::MAX };
        if let Err(error) = check_push(push, self.count(), drift) {
            self.fault(format!("an honest push is refused: {error}"));
            return;
        }
        for part in &push.shards {
            if self.nodes[index].shows_own_future(part.shard, &part.products, None) {
                self.meet_future(index);
            }
            self.learn(index, &part.products);
            let node = &mut self.nodes[index];
            node.merge(part.shard, &part.products);
            node.claim_range(part.shard, push.origin, part.from, part.to);
        }
    }

    /// Rules B3 and B5: gives rights, and tells it with what it sees of the product there, once that is durable.
    fn answer(&mut self, packet: &Packet, ask: &Ask) {
        let index = packet.to.0;
        if self.nodes[index].is_restored {
            return;
        }
        let (mut units, mut sequence) = (0, 0);
        if packet.to.1 == self.nodes[index].id {
            let node = &self.nodes[index];
            let own = u64::try_from(node.product_of(&ask.sku).rights(&ask.location, node.id).max(0)).unwrap();
            let figures = GrantRequest::new(ask.needed, ask.rights, ask.per_hour, own, 100);
            let policy: &dyn GrantPolicy = match ask.per_hour {
                _ if self.need_only => &NeedOnly,
                50 => &Boundless,
                _ => &DemandShare::default(),
            };
            let wanted = policy.units(&figures);
            let (sku, location) = (ask.sku.clone(), ask.location.clone());
            let grant = Operation::Grant { sku, location, to: packet.from.1, units: wanted };
            match self.request(index, &vec![grant].into()).as_deref() {
                Ok([Outcome::Granted { units: given, sequence: number }]) => (units, sequence) = (*given, *number),
                other => self.fault(format!("a grant is answered with {other:?}")),
            }
        }
        let Some(question) = packet.question else { return };
        let node = &mut self.nodes[index];
        let (shard, products) = (node.count.shard_of(&ask.sku), node.shown(&ask.sku, &ask.location));
        let granted = Granted { units, sequence, shard, products };
        if self.broken == Broken::TellsEarly {
            self.send(index, packet.from, packet.question, &Message::Granted(granted));
        } else {
            node.outbox.push(Out::Answer(packet.from.0, packet.from.1, question, granted));
        }
    }

    fn take_grant(&mut self, packet: &Packet, granted: &Granted) {
        let (index, giver) = (packet.to.0, packet.from.1);
        let (own, ask) = (self.nodes[index].id, self.questions[packet.question.unwrap()].clone());
        let checked = check_granted(granted, &ask, (giver, own), self.count());
        if packet.to.1 != own {
            // Its link died with the id that asked. Rights of that id must be of no use to this one (rule B6).
            if granted.units > 0 && checked.is_ok() {
                self.fault(format!("{own} takes what was granted to {}", packet.to.1));
            }
            return;
        }
        if let Err(error) = checked {
            self.fault(format!("an honest answer is refused: {error}"));
            return;
        }
        if self.nodes[index].shows_own_future(granted.shard, &granted.products, None) {
            self.meet_future(index);
        }
        self.learn(index, &granted.products);
        let node = &mut self.nodes[index];
        node.merge(granted.shard, &granted.products);
        if granted.units > 0 && !node.claim_range(granted.shard, giver, granted.sequence, granted.sequence) {
            *self.seen.entry("gaps in answers").or_default() += 1;
        }
    }

    /// A peer shows an own write that is not here (rule I2).
    fn meet_future(&mut self, index: usize) {
        if self.broken == Broken::KeepsId {
            return;
        }
        if !self.nodes[index].is_restored {
            self.fault(format!("{} meets its future, and was not restored", self.nodes[index].id));
        }
        self.incarnate(index);
    }

    /// Takes a new id, as after a restore that was declared.
    pub(super) fn incarnate(&mut self, index: usize) {
        self.sync(index);
        self.ids_minted += 1;
        let how = if self.nodes[index].is_restored { "took a new id" } else { "took a new id for nothing" };
        *self.seen.entry(how).or_default() += 1;
        let before = self.nodes[index].id;
        self.former[index].insert(before);
        self.nodes[index].incarnate(replica_id(self.ids_minted));
        if self.broken == Broken::Inherits {
            inherit(&mut self.nodes[index], before);
        }
    }

    pub(super) fn crash(&mut self, index: usize) {
        let node = &self.nodes[index];
        let disk = node.disk.clone();
        // A restored copy wrote nothing since; that its disk is behind takes nothing back that others know.
        if !node.is_restored {
            self.history.truncate(disk.id, node.count, |shard| disk.table[shard.as_usize()].version().get(disk.id));
        }
        self.reopen(index, disk);
    }

    fn reopen(&mut self, index: usize, disk: Disk) {
        if let Some(text) = difference(&disk.open_books(ForgetsExpiry(false)), &disk.books, &disk.memory) {
            self.fault(format!("the books of {} are others after a reopen: {text}", disk.id));
        }
        let forgets = ForgetsExpiry(self.broken == Broken::ExpiresTwice);
        let mut reopened = Node::open(disk, self.count(), forgets);
        let node = &mut self.nodes[index];
        std::mem::swap(&mut reopened.backups, &mut node.backups);
        reopened.is_restored = node.is_restored;
        *node = reopened;
    }

    pub(super) fn backup(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.backups.push(node.disk.clone());
    }

    /// Puts an old copy of the directory back. Until it has taken a new id it writes nothing.
    pub(super) fn restore(&mut self, index: usize, which: usize, is_declared: bool) {
        if self.nodes[index].backups.is_empty() {
            return;
        }
        self.crash(index);
        let node = &self.nodes[index];
        let disk = node.backups[which % node.backups.len()].clone();
        // Copies of a former id could be put back as well; they say the same once more.
        if disk.id != node.id {
            return;
        }
        // What it took over of others may be on its way still, and unknown to who inherits next.
        self.retired.values_mut().for_each(|retired| retired.is_exact = false);
        self.cut_short.insert(disk.id);
        self.reopen(index, disk);
        self.nodes[index].is_restored = self.broken != Broken::KeepsId;
        if is_declared && self.broken != Broken::KeepsId {
            self.incarnate(index);
        }
    }

    /// A reconciliation that is cut after so many messages. Whatever a side read is durable before it leaves.
    pub(super) fn reconcile(&mut self, opener: usize, accepter: usize, messages_max: usize) {
        let is_cut = self.sides[opener] != self.sides[accepter] || self.dead[opener] || self.dead[accepter];
        if is_cut || opener == accepter {
            return;
        }
        // The retired one is refused and told; it comes back under its new id.
        if self.tells_retirement(opener, accepter) || self.tells_retirement(accepter, opener) {
            return;
        }
        let settings = Settings { shards: self.count(), drift_ms_max: u64::MAX, chunk_bytes_target: 0 };
        let sides = [opener, accepter];
        let mut sessions = [Session::open(settings, &self.nodes[opener], None), Session::accept(settings)];
        let mut messages = 0;
        while !sessions.iter().all(Session::is_finished) {
            let mut moved = false;
            for side in [0, 1] {
                while let Some(message) = sessions[side].poll_transmit(&self.nodes[sides[side]]) {
                    moved = true;
                    messages += 1;
                    if messages > messages_max {
                        return;
                    }
                    self.sync(sides[side]);
                    let other = sides[1 - side];
                    let effects = sessions[1 - side].handle(message, &self.nodes[other], self.clock(other)).unwrap();
                    if self.carry_out(other, effects) {
                        // Its peers know it by another id: the link ends.
                        return;
                    }
                }
            }
            assert!(moved, "the session is stuck");
        }
    }

    /// Whether the replica took a new id.
    fn carry_out(&mut self, index: usize, effects: Vec<Effect>) -> bool {
        let own = self.nodes[index].id;
        for effect in effects {
            match effect {
                Effect::OwnFuture { .. } if own == self.nodes[index].id => self.meet_future(index),
                Effect::Merge { delta, claim } => {
                    let node = &self.nodes[index];
                    if own == node.id && node.shows_own_future(delta.shard, &delta.products, claim.as_ref()) {
                        self.meet_future(index);
                    }
                    self.learn(index, &delta.products);
                    let node = &mut self.nodes[index];
                    node.merge(delta.shard, &delta.products);
                    if let Some(claim) = claim {
                        node.claim(delta.shard, &claim);
                    }
                }
                _ => {}
            }
        }
        own != self.nodes[index].id
    }

    /// Ends all partitions, takes a new id wherever an old copy was restored, and makes everyone meet everyone.
    pub(super) fn heal(&mut self) {
        self.sides.fill(0);
        while !self.network.is_empty() {
            self.deliver(0, false);
        }
        let live = self.live();
        for index in &live {
            if self.nodes[*index].is_restored {
                self.incarnate(*index);
            }
            self.sync(*index);
        }
        // Who is told that it was retired needs another round.
        for _ in 0..3 {
            for (place, left) in live.iter().enumerate() {
                live[place + 1..].iter().for_each(|right| self.reconcile(*left, *right, usize::MAX));
            }
        }
        live.into_iter().for_each(|index| self.sync(index));
        self.network.clear();
    }

    /// Asks every other replica for all it has (rules B4, B5).
    pub(super) fn gather(&mut self, index: usize, sku: &Sku, location: &Location) {
        self.need_only = true;
        for peer in self.live().into_iter().filter(|peer| *peer != index) {
            self.network.clear();
            self.ask(index, peer, sku, location, (u64::MAX >> 1, 0));
            self.deliver(0, false);
            self.sync(peer);
            let answer = self.network.iter().position(|packet| packet.question.is_some()).unwrap();
            self.deliver(answer, false);
        }
        self.need_only = false;
        self.network.clear();
    }
}
