//! Grants and sales: rights move by grants whose answers are lost, late and repeated; crashes take back what was not
//! durable; and nobody ever sells what another one sells too (rules B1 to B5, R8).

use std::sync::Arc;

use stockmesh_proto::check::check_granted;
use stockmesh_proto::operation::{Operation, Outcome, OversellPolicy};
use stockmesh_proto::wire::{Ask, Granted};

use crate::check::{Fault, Seen, System};
use crate::log::Log;
use crate::node::{Node, healed, meet, nothing_left_before_it_was_durable};
use crate::replica::{NOW_MS, Replica, SHARD, place, replica_id, shards, sku, units};
use crate::sent::Sent;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Broken {
    #[default]
    Nothing,
    /// A grant is told before it is durable (against rule B3). Only customers look.
    ToldEarly,
    /// A sale asks for what is available alone, not for own rights (against rule B2). Only customers look.
    SellsBeyondRights,
    /// An answer is taken for rights of its own, beside the grant in the state (against rule B5). Only customers look.
    AnswerCountsTwice,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Grants {
    pub(crate) replicas: usize,
    /// Units that the first replica has at the start, and all know of.
    pub(crate) stock: u64,
    /// Grants at the most.
    pub(crate) grants: u8,
    pub(crate) crashes: u8,
    pub(crate) broken: Broken,
}

/// An answer to a question for rights.
#[derive(Clone, Debug)]
struct Answer {
    from: usize,
    to: usize,
    granted: Granted,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct State {
    nodes: Vec<Node>,
    /// By replica: sales whose callers wait for the disk, and answers that do.
    selling: Vec<u64>,
    waiting: Vec<Sent<Answer>>,
    /// All that was ever sent.
    sent: Sent<Answer>,
    log: Arc<Log>,
    /// Units that customers were told are theirs.
    sold: u64,
    grants_left: u8,
    crashes_left: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Sell(usize),
    /// A question of the first comes to the second, who grants a unit. Questions that are lost never come.
    Grant {
        asker: usize,
        giver: usize,
    },
    Sync(usize),
    /// An answer comes to its asker.
    Deliver(usize),
    Meet(usize, usize),
    Crash(usize),
}

const REFUSED: usize = 0;
const SOLD_GRANTED: usize = 1;
const ANSWER_GAP: usize = 2;
const TAKEN_BACK: usize = 3;
const SOLD_OUT: usize = 4;

fn sku_a() -> stockmesh_proto::Sku {
    sku("A")
}

impl System for Grants {
    type State = State;
    type Action = Action;

    const WITNESSES: &'static [&'static str] = &[
        "a sale was refused",
        "granted rights were sold",
        "an answer came behind a gap",
        "a crash took something back",
        "all was sold",
    ];

    fn initial(&self) -> State {
        let mut first = Replica::new(0);
        let receive = Operation::Receive { sku: sku_a(), location: place(), units: units(self.stock) };
        let (evaluation, push) = first.write(vec![receive], NOW_MS).unwrap();
        let mut log = Log::default();
        log.note(first.id, &evaluation);
        let mut nodes = vec![Node::of(first)];
        for index in 1..self.replicas {
            let mut replica = Replica::new(index);
            replica.take_push(push.as_ref().unwrap()).unwrap();
            nodes.push(Node::of(replica));
        }
        State {
            nodes,
            selling: vec![0; self.replicas],
            waiting: vec![Sent::default(); self.replicas],
            sent: Sent::default(),
            log: Arc::new(log),
            sold: 0,
            grants_left: self.grants,
            crashes_left: self.crashes,
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for index in 0..self.replicas {
            actions.push(Action::Sell(index));
            if !state.nodes[index].is_durable() || !state.waiting[index].is_empty() {
                actions.push(Action::Sync(index));
                if state.crashes_left > 0 {
                    actions.push(Action::Crash(index));
                }
            }
            let others = (0..self.replicas).filter(|other| *other != index);
            if state.grants_left > 0 {
                actions.extend(others.clone().map(|giver| Action::Grant { asker: index, giver }));
            }
            actions.extend(others.filter(|other| *other > index).map(|other| Action::Meet(index, other)));
        }
        actions.extend((0..state.sent.len()).map(Action::Deliver));
    }

    fn step(&self, state: &State, action: &Action, seen: &Seen) -> Result<Option<State>, Fault> {
        let mut next = state.clone();
        match *action {
            Action::Sell(index) => {
                if !self.sell(&mut next, index, seen) {
                    return Ok(None);
                }
            }
            Action::Grant { asker, giver } => {
                if !self.grant(&mut next, asker, giver)? {
                    return Ok(None);
                }
            }
            Action::Sync(index) => next.sync(index),
            Action::Deliver(number) => self.deliver(&mut next, number, seen)?,
            Action::Meet(left, right) => {
                next.sync(left);
                next.sync(right);
                match meet(&mut next.nodes, left, right) {
                    // Customers see nothing of it.
                    Err(_) if self.broken != Broken::Nothing => return Ok(None),
                    met => met?,
                }
            }
            Action::Crash(index) => {
                let node = &mut next.nodes[index];
                node.crash();
                let (id, durable) = (node.id(), node.disk.shard.version().get(node.id()));
                if node.memory.shard.version().get(id) < state.nodes[index].memory.shard.version().get(id) {
                    seen.note(TAKEN_BACK);
                }
                Arc::make_mut(&mut next.log).truncate(id, durable);
                next.selling[index] = 0;
                next.waiting[index] = Sent::default();
                next.crashes_left -= 1;
            }
        }
        if next == *state {
            return Ok(None);
        }
        self.check(state, &next, matches!(action, Action::Crash(_)), seen)?;
        Ok(Some(next))
    }
}

impl Grants {
    fn sell(&self, next: &mut State, index: usize, seen: &Seen) -> bool {
        let mut replica = Replica::clone(&next.nodes[index].memory);
        let is_oversold = self.broken == Broken::SellsBeyondRights && replica.product(&sku_a()).on_hand() > 0;
        let policy = if is_oversold { OversellPolicy::Backorder } else { OversellPolicy::Refuse };
        let sale = Operation::Sell { sku: sku_a(), location: place(), units: units(1), policy };
        let Ok((evaluation, _)) = replica.write(vec![sale], NOW_MS) else {
            seen.note(REFUSED);
            return false;
        };
        if index > 0 {
            seen.note(SOLD_GRANTED);
        }
        Arc::make_mut(&mut next.log).note(replica.id, &evaluation);
        next.nodes[index].put(replica);
        next.selling[index] += 1;
        true
    }

    /// Rule B3: a unit of rights, if there is one; the answer waits for the disk.
    fn grant(&self, next: &mut State, asker: usize, giver: usize) -> Result<bool, Fault> {
        let mut replica = Replica::clone(&next.nodes[giver].memory);
        let grant = Operation::Grant { sku: sku_a(), location: place(), to: replica_id(asker), units: 1 };
        let (evaluation, _) =
            replica.write(vec![grant], NOW_MS).map_err(|error| Fault::new("B3", error.to_string()))?;
        let [Outcome::Granted { units: 1, sequence }] = evaluation.outcomes[..] else { return Ok(false) };
        Arc::make_mut(&mut next.log).note(replica.id, &evaluation);
        let products = vec![(sku_a(), replica.product(&sku_a()).at_location(&place()))];
        let granted = Granted { units: 1, sequence, shard: SHARD, products };
        let outbox = if self.broken == Broken::ToldEarly { &mut next.sent } else { &mut next.waiting[giver] };
        outbox.add(Answer { from: giver, to: asker, granted });
        next.nodes[giver].put(replica);
        next.grants_left -= 1;
        Ok(true)
    }

    /// Rule B5: the answer is checked, merged, and its one write claimed if it joins on.
    fn deliver(&self, next: &mut State, number: usize, seen: &Seen) -> Result<(), Fault> {
        let answer = next.sent.get(number);
        let (granted, giver) = (&answer.granted, replica_id(answer.from));
        let mut replica = Replica::clone(&next.nodes[answer.to].memory);
        let ask = Ask { sku: sku_a(), location: place(), needed: 1, rights: 0, per_hour: 0 };
        check_granted(granted, &ask, (giver, replica.id), shards())
            .map_err(|error| Fault::new("B5", format!("an honest answer is refused: {error}")))?;
        if self.broken != Broken::ToldEarly {
            replica.check_future(&granted.products, None)?;
        }
        replica.merge(&granted.products);
        if !replica.shard.claim_range(giver, granted.sequence, granted.sequence) {
            seen.note(ANSWER_GAP);
        }
        if self.broken == Broken::AnswerCountsTwice && next.nodes[answer.to].memory.rights(&sku_a(), replica.id) == 0 {
            let receive = Operation::Receive { sku: sku_a(), location: place(), units: units(1) };
            replica.write(vec![receive], NOW_MS).unwrap();
        }
        next.nodes[answer.to].put(replica);
        Ok(())
    }

    fn check(&self, before: &State, after: &State, is_crash: bool, seen: &Seen) -> Result<(), Fault> {
        if after.sold > self.stock {
            return Err(Fault::new("oversold", format!("{} of {} units were sold", after.sold, self.stock)));
        }
        if after.sold == self.stock {
            seen.note(SOLD_OUT);
        }
        if self.broken != Broken::Nothing {
            return Ok(());
        }
        for (before, node) in before.nodes.iter().zip(&after.nodes) {
            if !Arc::ptr_eq(&before.disk, &node.disk) {
                after.log.audit(&before.disk, &node.disk)?;
            }
            if !is_crash && !Arc::ptr_eq(&before.memory, &node.memory) {
                after.log.audit(&before.memory, &node.memory)?;
            }
            // Rule B2: of the own rights no view is too high.
            if node.memory.rights(&sku_a(), node.id()) < 0 {
                return Err(Fault::new("B2", format!("{} sold more than its rights", node.id())));
            }
        }
        nothing_left_before_it_was_durable(&after.nodes)?;
        let memories: Vec<_> = after.nodes.iter().map(|node| &node.memory).collect();
        seen.once((memories, after.sold, &after.selling), || self.check_shares(after))
    }

    /// Once all have met: rights are shared out of what is available, none made, none lost, none below zero (rule B1).
    fn check_shares(&self, state: &State) -> Result<(), Fault> {
        let all = healed(state.nodes.iter())?;
        let product = all.product(&sku_a());
        let rights = product.rights_at(&place());
        let available = product.available_at(&place());
        let pending: u64 = state.selling.iter().sum();
        let left = i128::from(self.stock) - i128::from(state.sold) - i128::from(pending);
        if available != left || rights.values().sum::<i128>() != available || rights.values().any(|units| *units < 0) {
            return Err(Fault::new("B1", format!("rights {rights:?} of {available}, {left} are left")));
        }
        Ok(())
    }
}

impl State {
    fn sync(&mut self, index: usize) {
        self.nodes[index].sync();
        self.sold += std::mem::take(&mut self.selling[index]);
        for answer in std::mem::take(&mut self.waiting[index]).into_iter() {
            self.sent.add(Answer::clone(&answer));
        }
    }
}
