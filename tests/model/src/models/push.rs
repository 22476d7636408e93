//! Pushes: sent once durable, lost, repeated, late and with gaps between them, beside reconciliations, crashes and deaths
//! (rules P1 to P5, M3, R8).

use std::sync::Arc;

use stockmesh_proto::operation::Operation;
use stockmesh_proto::wire::Push;
use stockmesh_proto::{Currency, Price, VersionVector};

use crate::check::{Fault, Seen, System};
use crate::conversation::heal;
use crate::log::Log;
use crate::node::{Node, healed, meet};
use crate::replica::{NOW_MS, Replica, place, sku, units};
use crate::sent::Sent;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Broken {
    #[default]
    Nothing,
    /// A push is built when it is sent, from the slots that carry the writer's dots then (against rule P1, the second trap).
    RebuiltFromState,
    /// The same, and nobody looks at the vectors: only what replicas hold at the end counts.
    RebuiltFromStateUnseen,
    /// A push claims its range though it does not join on (against rule M3).
    ClaimsOverGaps,
    /// A push is sent before its writes are durable (against rule R8).
    SentEarly,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Pushes {
    pub(crate) replicas: usize,
    pub(crate) requests: u8,
    pub(crate) crashes: u8,
    pub(crate) deaths: u8,
    pub(crate) broken: Broken,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct State {
    /// `None` for the dead.
    nodes: Vec<Option<Node>>,
    /// By writer: pushes that wait for the disk.
    waiting: Vec<Sent<Push>>,
    /// All that was ever sent: each may come to anybody, at any time, any number of times, or never.
    sent: Sent<Push>,
    log: Arc<Log>,
    requests_left: u8,
    crashes_left: u8,
    deaths_left: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    SetPrice(usize),
    Receive(usize),
    /// One request of two writes: a price and a counter.
    PriceAndReceive(usize),
    /// The disk is written; what waited for it is sent.
    Sync(usize),
    /// A push comes to a replica.
    Deliver(usize, usize),
    /// Two replicas reconcile.
    Meet(usize, usize),
    Crash(usize),
    Die(usize),
}

const GAP: usize = 0;
const JOINED: usize = 1;
const TAKEN_BACK: usize = 2;

impl System for Pushes {
    type State = State;
    type Action = Action;

    const WITNESSES: &'static [&'static str] =
        &["a push came behind a gap", "a push joined on", "a crash took something back"];

    fn initial(&self) -> State {
        State {
            nodes: (0..self.replicas).map(|index| Some(Node::new(index))).collect(),
            waiting: vec![Sent::default(); self.replicas],
            sent: Sent::default(),
            log: Arc::default(),
            requests_left: self.requests,
            crashes_left: self.crashes,
            deaths_left: self.deaths,
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let live: Vec<usize> = (0..self.replicas).filter(|index| state.nodes[*index].is_some()).collect();
        for index in live.iter().copied() {
            if state.requests_left > 0 {
                actions.extend([Action::SetPrice(index), Action::Receive(index), Action::PriceAndReceive(index)]);
            }
            if !state.node(index).is_durable() || !state.waiting[index].is_empty() {
                actions.push(Action::Sync(index));
                if state.crashes_left > 0 {
                    actions.push(Action::Crash(index));
                }
            }
            if state.deaths_left > 0 && live.len() > 2 {
                actions.push(Action::Die(index));
            }
            actions.extend((0..state.sent.len()).map(|number| Action::Deliver(number, index)));
            let others = live.iter().copied().filter(|other| *other > index);
            actions.extend(others.map(|other| Action::Meet(index, other)));
        }
    }

    fn step(&self, state: &State, action: &Action, seen: &Seen) -> Result<Option<State>, Fault> {
        let mut next = state.clone();
        let price = |index: usize| {
            let price = Price::from_parts(100 + u64::try_from(index).unwrap(), 2, Currency::EUR).unwrap();
            Operation::SetPrice { sku: sku("B"), price }
        };
        let receive = || Operation::Receive { sku: sku("A"), location: place(), units: units(1) };
        match *action {
            Action::SetPrice(index) => self.write(&mut next, index, vec![price(index)]),
            Action::Receive(index) => self.write(&mut next, index, vec![receive()]),
            Action::PriceAndReceive(index) => self.write(&mut next, index, vec![price(index), receive()]),
            Action::Sync(index) => self.sync(&mut next, index),
            Action::Deliver(number, index) => self.deliver(&mut next, number, index, seen)?,
            Action::Meet(left, right) => {
                self.sync(&mut next, left);
                self.sync(&mut next, right);
                let mut pair = [state.node(left).clone(), state.node(right).clone()];
                meet(&mut pair, 0, 1)?;
                [next.nodes[left], next.nodes[right]] = pair.map(Some);
            }
            Action::Crash(index) => {
                if state.node(index).memory.shard.fingerprint() != state.node(index).disk.shard.fingerprint() {
                    seen.note(TAKEN_BACK);
                }
                next.crash(index);
                next.crashes_left -= 1;
            }
            Action::Die(index) => {
                next.crash(index);
                next.nodes[index] = None;
                next.deaths_left -= 1;
            }
        }
        if next.crashes_left == 0 {
            // What is on disk is of no meaning any more.
            next.nodes.iter_mut().flatten().for_each(Node::sync);
        }
        if next == *state {
            return Ok(None);
        }
        self.check(state, &next, matches!(action, Action::Crash(_)), seen)?;
        Ok(Some(next))
    }
}

impl Pushes {
    fn write(&self, next: &mut State, index: usize, operations: Vec<Operation>) {
        let mut replica = Replica::clone(&next.node(index).memory);
        let (evaluation, push) = replica.write(operations, NOW_MS).unwrap();
        Arc::make_mut(&mut next.log).note(replica.id, &evaluation);
        let outbox = if self.broken == Broken::SentEarly { &mut next.sent } else { &mut next.waiting[index] };
        push.into_iter().for_each(|push| outbox.add(push));
        next.node_mut(index).put(replica);
        next.requests_left -= 1;
    }

    /// What was written is durable, and its pushes go out as they were committed (rule P1).
    fn sync(&self, next: &mut State, index: usize) {
        next.node_mut(index).sync();
        for push in std::mem::take(&mut next.waiting[index]).into_iter() {
            next.sent.add(Push::clone(&push));
        }
    }

    fn deliver(&self, next: &mut State, number: usize, index: usize, seen: &Seen) -> Result<(), Fault> {
        let mut push = next.sent.get(number);
        if matches!(self.broken, Broken::RebuiltFromState | Broken::RebuiltFromStateUnseen) {
            let origin = next.nodes.iter().flatten().find(|node| node.id() == push.origin);
            push = origin.map_or(push.clone(), |origin| Arc::new(rebuilt(&push, &origin.memory)));
        }
        // The origin counts as told (rule P4).
        if push.origin == next.node(index).id() {
            return Ok(());
        }
        let mut replica = Replica::clone(&next.node(index).memory);
        let is_gapless = replica.take_push(&push)?;
        seen.note(if is_gapless { JOINED } else { GAP });
        if self.broken == Broken::ClaimsOverGaps {
            let to = push.shards.iter().map(|part| (push.origin, part.to));
            replica.shard.claim(&to.collect::<VersionVector>());
        }
        next.node_mut(index).put(replica);
        Ok(())
    }

    fn check(&self, before: &State, after: &State, is_crash: bool, seen: &Seen) -> Result<(), Fault> {
        let pairs = before.nodes.iter().zip(&after.nodes);
        for (before, node) in pairs.filter_map(|(before, after)| before.as_ref().zip(after.as_ref())) {
            if self.broken == Broken::RebuiltFromStateUnseen {
                continue;
            }
            if !Arc::ptr_eq(&before.disk, &node.disk) {
                after.log.audit(&before.disk, &node.disk)?;
            }
            if !is_crash && !Arc::ptr_eq(&before.memory, &node.memory) {
                after.log.audit(&before.memory, &node.memory)?;
            }
        }
        let known: Vec<_> = after.nodes.iter().map(|node| node.as_ref().map(|node| &node.memory)).collect();
        seen.once(known, || {
            let nodes = after.nodes.iter().flatten();
            if self.broken == Broken::RebuiltFromStateUnseen {
                let mut replicas: Vec<Replica> = nodes.map(|node| Replica::clone(&node.memory)).collect();
                return heal(&mut replicas, false);
            }
            healed(nodes).map(|_| ())
        })
    }
}

/// The break: the range as it was, and of the state what still carries the writer's dots in that range.
fn rebuilt(push: &Push, replica: &Replica) -> Push {
    let mut push = push.clone();
    for part in &mut push.shards {
        let range = part.from..=part.to;
        let own = replica.everything().products.into_iter().map(|(sku, product)| {
            let is_own = |dot: stockmesh_proto::Dot| dot.replica == replica.id && range.contains(&dot.sequence);
            (sku, product.filtered(&mut |slot| is_own(slot.dot())))
        });
        let own: Vec<_> = own.filter(|(_, product)| !product.is_empty()).collect();
        // Whose last write is superseded too would be refused (rule P2).
        if own.iter().flat_map(|(_, product)| product.slots()).any(|slot| slot.dot().sequence == part.to) {
            part.products = own;
        }
    }
    push
}

impl State {
    fn node(&self, index: usize) -> &Node {
        self.nodes[index].as_ref().unwrap()
    }

    fn node_mut(&mut self, index: usize) -> &mut Node {
        self.nodes[index].as_mut().unwrap()
    }

    /// Back to what is durable; the writes behind it were told to nobody.
    fn crash(&mut self, index: usize) {
        let node = self.node_mut(index);
        node.crash();
        let (id, durable) = (node.id(), node.disk.shard.version().get(node.id()));
        Arc::make_mut(&mut self.log).truncate(id, durable);
        self.waiting[index] = Sent::default();
    }
}
