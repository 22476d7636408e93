//! The state machine of one reconciliation.

mod comparing;
mod sending;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::turn::{Job, Opened, PartJob, PartState, Turn};
use super::{Agreement, Comparison, Direction, Effect, Outcome, SessionError, Settings, StateView};
use crate::check::{DeltaRefused, DriftCheck, check_products};
use crate::delta::{ShardDelta, slot_count};
use crate::fingerprint::{Fingerprint, FingerprintTree};
use crate::id::{ShardIndex, Sku};
use crate::limits::SESSION_VERSION_ENTRIES_MAX;
use crate::version::VersionVector;
use crate::wire::{Message, Open, Part, Scope, Summary};

/// One side of one reconciliation. A copy goes on by itself: so a model checker can try every way on.
#[derive(Clone, Debug)]
pub struct Session {
    settings: Settings,
    direction: Direction,
    is_opener: bool,
    turn: Turn,
    outgoing: VecDeque<Job>,
    opened: Option<Opened>,
    /// In a pull: the shards that it speaks of.
    scope: Option<Scope>,
    /// What the opener summarised; kept by the other side until the opening ends.
    summarised: BTreeMap<ShardIndex, Summary>,
    /// What a read-only member that opened summarised at once.
    suspected: BTreeSet<ShardIndex>,
    /// Shards whose delta this side sends in this session.
    sending: BTreeSet<ShardIndex>,
    received: BTreeSet<ShardIndex>,
    incoming: Option<Incoming>,
    version_entries: usize,
    outcome: Outcome,
}

/// A shard whose chunks are arriving.
#[derive(Clone, Debug)]
struct Incoming {
    shard: ShardIndex,
    version: VersionVector,
    refused: bool,
    /// The last SKU that came: later chunks go on behind it.
    reached: Option<Sku>,
}

impl Session {
    /// Opens a reconciliation. With the last agreement with this peer, only shards that changed here since are
    /// summarised at once; without it, all of them.
    pub fn open(settings: Settings, view: &dyn StateView, agreement: Option<&Agreement>) -> Self {
        let tree = view.tree();
        let suspects =
            settings.shards.indexes().filter(|shard| agreement.is_none_or(|known| known.differs(&tree, *shard)));
        let jobs = [Job::Open, Job::Summaries(suspects.collect()), Job::End];
        Self::new(settings, true, jobs.into())
    }

    /// Opens a reconciliation of some shards alone (rule J2). Each of them is summarised at once.
    pub fn pull(settings: Settings, scope: Scope) -> Self {
        let shards = scope.shards().iter().copied().collect();
        let jobs = [Job::Pull(scope.clone()), Job::Summaries(shards), Job::End];
        let mut session = Self::new(settings, true, jobs.into());
        session.limit_to(scope);
        session
    }

    /// Waits for the peer to open one, of either kind.
    pub fn accept(settings: Settings) -> Self {
        Self::new(settings, false, VecDeque::new())
    }

    fn new(settings: Settings, is_opener: bool, outgoing: VecDeque<Job>) -> Self {
        Self {
            settings,
            direction: Direction::Both,
            is_opener,
            turn: Turn::Opening,
            outgoing,
            opened: None,
            scope: None,
            summarised: BTreeMap::new(),
            suspected: BTreeSet::new(),
            sending: BTreeSet::new(),
            received: BTreeSet::new(),
            incoming: None,
            version_entries: 0,
            outcome: Outcome::default(),
        }
    }

    /// With slots in this direction only (rule K3).
    #[must_use]
    pub fn with_direction(self, direction: Direction) -> Self {
        Self { direction, ..self }
    }

    fn limit_to(&mut self, scope: Scope) {
        self.scope = Some(scope);
        self.outcome.scoped = true;
    }

    /// Whether the session is over.
    pub fn is_finished(&self) -> bool {
        self.turn == Turn::Finished
    }

    /// Takes a message from the peer. `now_ms` is the wall clock, which stamps are held against.
    ///
    /// # Errors
    /// If the peer broke a rule: the session is void, and the link should be closed.
    pub fn handle(&mut self, message: Message, view: &dyn StateView, now_ms: u64) -> Result<Vec<Effect>, SessionError> {
        let kind = message.kind();
        if self.is_my_turn() {
            return Err(SessionError::Unexpected(kind));
        }
        match (self.turn, message) {
            (Turn::Opening, Message::Open(open)) if self.opened.is_none() => self.handle_open(open),
            (Turn::Opening, Message::Pull(scope)) if self.opened.is_none() => self.handle_pull(scope),
            (Turn::Opening, Message::Summary(summaries)) if self.opened.is_some() => {
                self.handle_opening(summaries, view)
            }
            (Turn::Opening, Message::End) if self.opened.is_some() => self.reply(view),
            (Turn::Reply, Message::Equal) if self.received.is_empty() && self.incoming.is_none() => {
                (self.outcome.equal, self.outcome.receipt) = (true, true);
                Ok(self.finish())
            }
            (Turn::Reply, Message::Summary(summaries)) if self.scope.is_none() => {
                self.handle_questions(summaries, view)
            }
            (Turn::Reply, Message::End) if self.incoming.is_none() => {
                let effects = self.unanswered();
                self.end_turn(Job::End).map(|_| effects)
            }
            (Turn::Answer, Message::End) if self.incoming.is_none() => self.end_turn(Job::Done),
            (Turn::Reply | Turn::Answer | Turn::Receipt, Message::Part(part)) => self.handle_part(part, view, now_ms),
            (Turn::Receipt, Message::Done(refused)) if self.incoming.is_none() => {
                (self.outcome.receipt, self.outcome.shards_refused_by_peer) = (true, refused);
                Ok(self.finish())
            }
            _ => Err(SessionError::Unexpected(kind)),
        }
    }

    /// The next message to send, if it is this side's turn and one is left.
    pub fn poll_transmit(&mut self, view: &dyn StateView) -> Option<Message> {
        while self.is_my_turn() {
            match self.outgoing.pop_front()? {
                Job::Open => {
                    let tree = view.tree();
                    return Some(Message::Open(Open { root: tree.root(), groups: tree.groups().to_vec() }));
                }
                Job::Pull(scope) => return Some(Message::Pull(scope)),
                Job::Summaries(shards) => {
                    if let Some(message) = self.summaries(shards, view) {
                        return Some(message);
                    }
                }
                Job::Part(job) => {
                    if let Some(message) = self.part(job, view) {
                        return Some(message);
                    }
                }
                Job::End => {
                    self.turn = self.turn.next();
                    return Some(Message::End);
                }
                Job::Equal => {
                    self.outcome.equal = true;
                    self.turn = Turn::Finished;
                    return Some(Message::Equal);
                }
                Job::Done => {
                    self.turn = Turn::Finished;
                    return Some(Message::Done(self.outcome.shards_refused));
                }
            }
        }
        None
    }

    /// How the session went so far. After the last message was sent, how it went in all.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    fn is_my_turn(&self) -> bool {
        self.turn != Turn::Finished && self.turn.belongs_to_opener() == self.is_opener
    }

    fn finish(&mut self) -> Vec<Effect> {
        self.turn = Turn::Finished;
        vec![Effect::Finished(self.outcome)]
    }

    /// The peer's turn ended; this side's begins, and ends with `last`.
    fn end_turn(&mut self, last: Job) -> Result<Vec<Effect>, SessionError> {
        self.turn = self.turn.next();
        self.outgoing.push_back(last);
        Ok(Vec::new())
    }

    fn handle_open(&mut self, open: Open) -> Result<Vec<Effect>, SessionError> {
        let wanted = FingerprintTree::group_count(self.settings.shards);
        if open.groups.len() != wanted {
            return Err(SessionError::Groups { got: open.groups.len(), wanted });
        }
        self.opened = Some(Opened::Whole(open));
        Ok(Vec::new())
    }

    fn handle_pull(&mut self, scope: Scope) -> Result<Vec<Effect>, SessionError> {
        for shard in scope.shards() {
            self.check_shard(*shard)?;
        }
        self.opened = Some(Opened::Scoped);
        self.limit_to(scope);
        Ok(Vec::new())
    }

    fn handle_opening(&mut self, summaries: Vec<Summary>, view: &dyn StateView) -> Result<Vec<Effect>, SessionError> {
        // Each frame names a shard at least, and each shard comes once, so a turn ends (rules R1, R2).
        if summaries.is_empty() {
            return Err(SessionError::Empty);
        }
        let mut effects = Vec::new();
        for summary in summaries {
            let shard = summary.shard;
            self.check_shard(shard)?;
            self.reserve(&summary.version)?;
            effects.extend(own_future(view, shard, &summary.version));
            if self.summarised.insert(shard, summary).is_some() {
                return Err(SessionError::Disorder(shard));
            }
        }
        Ok(effects)
    }

    /// The opening is complete: decides what to send and what to ask (rule R2). In a pull all is summarised, and nothing
    /// is asked (rule J2).
    fn reply(&mut self, view: &dyn StateView) -> Result<Vec<Effect>, SessionError> {
        let mut effects = Vec::new();
        let tree = view.tree();
        let summarised = std::mem::take(&mut self.summarised);
        let (is_equal, questions) = match (self.opened.take(), &self.scope) {
            (Some(Opened::Whole(open)), _) => (open.root == tree.root(), self.questions(&open, &summarised, &tree)),
            (_, Some(scope)) if scope.shards().len() != summarised.len() => {
                return Err(SessionError::Unsummarised { got: summarised.len(), wanted: scope.shards().len() });
            }
            _ => (true, VecDeque::new()),
        };
        self.turn = Turn::Reply;
        if is_equal && summarised.values().all(|theirs| view.summary(theirs.shard) == *theirs) {
            self.outgoing.push_back(Job::Equal);
            return Ok(effects);
        }
        for theirs in summarised.into_values() {
            self.compare(theirs, view, true, &mut effects);
        }
        self.outgoing.push_back(Job::Summaries(questions));
        self.outgoing.push_back(Job::End);
        Ok(effects)
    }

    /// Shards that the opener did not summarise, in groups whose rest differs: the group's sum less the summarised
    /// leaves, on both sides.
    fn questions(
        &self,
        open: &Open,
        summarised: &BTreeMap<ShardIndex, Summary>,
        tree: &FingerprintTree,
    ) -> VecDeque<ShardIndex> {
        let mut theirs = open.groups.clone();
        let mut ours = vec![Fingerprint::EMPTY; theirs.len()];
        for shard in self.settings.shards.indexes() {
            let group = FingerprintTree::group_of(shard);
            if let Some(summary) = summarised.get(&shard) {
                if let Some(sum) = theirs.get_mut(group) {
                    *sum = sum.minus(summary.fingerprint);
                }
            } else if let Some(sum) = ours.get_mut(group) {
                *sum = sum.plus(tree.leaf(shard));
            }
        }
        let differs = |shard: &ShardIndex| {
            let group = FingerprintTree::group_of(*shard);
            !summarised.contains_key(shard) && ours.get(group) != theirs.get(group)
        };
        self.settings.shards.indexes().filter(differs).collect()
    }

    /// Holds the peer's summary of a shard against this side's, and queues what the peer lacks.
    fn compare(&mut self, theirs: Summary, view: &dyn StateView, needed: bool, effects: &mut Vec<Effect>) {
        let shard = theirs.shard;
        let ours = view.summary(shard);
        if ours == theirs {
            effects.extend(self.compared(shard, ours.version, &theirs.version, Comparison::Same));
            return;
        }
        let same_state = ours.fingerprint == theirs.fingerprint;
        if same_state && self.direction != Direction::ServeOnly {
            // Equal fingerprint means equal state, so each side may claim what the other claims (rule R6).
            let delta = ShardDelta { shard, products: Vec::new() };
            effects.push(Effect::Merge { delta, claim: Some(theirs.version.clone()) });
        }
        let full = !same_state && ours.version == theirs.version;
        let comparison = match (same_state, full) {
            (true, _) => Comparison::Same,
            (_, true) => Comparison::InDoubt,
            _ => Comparison::Vectors,
        };
        effects.extend(self.compared(shard, ours.version, &theirs.version, comparison));
        if same_state && self.direction == Direction::PullOnly {
            // The peer takes no vector of this side, and has nothing for it.
            return;
        }
        if full {
            effects.push(Effect::InDoubt { shard });
        }
        self.queue_part(shard, theirs.version, full, needed);
    }

    fn handle_questions(&mut self, summaries: Vec<Summary>, view: &dyn StateView) -> Result<Vec<Effect>, SessionError> {
        if summaries.is_empty() {
            return Err(SessionError::Empty);
        }
        let mut effects = Vec::new();
        for theirs in summaries {
            self.check_shard(theirs.shard)?;
            self.reserve(&theirs.version)?;
            if self.sending.contains(&theirs.shard) || self.received.contains(&theirs.shard) {
                return Err(SessionError::Disorder(theirs.shard));
            }
            effects.extend(own_future(view, theirs.shard, &theirs.version));
            self.compare(theirs, view, true, &mut effects);
        }
        Ok(effects)
    }

    fn queue_part(&mut self, shard: ShardIndex, theirs: VersionVector, full: bool, needed: bool) {
        if self.sending.insert(shard) {
            let covered = if full { VersionVector::new() } else { theirs };
            self.outgoing.push_back(Job::Part(PartJob { shard, covered, full, needed, state: PartState::Unsent }));
        }
    }

    fn handle_part(&mut self, mut part: Part, view: &dyn StateView, now_ms: u64) -> Result<Vec<Effect>, SessionError> {
        let shard = part.shard;
        if self.direction == Direction::ServeOnly && !(part.products.is_empty() && part.last) {
            return Err(SessionError::ReadOnly(shard));
        }
        let mut effects = Vec::new();
        let mut incoming = match (part.version.take(), self.incoming.take()) {
            (Some(version), None) => {
                self.check_shard(shard)?;
                self.reserve(&version)?;
                if !self.received.insert(shard) {
                    return Err(SessionError::Disorder(shard));
                }
                effects.extend(own_future(view, shard, &version));
                let comparison = if part.full { Comparison::InDoubt } else { Comparison::Vectors };
                effects.extend(self.compared(shard, view.summary(shard).version, &version, comparison));
                if self.turn != Turn::Receipt && self.direction != Direction::PullOnly {
                    // The peer lacks what its vector does not cover; nothing, often, and then nothing is sent.
                    self.queue_part(shard, version.clone(), part.full, part.full);
                }
                self.outcome.shards_received += 1;
                Incoming { shard, version, refused: false, reached: None }
            }
            (None, Some(incoming)) if incoming.shard == shard => incoming,
            _ => return Err(SessionError::Disorder(shard)),
        };
        // Each chunk but the last gets further, or a peer could go on for ever (rule R3).
        if !part.follows(incoming.reached.as_ref()) {
            return Err(SessionError::Disorder(shard));
        }
        incoming.reached = part.products.last().map(|(sku, _)| sku.clone());
        let drift = DriftCheck { now_ms, drift_ms_max: self.settings.drift_ms_max };
        match check_products(self.settings.shards, shard, &part.products, drift) {
            Ok(()) => {}
            Err(DeltaRefused::Drift { ahead_ms, .. }) => {
                if !incoming.refused {
                    self.outcome.shards_refused += 1;
                    effects.push(Effect::Refused { shard, ahead_ms });
                }
                incoming.refused = true;
            }
            Err(violation) => return Err(violation.into()),
        }
        self.outcome.slots_received += u64::try_from(slot_count(&part.products)).unwrap_or(u64::MAX);
        if !incoming.refused && self.direction != Direction::ServeOnly {
            // The claim waits for the last chunk: a vector that advances part-way loses writes for good (rule R4).
            let claim = part.last.then(|| incoming.version.clone());
            effects.push(Effect::Merge { delta: ShardDelta { shard, products: part.products }, claim });
        }
        self.incoming = (!part.last).then_some(incoming);
        Ok(effects)
    }

    fn check_shard(&self, shard: ShardIndex) -> Result<(), SessionError> {
        match self.settings.shards.index(shard.0) {
            Some(_) if self.scope.as_ref().is_some_and(|scope| !scope.contains(shard)) => {
                Err(SessionError::OutOfScope(shard))
            }
            Some(_) => Ok(()),
            None => Err(DeltaRefused::UnknownShard(shard).into()),
        }
    }

    fn reserve(&mut self, version: &VersionVector) -> Result<(), SessionError> {
        self.version_entries = self.version_entries.saturating_add(version.len());
        if self.version_entries > SESSION_VERSION_ENTRIES_MAX {
            return Err(SessionError::TooManyEntries(SESSION_VERSION_ENTRIES_MAX));
        }
        Ok(())
    }
}

/// Whether the peer claims more writes of this replica than it made.
fn own_future(view: &dyn StateView, shard: ShardIndex, theirs: &VersionVector) -> Option<Effect> {
    let own = view.own();
    let sequence = theirs.get(own);
    (sequence > view.summary(shard).version.get(own)).then_some(Effect::OwnFuture { shard, sequence })
}
