//! Holds: given, committed in whole and in part, released and expired, with crashes and restarts in between; each is
//! resolved once, whatever its caller asks and how often (rules O5 to O7, D6).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stockmesh_proto::hold::{Hold, HoldId, HoldState};
use stockmesh_proto::operation::{Books, Operation, OperationRefused, Outcome, OversellPolicy};

use crate::check::{Fault, Seen, System};
use crate::log::Log;
use crate::node::{Node, healed, meet};
use crate::replica::{NOW_MS, Replica, place, replica_id, sku, units};

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Broken {
    #[default]
    Nothing,
    /// A restart takes holds that expired for active, so that they expire twice (against rule O6).
    ExpiresTwice,
    /// The same, and only customers look: by what they were sold.
    ExpiresTwiceUnseen,
    /// Slots and holds are written one after the other, and a crash comes in between (against rule D6).
    HoldsWrittenLate,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Holds {
    pub(crate) replicas: usize,
    /// Units that each replica has the rights to at the start.
    pub(crate) stock: u64,
    /// Holds that are given at the most.
    pub(crate) holds: u8,
    /// Sales without a hold.
    pub(crate) sales: u8,
    /// How often a time to live passes.
    pub(crate) ticks: u8,
    pub(crate) crashes: u8,
    pub(crate) broken: Broken,
}

const TTL_MS: u64 = 10;

/// What a caller is told once it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Told {
    Held(HoldId, u64),
    Resolved(HoldId, u64),
    Expired(HoldId),
    Sold(u64),
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct State {
    nodes: Vec<Node>,
    now_ms: u64,
    /// By replica: answers that wait for the disk.
    waiting: Vec<Vec<Told>>,
    /// By hold: its units, and those sold once it was resolved, as callers were told.
    holds: BTreeMap<HoldId, (u64, Option<u64>)>,
    /// By replica: units that customers were told are theirs.
    sold: Vec<u64>,
    log: Arc<Log>,
    holds_left: u8,
    sales_left: u8,
    ticks_left: u8,
    crashes_left: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Hold(usize, u64),
    /// All of a hold, or one unit of it.
    Commit(usize, HoldId, Option<u64>),
    Release(usize, HoldId),
    Expire(usize, HoldId),
    Sell(usize),
    /// As much time passes as a hold lives.
    Tick,
    Sync(usize),
    Meet(usize, usize),
    /// Memory is lost, and what is on disk is read again.
    Restart(usize),
}

const COMMITTED: usize = 0;
const IN_PART: usize = 1;
const RELEASED: usize = 2;
const EXPIRED: usize = 3;
const TOO_LATE: usize = 4;
const REPEATED: usize = 5;
const ELSEWHERE: usize = 6;
const TAKEN_BACK: usize = 7;

impl System for Holds {
    type State = State;
    type Action = Action;

    const WITNESSES: &'static [&'static str] = &[
        "a hold was committed",
        "a hold was committed in part",
        "a hold was released",
        "a hold expired",
        "a commit came too late",
        "a resolution was asked for again",
        "a hold was refused elsewhere",
        "a restart took something back",
    ];

    fn initial(&self) -> State {
        let mut log = Log::default();
        let mut nodes: Vec<Node> = Vec::new();
        for index in 0..self.replicas {
            let mut replica = Replica::new(index);
            let receive = Operation::Receive { sku: sku("A"), location: place(), units: units(self.stock) };
            let (evaluation, _) = replica.write(vec![receive], NOW_MS).unwrap();
            log.note(replica.id, &evaluation);
            nodes.push(Node::of(replica));
        }
        State {
            nodes,
            now_ms: NOW_MS,
            waiting: vec![Vec::new(); self.replicas],
            holds: BTreeMap::new(),
            sold: vec![0; self.replicas],
            log: Arc::new(log),
            holds_left: self.holds,
            sales_left: self.sales,
            ticks_left: self.ticks,
            crashes_left: self.crashes,
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let known: BTreeSet<HoldId> =
            state.nodes.iter().flat_map(|node| node.memory.books.holds().map(|hold| hold.id)).collect();
        for index in 0..self.replicas {
            if state.holds_left > 0 {
                actions.extend([Action::Hold(index, 1), Action::Hold(index, 2)]);
            }
            for hold in known.iter().copied() {
                actions.extend([Action::Commit(index, hold, None), Action::Commit(index, hold, Some(1))]);
                actions.extend([Action::Release(index, hold), Action::Expire(index, hold)]);
            }
            if state.sales_left > 0 {
                actions.push(Action::Sell(index));
            }
            if !state.nodes[index].is_durable() || !state.waiting[index].is_empty() {
                actions.push(Action::Sync(index));
            }
            if state.crashes_left > 0 {
                actions.push(Action::Restart(index));
            }
            actions.extend((index + 1..self.replicas).map(|other| Action::Meet(index, other)));
        }
        if state.ticks_left > 0 {
            actions.push(Action::Tick);
        }
    }

    fn step(&self, state: &State, action: &Action, seen: &Seen) -> Result<Option<State>, Fault> {
        let mut next = state.clone();
        match *action {
            Action::Hold(index, many) => {
                let hold = Operation::Hold { sku: sku("A"), location: place(), units: units(many), ttl_ms: TTL_MS };
                next.request(index, hold, seen)?;
                next.holds_left -= u8::from(next != *state);
            }
            Action::Commit(index, id, many) => {
                next.request(index, Operation::CommitHold { id, units: many.map(units) }, seen)?;
            }
            Action::Release(index, id) => next.request(index, Operation::ReleaseHold { id }, seen)?,
            Action::Expire(index, id) => next.request(index, Operation::ExpireHold { id }, seen)?,
            Action::Sell(index) => {
                let policy = OversellPolicy::Refuse;
                let sale = Operation::Sell { sku: sku("A"), location: place(), units: units(1), policy };
                next.request(index, sale, seen)?;
                next.sales_left -= u8::from(next != *state);
            }
            Action::Tick => {
                next.now_ms += TTL_MS;
                next.ticks_left -= 1;
            }
            Action::Sync(index) => self.sync(&mut next, index)?,
            Action::Meet(left, right) => {
                self.sync(&mut next, left)?;
                self.sync(&mut next, right)?;
                meet(&mut next.nodes, left, right)?;
            }
            Action::Restart(index) => {
                if !state.nodes[index].is_durable() {
                    seen.note(TAKEN_BACK);
                }
                self.restart(&mut next, index);
                next.crashes_left -= 1;
            }
        }
        if next == *state {
            return Ok(None);
        }
        self.check(state, &next, matches!(action, Action::Restart(_)), seen)?;
        Ok(Some(next))
    }
}

impl Holds {
    /// Slots and books in one transaction; then callers are told (rule D6).
    fn sync(&self, next: &mut State, index: usize) -> Result<(), Fault> {
        let node = &mut next.nodes[index];
        if self.broken == Broken::HoldsWrittenLate {
            let books = node.disk.books.clone();
            node.disk = Arc::new(Replica { books, ..Replica::clone(&node.memory) });
        } else {
            node.sync();
        }
        for told in std::mem::take(&mut next.waiting[index]) {
            next.tell(index, told)?;
        }
        Ok(())
    }

    /// The books come from the rows on disk, as bytes.
    fn restart(&self, next: &mut State, index: usize) {
        let node = &mut next.nodes[index];
        let mut books = Books::new(u64::MAX, 16);
        for hold in node.disk.books.holds() {
            let mut hold = Hold::decode(&hold.encode().unwrap()).unwrap();
            let forgets = matches!(self.broken, Broken::ExpiresTwice | Broken::ExpiresTwiceUnseen);
            if forgets && matches!(hold.state, HoldState::Expired { .. }) {
                hold.state = HoldState::Active;
            }
            books.put_hold(hold);
        }
        *node = Node::of(Replica { books, ..Replica::clone(&node.disk) });
        let (id, durable) = (node.id(), node.disk.shard.version().get(node.id()));
        Arc::make_mut(&mut next.log).truncate(id, durable);
        next.waiting[index].clear();
    }

    fn check(&self, before: &State, after: &State, is_restart: bool, seen: &Seen) -> Result<(), Fault> {
        let stock = self.stock * u64::try_from(self.replicas).unwrap();
        if after.sold.iter().sum::<u64>() > stock {
            return Err(Fault::new("oversold", format!("{:?} of {stock} units were sold", after.sold)));
        }
        if self.broken == Broken::ExpiresTwiceUnseen {
            return Ok(());
        }
        for (index, node) in after.nodes.iter().enumerate() {
            if !is_restart && !Arc::ptr_eq(&before.nodes[index].memory, &node.memory) {
                after.log.audit(&before.nodes[index].memory, &node.memory)?;
            }
            for replica in [&node.memory, &node.disk] {
                books_fit_the_slots(replica)?;
            }
            after.told_fits_the_disk(index)?;
        }
        seen.once(after.nodes.iter().map(|node| &node.memory).collect::<Vec<_>>(), || {
            let all = healed(after.nodes.iter())?.product(&sku("A"));
            let rights = all.rights_at(&place());
            if rights.values().any(|units| *units < 0) || rights.values().sum::<i128>() != all.available_at(&place()) {
                return Err(Fault::new("B1", format!("rights {rights:?} of {}", all.available_at(&place()))));
            }
            Ok(())
        })
    }
}

/// Rule O6: the own slot holds what the active holds hold.
fn books_fit_the_slots(replica: &Replica) -> Result<(), Fault> {
    let active = replica.books.holds().filter(|hold| hold.state == HoldState::Active);
    let held: i128 = active.map(|hold| i128::from(hold.units)).sum();
    let slot = replica.product(&sku("A")).counters(&place(), replica.id);
    if slot.units_held() != held {
        return Err(Fault::new("O6", format!("{slot:?} of {}, but its books hold {held}", replica.id)));
    }
    Ok(())
}

impl State {
    /// A caller's request at a replica. A refusal changes nothing; but each must be one that the rules foresee.
    fn request(&mut self, index: usize, operation: Operation, seen: &Seen) -> Result<(), Fault> {
        let before = &self.nodes[index].memory;
        let mut replica = Replica::clone(before);
        let evaluation = match replica.write(vec![operation.clone()], self.now_ms) {
            Ok((evaluation, _)) => evaluation,
            Err(error) => return check_refusal(&operation, &error, replica.id, seen),
        };
        let told = match (&operation, evaluation.outcomes.first()) {
            (Operation::Hold { units, .. }, Some(Outcome::Held { id, .. })) => Some(Told::Held(*id, units.get())),
            (
                Operation::CommitHold { id, .. } | Operation::ReleaseHold { id },
                Some(Outcome::Resolved { sold, .. }),
            ) => {
                note_resolved(&operation, evaluation.holds.first(), seen);
                Some(Told::Resolved(*id, *sold))
            }
            (Operation::ExpireHold { id }, _) if !evaluation.holds.is_empty() => {
                seen.note(EXPIRED);
                Some(Told::Expired(*id))
            }
            (Operation::Sell { units, .. }, _) => Some(Told::Sold(units.get())),
            _ => None,
        };
        Arc::make_mut(&mut self.log).note(replica.id, &evaluation);
        self.nodes[index].put(replica);
        if let Some(told) = told {
            let waiting = &mut self.waiting[index];
            // Who asks again is told the same again; a sale is another one each time.
            if matches!(told, Told::Sold(_)) || !waiting.contains(&told) {
                waiting.push(told);
                waiting.sort_unstable();
            }
        }
        Ok(())
    }

    fn tell(&mut self, index: usize, told: Told) -> Result<(), Fault> {
        let (id, sold) = match told {
            Told::Sold(units) => {
                self.sold[index] += units;
                return Ok(());
            }
            Told::Held(id, units) => {
                if self.holds.insert(id, (units, None)).is_some() {
                    return Err(Fault::new("O5", format!("{id} was given twice")));
                }
                return Ok(());
            }
            Told::Resolved(id, sold) => (id, sold),
            Told::Expired(id) => (id, 0),
        };
        let Some((_, resolved)) = self.holds.get_mut(&id) else {
            return Err(Fault::new("O6", format!("{id} is resolved and was never given")));
        };
        match *resolved {
            None => {
                *resolved = Some(sold);
                self.sold[index] += sold;
            }
            Some(before) if before != sold => {
                return Err(Fault::new("O6", format!("{id} was resolved with {before} and then with {sold} sold")));
            }
            Some(_) => {}
        }
        Ok(())
    }

    /// What is on disk is what callers were told, each sale and each hold once.
    fn told_fits_the_disk(&self, index: usize) -> Result<(), Fault> {
        let id = replica_id(index);
        let own: Vec<_> = self.holds.iter().filter(|(hold, _)| hold.replica == id).map(|(_, told)| *told).collect();
        let held: u64 = own.iter().map(|(units, _)| units).sum();
        let released: u64 = own.iter().filter(|(_, resolved)| resolved.is_some()).map(|(units, _)| units).sum();
        let slot = self.nodes[index].disk.product(&sku("A")).counters(&place(), id);
        if (slot.removed, slot.held, slot.released) != (self.sold[index], held, released) {
            let told = (self.sold[index], held, released);
            return Err(Fault::new("O6", format!("{slot:?}, but sold, held and released as told {told:?}")));
        }
        Ok(())
    }
}

fn note_resolved(operation: &Operation, hold: Option<&Hold>, seen: &Seen) {
    match (operation, hold.map(|hold| hold.state)) {
        (_, None) => seen.note(REPEATED),
        (Operation::CommitHold { units: Some(_), .. }, _) if hold.is_some_and(|hold| hold.units > 1) => {
            seen.note(IN_PART);
        }
        (Operation::CommitHold { .. }, _) => seen.note(COMMITTED),
        _ => seen.note(RELEASED),
    }
}

/// The table of rule O6, as far as it says error.
fn check_refusal(
    operation: &Operation,
    error: &OperationRefused,
    own: stockmesh_proto::ReplicaId,
    seen: &Seen,
) -> Result<(), Fault> {
    let id = match operation {
        Operation::CommitHold { id, .. } | Operation::ReleaseHold { id } | Operation::ExpireHold { id } => Some(*id),
        _ => None,
    };
    match (id, error) {
        (None, OperationRefused::Insufficient { .. }) => {}
        (Some(id), OperationRefused::HoldElsewhere { .. }) if id.replica != own => seen.note(ELSEWHERE),
        (Some(id), OperationRefused::HoldResolved { state, .. }) if id.replica == own => {
            if matches!(state, HoldState::Expired { .. }) {
                seen.note(TOO_LATE);
            }
        }
        _ => return Err(Fault::new("O6", format!("{operation:?} is refused: {error}"))),
    }
    Ok(())
}
