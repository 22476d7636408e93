//! Reconciliation, one message at a time: sessions end in the middle of a shard's delta, run beside each other and beside
//! writes, and replicas die for good (rules M1, M2, M4, R1 to R7).

use std::sync::Arc;

use stockmesh_proto::operation::Operation;
use stockmesh_proto::{Currency, Price};

use crate::check::{Fault, Seen, System};
use crate::conversation::{Conversation, heal, reconcile};
use crate::log::Log;
use crate::replica::{NOW_MS, Replica, place, sku, units};

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Broken {
    #[default]
    Nothing,
    /// The vector of a delta is claimed with its first chunk (against rule R4, the first trap).
    ClaimsBeforeWhole,
    /// The same, and nobody looks at the vectors: only what replicas hold at the end counts.
    ClaimsBeforeWholeUnseen,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Reconcile {
    pub(crate) replicas: usize,
    pub(crate) writes: u8,
    /// Sessions that go message by message.
    pub(crate) sessions: u8,
    /// Sessions that go to their end at once.
    pub(crate) meetings: u8,
    pub(crate) deaths: u8,
    pub(crate) broken: Broken,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct State {
    /// `None` for the dead.
    replicas: Vec<Option<Arc<Replica>>>,
    log: Arc<Log>,
    /// A session that broke just never goes on.
    conversations: Vec<Arc<Conversation>>,
    writes_left: u8,
    sessions_left: u8,
    meetings_left: u8,
    deaths_left: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Action {
    /// A register of product B, which others' writes supersede.
    SetPrice(usize),
    /// A counter of product A, which goes in a chunk before B.
    Receive(usize),
    /// With or without an agreement.
    Open(usize, usize, bool),
    Meet(usize, usize),
    /// A side of a conversation sends: it reads its state now.
    Send(usize, usize),
    Deliver(usize, usize),
    /// A replica is gone for good, with all its conversations.
    Die(usize),
}

const SUPERSEDED: usize = 0;
const IN_PART: usize = 1;
const IN_DOUBT: usize = 2;
const ENDED: usize = 3;

impl System for Reconcile {
    type State = State;
    type Action = Action;

    const WITNESSES: &'static [&'static str] =
        &["a price was superseded", "a delta arrived in part", "a shard was in doubt", "a session ended"];

    fn initial(&self) -> State {
        State {
            replicas: (0..self.replicas).map(|index| Some(Arc::new(Replica::new(index)))).collect(),
            log: Arc::default(),
            conversations: Vec::new(),
            writes_left: self.writes,
            sessions_left: self.sessions,
            meetings_left: self.meetings,
            deaths_left: self.deaths,
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let live = state.live();
        for index in live.iter().copied() {
            if state.writes_left > 0 {
                actions.extend([Action::SetPrice(index), Action::Receive(index)]);
            }
            if state.sessions_left > 0 {
                let others = live.iter().copied().filter(|other| *other != index);
                actions.extend(others.flat_map(|other| [false, true].map(|agreed| Action::Open(index, other, agreed))));
            }
            if state.meetings_left > 0 {
                let others = live.iter().copied().filter(|other| *other > index);
                actions.extend(others.map(|other| Action::Meet(index, other)));
            }
            if state.deaths_left > 0 && live.len() > 2 {
                actions.push(Action::Die(index));
            }
        }
        for (number, conversation) in state.conversations.iter().enumerate() {
            for side in [0, 1] {
                actions.push(Action::Send(number, side));
                if conversation.has_mail(side) {
                    actions.push(Action::Deliver(number, side));
                }
            }
        }
    }

    fn step(&self, state: &State, action: &Action, seen: &Seen) -> Result<Option<State>, Fault> {
        let mut next = state.clone();
        match *action {
            Action::SetPrice(index) => {
                if next.replica(index).product(&sku("B")).price().is_some() {
                    seen.note(SUPERSEDED);
                }
                let price = Price::from_parts(100 + u64::try_from(index).unwrap(), 2, Currency::EUR).unwrap();
                next.write(index, Operation::SetPrice { sku: sku("B"), price });
            }
            Action::Receive(index) => {
                next.write(index, Operation::Receive { sku: sku("A"), location: place(), units: units(1) });
            }
            Action::Open(opener, replier, believes_agreed) => {
                let conversation = Conversation::open([opener, replier], next.replica(opener), believes_agreed);
                next.conversations.push(Arc::new(conversation));
                next.sessions_left -= 1;
            }
            Action::Meet(left, right) => {
                let (mut opener, mut replier) = (next.replica(left).clone(), next.replica(right).clone());
                if reconcile(&mut opener, &mut replier)? {
                    seen.note(IN_DOUBT);
                }
                next.replicas[left] = Some(Arc::new(opener));
                next.replicas[right] = Some(Arc::new(replier));
                next.meetings_left -= 1;
            }
            Action::Send(number, side) => {
                let conversation = &state.conversations[number];
                let replica = next.replica(conversation.parties[side]);
                let Some(sent) = conversation.sent(side, replica) else { return Ok(None) };
                next.conversations[number] = Arc::new(sent);
                return Ok(Some(next.sorted()));
            }
            Action::Deliver(number, side) => self.deliver(&mut next, number, side, seen)?,
            Action::Die(index) => {
                next.replicas[index] = None;
                next.conversations.retain(|conversation| !conversation.parties.contains(&index));
                next.deaths_left -= 1;
            }
        }
        self.check(state, &next, seen)?;
        Ok(Some(next.sorted()))
    }
}

impl Reconcile {
    fn deliver(&self, next: &mut State, number: usize, side: usize, seen: &Seen) -> Result<(), Fault> {
        let conversation = next.conversations[number].clone();
        let index = conversation.parties[side];
        let mut replica = next.replica(index).clone();
        let (after, effects) = conversation.delivered(side, &replica)?;
        if replica.carry_out(effects)? {
            seen.note(IN_DOUBT);
        }
        if let Some(part) = conversation.next_part(side) {
            if !part.last {
                seen.note(IN_PART);
            }
            if let (true, Some(version)) = (self.broken != Broken::Nothing, &part.version) {
                replica.shard.claim(version);
            }
        }
        next.replicas[index] = Some(Arc::new(replica));
        if after.is_over() {
            seen.note(ENDED);
            next.conversations.remove(number);
        } else {
            next.conversations[number] = Arc::new(after);
        }
        Ok(())
    }

    /// Every vector is sound; and whatever happened, links may come back now, and bring all survivors to the same state.
    fn check(&self, before: &State, after: &State, seen: &Seen) -> Result<(), Fault> {
        let pairs = before.replicas.iter().zip(&after.replicas);
        for (before, replica) in pairs.filter_map(|(before, after)| before.as_ref().zip(after.as_ref())) {
            if !Arc::ptr_eq(before, replica) && self.broken != Broken::ClaimsBeforeWholeUnseen {
                after.log.audit(before, replica)?;
            }
        }
        seen.once(&after.replicas, || {
            let survivors = after.replicas.iter().flatten();
            let mut survivors: Vec<Replica> = survivors.map(|replica| Replica::clone(replica)).collect();
            heal(&mut survivors, self.broken != Broken::ClaimsBeforeWholeUnseen)
        })
    }
}

impl State {
    fn live(&self) -> Vec<usize> {
        (0..self.replicas.len()).filter(|index| self.replicas[*index].is_some()).collect()
    }

    fn replica(&self, index: usize) -> &Replica {
        self.replicas[index].as_ref().unwrap()
    }

    fn write(&mut self, index: usize, operation: Operation) {
        let mut replica = self.replica(index).clone();
        let (evaluation, _) = replica.write(vec![operation], NOW_MS).unwrap();
        Arc::make_mut(&mut self.log).note(replica.id, &evaluation);
        self.replicas[index] = Some(Arc::new(replica));
        self.writes_left -= 1;
    }

    /// Which conversation came first is of no meaning.
    fn sorted(mut self) -> Self {
        self.conversations.sort_by_key(|conversation| conversation.digest());
        self
    }
}
