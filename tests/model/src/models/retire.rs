//! Retirement: a replica goes down for good, or so it seems; its members fence it, tell each other what they know of it,
//! and one of them takes over; its writes come late; and it returns with what it alone had (rules E1 to E7, Q1 to Q6).

mod check;

use std::sync::Arc;

use stockmesh_proto::check::shows_retirement;
use stockmesh_proto::operation::{Operation, Outcome, OversellPolicy};
use stockmesh_proto::product::Product;
use stockmesh_proto::wire::Push;
use stockmesh_proto::{ReplicaId, Sku};

use crate::check::{Fault, Seen, System};
use crate::conversation::reconcile;
use crate::log::Log;
use crate::replica::{NOW_MS, Replica, place, replica_id, sku, units};
use crate::sent::Sent;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Broken {
    #[default]
    Nothing,
    /// The heir takes over as soon as all have agreed, before they told what they know (against rule Q3).
    FenceWithoutExchange,
    /// A member that agreed goes on to merge what the retired one sends (against rule E7).
    FenceWithHoles,
    /// The heir counts once more, in its own name, what it takes over (against rule E2).
    CountsAgain,
    /// Who returns counts what it alone had in its own name too (against rule E5).
    ReappliesTwice,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Retire {
    /// The first is the heir, the last the one that is retired.
    pub(crate) replicas: usize,
    /// Units that the last one has at the start, and all know of.
    pub(crate) stock: u64,
    pub(crate) grants: u8,
    pub(crate) broken: Broken,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct State {
    replicas: Vec<Arc<Replica>>,
    /// All pushes that were ever sent.
    sent: Sent<Push>,
    log: Arc<Log>,
    /// Members that agreed to take no more writes of the retired one, and those that told the heir afterwards what they know.
    fenced: Vec<bool>,
    told: Vec<bool>,
    phase: Phase,
    sold: u64,
    /// Units that the retired one had used without any member knowing, when it was taken over and after it.
    beyond: u64,
    /// Of these, units that it had sold when it was taken over.
    sold_alone: u64,
    grants_left: u8,
}

/// How it goes with the one that is retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Phase {
    Up,
    Down,
    /// Up again, under its id.
    Returned,
    /// Up again, under a new id.
    Renamed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    Sell(usize),
    Grant {
        asker: usize,
        giver: usize,
    },
    /// A push comes to a replica.
    Deliver(usize, usize),
    Meet(usize, usize),
    GoDown,
    Fence(usize),
    /// The heir takes over, or takes what turned up since.
    Inherit,
    Return,
    /// The returned brings what it alone had.
    Reapply,
}

const LATE: usize = 0;
const INHERITED: usize = 1;
const SETTLED: usize = 2;
const RENAMED: usize = 3;
const REAPPLIED: usize = 4;
const ALONE: usize = 5;

const HEIR: usize = 0;

fn sku_a() -> Sku {
    sku("A")
}

impl System for Retire {
    type State = State;
    type Action = Action;

    const WITNESSES: &'static [&'static str] = &[
        "a late push was refused",
        "an heir took over",
        "what turned up late was settled",
        "the returned took a new id",
        "the returned brought what it alone had",
        "the retired one had used units that nobody knew of",
    ];

    fn initial(&self) -> State {
        let mut log = Log::default();
        let mut last = Replica::new(self.replicas - 1);
        let receive = Operation::Receive { sku: sku_a(), location: place(), units: units(self.stock) };
        let (evaluation, push) = last.write(vec![receive], NOW_MS).unwrap();
        log.note(last.id, &evaluation);
        let mut replicas: Vec<Arc<Replica>> = Vec::new();
        for index in 0..self.replicas - 1 {
            let mut replica = Replica::new(index);
            replica.take_push(push.as_ref().unwrap()).unwrap();
            replicas.push(Arc::new(replica));
        }
        replicas.push(Arc::new(last));
        State {
            replicas,
            sent: Sent::default(),
            log: Arc::new(log),
            fenced: vec![false; self.replicas - 1],
            told: (0..self.replicas).map(|index| index == self.last()).collect(),
            phase: Phase::Up,
            sold: 0,
            beyond: 0,
            sold_alone: 0,
            grants_left: self.grants,
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let last = self.last();
        let up: Vec<usize> = (0..self.replicas).filter(|index| *index != last || state.phase != Phase::Down).collect();
        for index in up.iter().copied() {
            actions.push(Action::Sell(index));
            for other in up.iter().copied().filter(|other| *other != index) {
                if state.grants_left > 0 {
                    actions.push(Action::Grant { asker: index, giver: other });
                }
                if other > index {
                    actions.push(Action::Meet(index, other));
                }
            }
            actions.extend((0..state.sent.len()).map(|number| Action::Deliver(number, index)));
        }
        match state.phase {
            Phase::Up => actions.push(Action::GoDown),
            Phase::Down => actions.push(Action::Return),
            Phase::Returned => {}
            Phase::Renamed => actions.push(Action::Reapply),
        }
        if state.phase != Phase::Up {
            actions.extend((0..last).filter(|member| !state.fenced[*member]).map(Action::Fence));
        }
        actions.push(Action::Inherit);
    }

    fn step(&self, state: &State, action: &Action, seen: &Seen) -> Result<Option<State>, Fault> {
        let mut next = state.clone();
        match *action {
            Action::Sell(index) => {
                let policy = OversellPolicy::Refuse;
                let sale = Operation::Sell { sku: sku_a(), location: place(), units: units(1), policy };
                if next.write(index, sale).is_none() {
                    return Ok(None);
                }
                next.sold += 1;
                self.note_unknown(&mut next, index);
            }
            Action::Grant { asker, giver } => {
                let to = next.replicas[asker].id;
                let grant = Operation::Grant { sku: sku_a(), location: place(), to, units: 1 };
                let Some(Outcome::Granted { units: 1, .. }) = next.write(giver, grant) else { return Ok(None) };
                next.grants_left -= 1;
                self.note_unknown(&mut next, giver);
            }
            Action::Deliver(number, index) => self.deliver(&mut next, number, index, seen)?,
            Action::Meet(left, right) => self.meet(&mut next, left, right, seen)?,
            Action::GoDown => next.phase = Phase::Down,
            Action::Fence(member) => {
                // Of the fences the heir's own comes first (rule Q1).
                if member != HEIR && !state.fenced[HEIR] {
                    return Ok(None);
                }
                next.fenced[member] = true;
                next.told[member] = member == HEIR;
            }
            Action::Inherit => self.inherit(&mut next, seen)?,
            Action::Return => next.phase = Phase::Returned,
            Action::Reapply => self.reapply(&mut next, seen)?,
        }
        if next == *state {
            return Ok(None);
        }
        self.check(state, &next, seen)?;
        Ok(Some(next))
    }
}

impl Retire {
    fn last(&self) -> usize {
        self.replicas - 1
    }

    /// The id that is retired, whoever writes under it now.
    fn retired(&self) -> ReplicaId {
        replica_id(self.last())
    }

    fn is_inherited(&self, state: &State) -> bool {
        state.replicas[HEIR].product(&sku_a()).is_retired(&place(), self.retired())
    }

    /// The bound of rule E7: what the retired one does after it was taken over, with rights that are another's.
    fn note_unknown(&self, next: &mut State, index: usize) {
        if next.replicas[index].id == self.retired() && self.is_inherited(next) {
            next.beyond += 1;
        }
    }

    fn deliver(&self, next: &mut State, number: usize, index: usize, seen: &Seen) -> Result<(), Fault> {
        let push = next.sent.get(number);
        let is_fenced = next.fenced.get(index).copied().unwrap_or(false) && push.origin == self.retired();
        if is_fenced && self.broken != Broken::FenceWithHoles {
            seen.note(LATE);
            return Ok(());
        }
        let mut replica = Replica::clone(&next.replicas[index]);
        if push.origin == replica.id {
            return Ok(());
        }
        replica.take_push(&push)?;
        let products: Vec<(Sku, Product)> = push.shards.iter().flat_map(|part| part.products.clone()).collect();
        next.put(index, replica);
        self.learn(next, index, &products, seen);
        Ok(())
    }

    /// Two that are linked reconcile. The retired one gets no link: it is told so, and takes a new id (rules Q2, Q6).
    fn meet(&self, next: &mut State, left: usize, right: usize, seen: &Seen) -> Result<(), Fault> {
        let (is_fenced, is_retired) = (next.fenced[left], next.replicas[right].id == self.retired());
        if is_fenced && is_retired {
            self.rename(next, seen);
            return Ok(());
        }
        let (mut opener, mut replier) = (Replica::clone(&next.replicas[left]), Replica::clone(&next.replicas[right]));
        reconcile(&mut opener, &mut replier)?;
        for (index, replica) in [(left, opener), (right, replier)] {
            let products = replica.everything().products;
            next.put(index, replica);
            self.learn(next, index, &products, seen);
        }
        if left == HEIR && (right == self.last() || next.fenced[right]) {
            next.told[right] = true;
        }
        Ok(())
    }

    /// Who sees an inheritance takes no further write of the retired; who sees one of its own id takes a new one (rules E6,
    /// E7).
    fn learn(&self, next: &mut State, index: usize, products: &[(Sku, Product)], seen: &Seen) {
        if !shows_retirement(self.retired(), products) {
            return;
        }
        if let Some(fenced) = next.fenced.get_mut(index) {
            *fenced = true;
        } else if next.replicas[index].id == self.retired() {
            self.rename(next, seen);
        }
    }

    fn rename(&self, next: &mut State, seen: &Seen) {
        seen.note(RENAMED);
        let last = self.last();
        let renamed = Replica { id: replica_id(self.replicas), ..Replica::clone(&next.replicas[last]) };
        next.replicas[last] = Arc::new(renamed);
        next.phase = Phase::Renamed;
        // Somebody new is there, who must tell what it knows as all others (rule Q1).
        next.told[last] = false;
    }

    /// Rules E4, Q4: behind a closed fence alone; later, what turned up since.
    fn inherit(&self, next: &mut State, seen: &Seen) -> Result<(), Fault> {
        let heir = next.replicas[HEIR].clone();
        let product = heir.product(&sku_a());
        let is_first = !self.is_inherited(next);
        let is_closed = next.fenced.iter().all(|fenced| *fenced)
            && (next.told.iter().all(|told| *told) || self.broken == Broken::FenceWithoutExchange);
        if is_first && !is_closed || !is_first && product.to_settle(heir.id).is_empty() {
            return Ok(());
        }
        let left = product.legacy(&place(), self.retired()).rights;
        let known = next.joined(0..self.last()).legacy(&place(), self.retired()).rights;
        if is_first && self.broken == Broken::Nothing && left > known {
            return Err(Fault::new("E7", format!("the heir takes {left}, and {known} are left as all know together")));
        }
        if is_first {
            let (members, all) = (next.joined(0..self.last()), next.joined(0..self.replicas));
            let removed = |product: &Product| product.counters(&place(), self.retired()).removed;
            let truly = all.legacy(&place(), self.retired()).rights;
            let unknown = u64::try_from((known - truly).max(0)).unwrap();
            next.beyond += unknown;
            next.sold_alone = removed(&all) - removed(&members);
            if unknown > 0 {
                seen.note(ALONE);
            }
        }
        let inherit = Operation::Inherit { sku: sku_a(), location: place(), from: self.retired() };
        let Some(Outcome::Inherited { units: taken, .. }) = next.write(HEIR, inherit) else {
            return Err(Fault::new("E4", "the heir cannot take over"));
        };
        seen.note(if is_first { INHERITED } else { SETTLED });
        if self.broken == Broken::CountsAgain && taken > 0 {
            let units = units(taken.unsigned_abs());
            next.write(HEIR, Operation::Receive { sku: sku_a(), location: place(), units });
        }
        Ok(())
    }

    fn reapply(&self, next: &mut State, seen: &Seen) -> Result<(), Fault> {
        let last = self.last();
        let product = next.replicas[last].product(&sku_a());
        if product.to_reapply(|id| id == self.retired()).is_empty() {
            return Ok(());
        }
        let reapply = Operation::Reapply { sku: sku_a(), location: place(), from: self.retired() };
        let Some(Outcome::Reapplied { removed, .. }) = next.write(last, reapply) else {
            return Err(Fault::new("E5", "what the returned alone had cannot be brought"));
        };
        seen.note(REAPPLIED);
        if self.broken == Broken::ReappliesTwice && removed > 0 {
            let sale = |units| Operation::Adjust {
                sku: sku_a(),
                location: place(),
                units,
                reason: stockmesh_proto::movement::Reason::Lost,
            };
            next.write(last, sale(-i64::try_from(removed).unwrap()));
        }
        Ok(())
    }
}

impl State {
    fn put(&mut self, index: usize, replica: Replica) {
        if replica != *self.replicas[index] {
            self.replicas[index] = Arc::new(replica);
        }
    }

    /// A request, durable at once, and pushed. `None` if it was refused.
    fn write(&mut self, index: usize, operation: Operation) -> Option<Outcome> {
        let mut replica = Replica::clone(&self.replicas[index]);
        let (evaluation, push) = replica.write(vec![operation], NOW_MS).ok()?;
        Arc::make_mut(&mut self.log).note(replica.id, &evaluation);
        push.into_iter().for_each(|push| self.sent.add(push));
        self.put(index, replica);
        evaluation.outcomes.first().copied()
    }

    /// What some replicas know together.
    fn joined(&self, of: std::ops::Range<usize>) -> Product {
        let mut all = Product::default();
        self.replicas[of].iter().for_each(|replica| all.absorb(&replica.product(&sku_a())));
        all
    }
}
