//! What a replica remembers of its own requests besides its slots: holds, and references with their outcomes.
//!
//! Local, never sent. On disk it changes in the same transaction as the slots (rule D6), so that after a crash either
//! all of a request is there or nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use super::{Evaluation, Outcome};
use crate::hold::{Hold, HoldId, HoldState};
use crate::id::Reference;
use crate::limits::{HOLDS_RESOLVED_MAX, HOLDS_RESOLVED_MS, REFERENCE_WINDOW_MS_DEFAULT, REFERENCES_MAX_DEFAULT};

/// What is forgotten with each request that is entered, at the most: so that a clock that jumps ahead does not make a
/// replica forget everything at once, and no request waits for it.
const FORGOTTEN_AT_ONCE: usize = 2;
/// Outcomes that take about as much memory as a reference.
const OUTCOMES_PER_WEIGHT: usize = 4;

/// A request that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The hash of its content.
    pub content: u128,
    outcomes: Outcomes,
}

/// What operations did, without a list where all just succeeded: a large batch must not cost much memory for a week.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcomes {
    AllDone(usize),
    Each(Arc<[Outcome]>),
}

impl Remembered {
    fn new(content: u128, outcomes: &[Outcome]) -> Self {
        let all_done = outcomes.iter().all(|outcome| *outcome == Outcome::Done);
        let outcomes = if all_done { Outcomes::AllDone(outcomes.len()) } else { Outcomes::Each(outcomes.into()) };
        Self { content, outcomes }
    }

    /// What its operations did.
    pub fn outcomes(&self) -> Vec<Outcome> {
        match &self.outcomes {
            Outcomes::AllDone(count) => vec![Outcome::Done; *count],
            Outcomes::Each(outcomes) => outcomes.to_vec(),
        }
    }

    /// What it counts towards the number of references that are remembered: a long list of outcomes counts for several.
    fn weight(&self) -> usize {
        match &self.outcomes {
            Outcomes::AllDone(_) => 1,
            Outcomes::Each(outcomes) => 1 + outcomes.len() / OUTCOMES_PER_WEIGHT,
        }
    }
}

#[derive(Clone, Debug)]
struct InOrder {
    reference: Reference,
    at_ms: u64,
    ledger: u64,
}

/// Holds and remembered requests of one replica.
#[derive(Clone, Debug)]
pub struct Books {
    holds: BTreeMap<HoldId, Hold>,
    /// Active holds by the time at which they expire.
    expiries: BTreeSet<(u64, HoldId)>,
    /// Resolved holds by the time at which they were.
    resolved: BTreeSet<(u64, HoldId)>,
    references: BTreeMap<Reference, Remembered>,
    /// The references, oldest first.
    order: VecDeque<InOrder>,
    /// What all of them count.
    weight: usize,
    window_ms: u64,
    references_max: usize,
}

impl Default for Books {
    fn default() -> Self {
        Self::new(REFERENCE_WINDOW_MS_DEFAULT, REFERENCES_MAX_DEFAULT)
    }
}

impl Books {
    /// Empty books that remember references for `window_ms` milliseconds, and at most `references_max` of them.
    pub fn new(window_ms: u64, references_max: usize) -> Self {
        Self {
            holds: BTreeMap::new(),
            expiries: BTreeSet::new(),
            resolved: BTreeSet::new(),
            references: BTreeMap::new(),
            order: VecDeque::new(),
            weight: 0,
            window_ms,
            references_max,
        }
    }

    /// The hold, active or resolved lately.
    pub fn hold(&self, id: HoldId) -> Option<&Hold> {
        self.holds.get(&id)
    }

    /// All holds that are remembered, in the order of their ids.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values()
    }

    /// Holds that are not resolved, those that expire first before the others, behind the one that expires at
    /// `after.0` with the id `after.1`.
    pub fn active_holds(&self, after: Option<(u64, HoldId)>) -> impl Iterator<Item = &Hold> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.expiries.range((from, Bound::Unbounded)).filter_map(|(_, id)| self.holds.get(id))
    }

    /// Number of holds that are not resolved.
    pub fn holds_active(&self) -> usize {
        self.expiries.len()
    }

    /// When the next hold expires, in milliseconds since 1970, and which it is.
    pub fn next_expiry(&self) -> Option<(u64, HoldId)> {
        self.expiries.first().copied()
    }

    /// Active holds whose time has run out, oldest first.
    pub fn due(&self, now_ms: u64) -> impl Iterator<Item = HoldId> {
        self.expiries.iter().take_while(move |(expires_ms, _)| *expires_ms <= now_ms).map(|(_, id)| *id)
    }

    /// What was done under a reference, if it is remembered.
    pub fn remembered(&self, reference: &Reference) -> Option<&Remembered> {
        self.references.get(reference)
    }

    /// When the latest of the remembered requests was done, in milliseconds since 1970.
    pub fn latest_ms(&self) -> Option<u64> {
        self.order.back().map(|latest| latest.at_ms)
    }

    /// Number of references that are remembered.
    pub fn references(&self) -> usize {
        self.references.len()
    }

    /// The number of the oldest ledger entry that holds a remembered reference: from there on it must be read to
    /// remember them again after a restart (rule D7).
    pub fn ledger_from(&self) -> Option<u64> {
        self.order.front().map(|oldest| oldest.ledger)
    }

    /// Enters what a request did, whose movements go into the ledger entry `ledger`. Returns the resolved holds that are
    /// forgotten now, to be deleted from disk.
    pub fn enter(&mut self, evaluation: &Evaluation, ledger: u64, now_ms: u64) -> Vec<HoldId> {
        for hold in &evaluation.holds {
            self.put_hold(hold.clone());
        }
        if let Some((reference, content)) = &evaluation.reference {
            self.remember(reference.clone(), *content, &evaluation.outcomes, ledger, now_ms);
        }
        self.forget_holds(now_ms)
    }

    /// Lets go of all holds, and returns which: those of an id that was left (rule B6).
    pub fn take_holds(&mut self) -> Vec<HoldId> {
        self.expiries.clear();
        self.resolved.clear();
        std::mem::take(&mut self.holds).into_keys().collect()
    }

    /// Puts a hold as it is now.
    pub fn put_hold(&mut self, hold: Hold) {
        let id = hold.id;
        if let Some(before) = self.holds.get(&id) {
            self.expiries.remove(&(before.expires_ms, id));
            if let Some(at_ms) = before.state.resolved_ms() {
                self.resolved.remove(&(at_ms, id));
            }
        }
        match hold.state.resolved_ms() {
            None => self.expiries.insert((hold.expires_ms, id)),
            Some(at_ms) => self.resolved.insert((at_ms, id)),
        };
        self.holds.insert(id, hold);
    }

    /// Remembers what was done under a reference, and forgets the oldest that are beyond the window.
    pub fn remember(&mut self, reference: Reference, content: u128, outcomes: &[Outcome], ledger: u64, now_ms: u64) {
        let remembered = Remembered::new(content, outcomes);
        self.weight += remembered.weight();
        if let Some(before) = self.references.insert(reference.clone(), remembered) {
            self.weight -= before.weight();
            // Used again after it had been forgotten, as is seen when the ledger is read back: the later use counts.
            self.order.retain(|known| known.reference != reference);
        }
        self.order.push_back(InOrder { reference, at_ms: now_ms, ledger });
        for forgotten in 0.. {
            // Also what a clock dated that was far ahead.
            let is_old = |oldest: &InOrder| oldest.at_ms.abs_diff(now_ms) > self.window_ms;
            let is_out = forgotten < FORGOTTEN_AT_ONCE && self.order.front().is_some_and(is_old);
            // Never the one that was just entered, however long its list is.
            let is_full = self.weight > self.references_max && self.order.len() > 1;
            if !is_out && !is_full {
                break;
            }
            if let Some(oldest) = self.order.pop_front() {
                let forgotten = self.references.remove(&oldest.reference);
                self.weight -= forgotten.map_or(0, |forgotten| forgotten.weight());
            }
        }
    }

    fn forget_holds(&mut self, now_ms: u64) -> Vec<HoldId> {
        let mut forgotten = Vec::new();
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some((at_ms, id)) = self.resolved.first().copied() else { break };
            let is_old = at_ms.saturating_add(HOLDS_RESOLVED_MS) < now_ms;
            if !is_old && self.resolved.len() <= HOLDS_RESOLVED_MAX {
                break;
            }
            self.resolved.pop_first();
            self.holds.remove(&id);
            forgotten.push(id);
        }
        forgotten
    }

    /// Units that active holds of one product and location hold: by it the books are held against the slots.
    pub fn units_held(&self) -> BTreeMap<(&str, &str), u128> {
        let mut held = BTreeMap::new();
        for hold in self.holds.values().filter(|hold| hold.state == HoldState::Active) {
            *held.entry((hold.sku.as_str(), hold.location.as_str())).or_default() += u128::from(hold.units);
        }
        held
    }
}
