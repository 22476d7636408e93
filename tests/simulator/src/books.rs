//! What callers were told of their writes: done, refused, or nothing that can be relied on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stockmesh::{HoldId, ReplicaId};

use crate::plan::Action;
use crate::sums::{Acknowledged, Sum};

/// A product at a location.
pub type Place = (String, String);

/// What a caller knows of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was acknowledged.
    Done,
    /// It was refused: nothing was changed.
    Refused,
    /// Nobody told, or it may be lost with the directory.
    Unknown,
}

/// A write, as its caller sees it.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where it was made.
    pub node: u16,
    /// The id under which it was made, if that is known for sure.
    pub replica: Option<ReplicaId>,
    /// When it began, in the order of all that was noted.
    pub begun: u64,
    /// When its caller heard of it.
    pub heard: Option<u64>,
    /// When it was acknowledged, whatever became of it since.
    pub acknowledged: Option<u64>,
    /// The same in simulated time.
    pub heard_at: Duration,
    /// What became of it.
    pub known: Known,
    /// What it does, or would do, to stock.
    pub stock: Vec<(Place, i64)>,
    /// Where it changes stock by a number that nobody knows.
    pub unbounded: Vec<Place>,
    /// The price that it sets, and the one that was seen before.
    pub price: Option<(String, u64, Option<u64>)>,
    /// Whether it lists a product, or takes it off the list.
    pub listing: Option<(String, bool)>,
    /// By what that price or listing wins over others, once it was acknowledged, if it was seen then.
    pub stamp: Option<u64>,
}

impl Write {
    /// Whether its caller knows that nothing was changed.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.known == Known::Refused
    }
}

/// A hold that was given and that nobody resolved yet.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// Where.
    pub node: u16,
    /// Which.
    pub id: HoldId,
}

/// The books of one run. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Books(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    writes: BTreeMap<u64, Write>,
    next: u64,
    holds: Vec<Given>,
    /// Writes under a reference, which can be asked for again, and where the latest attempt is noted.
    again: BTreeMap<u64, (u64, Action)>,
    /// Ids that may have two histories: of their later writes nobody knows which counted.
    suspects: BTreeSet<ReplicaId>,
    /// Dead nodes that were retired.
    retired: BTreeSet<u16>,
}

impl Books {
    /// Notes a write that begins. Until it ends nothing is known of it.
    pub fn begin(&self, mut write: Write, again: Option<Action>) -> u64 {
        let mut state = self.0.lock();
        let number = state.tick();
        state.again.extend(again.map(|action| (number, (number, action))));
        write.begun = number;
        state.writes.insert(number, write);
        number
    }

    /// Notes what became of a write.
    pub fn end(&self, number: u64, known: Known, now: Duration, correct: impl FnOnce(&mut Write)) {
        let mut state = self.0.lock();
        let tick = state.tick();
        let State { writes, suspects, .. } = &mut *state;
        if let Some(write) = writes.get_mut(&number) {
            let is_doubtful = known == Known::Done && write.replica.is_some_and(|replica| suspects.contains(&replica));
            let known = if is_doubtful { Known::Unknown } else { known };
            let is_done = known == Known::Done || is_doubtful;
            write.acknowledged = write.acknowledged.or_else(|| is_done.then_some(tick));
            (write.known, write.heard, write.heard_at) = (known, Some(tick), now);
            correct(write);
        }
    }

    /// A directory was set back to what it was then: what it acknowledged since may be lost.
    pub fn doubt(&self, node: u16, since: Duration) {
        let mut state = self.0.lock();
        for write in state.writes.values_mut().filter(|write| write.node == node && write.heard_at >= since) {
            if write.known == Known::Done {
                write.known = Known::Unknown;
            }
        }
    }

    /// An id goes on from an old copy that nobody told of: of what it writes from now on nothing is certain.
    pub fn suspect(&self, replica: ReplicaId) {
        self.0.lock().suspects.insert(replica);
    }

    /// Notes that a dead node was retired.
    pub fn note_retired(&self, dead: u16) {
        self.0.lock().retired.insert(dead);
    }

    /// Whether a dead node was retired.
    #[must_use]
    pub fn was_retired(&self, dead: u16) -> bool {
        self.0.lock().retired.contains(&dead)
    }

    /// A caller asks again for a write under its reference. The same history knows the reference; another one, which goes on
    /// from an old copy, may not, and then the write may count twice: that is one more write.
    #[must_use]
    pub fn begin_again(&self, number: u64, replica: ReplicaId) -> u64 {
        let mut state = self.0.lock();
        let is_known = |write: &Write| write.replica == Some(replica) && !state.suspects.contains(&replica);
        let last = state.again.get(&number).map_or(number, |(last, _)| *last);
        let Some(before) = state.writes.get(&last).filter(|write| !is_known(write)).cloned() else { return last };
        let begun = state.tick();
        let again =
            Write { replica: Some(replica), begun, heard: None, acknowledged: None, known: Known::Unknown, ..before };
        state.writes.insert(begun, again);
        if let Some((last, _)) = state.again.get_mut(&number) {
            *last = begun;
        }
        begun
    }

    /// Writes of a node whose answers were lost, and that can be asked for again.
    #[must_use]
    pub fn unanswered(&self, node: u16) -> Vec<(u64, Action)> {
        let state = self.0.lock();
        let is_lost = |entry: &u64| {
            state.writes.get(entry).is_some_and(|write| write.node == node && write.known == Known::Unknown)
        };
        let lost = state.again.iter().filter(|(_, (entry, _))| is_lost(entry));
        lost.map(|(number, (_, action))| (*number, action.clone())).collect()
    }

    /// Notes a hold.
    pub fn add_hold(&self, given: Given) {
        self.0.lock().holds.push(given);
    }

    /// The node's holds that nobody resolved.
    #[must_use]
    pub fn holds_of(&self, node: u16) -> Vec<HoldId> {
        self.0.lock().holds.iter().filter(|given| given.node == node).map(|given| given.id).collect()
    }

    /// Takes one of the node's holds, so that nobody else resolves it.
    #[must_use]
    pub fn take_hold(&self, node: u16, pick: u64) -> Option<HoldId> {
        let mut state = self.0.lock();
        let own: Vec<usize> = (0..state.holds.len()).filter(|place| state.holds[*place].node == node).collect();
        let count = u64::try_from(own.len()).unwrap_or(u64::MAX);
        let place = usize::try_from(pick.checked_rem(count)?).ok()?;
        Some(state.holds.swap_remove(*own.get(place)?).id)
    }

    /// All that was written.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        self.0.lock().writes.values().cloned().collect()
    }

    /// By product and location, what may be on hand.
    #[must_use]
    pub fn by_place(&self) -> BTreeMap<Place, Sum> {
        let suspects = self.0.lock().suspects.clone();
        self.sums(|_, place| Some(place.clone()), |replica| !suspects.contains(&replica))
    }

    /// By product, what one replica may have counted.
    #[must_use]
    pub fn of_replica(&self, replica: ReplicaId, node: u16) -> BTreeMap<String, Sum> {
        let key = |write: &Write, (sku, _): &Place| {
            // A write whose id is not known counts as possible, see below.
            let is_own = write.replica.map_or(write.node == node, |known| known == replica);
            is_own.then(|| sku.clone())
        };
        self.sums(key, |_| false)
    }

    /// Sums up by a key. Of replicas that are `ordered` what was lost was written last, at each key.
    fn sums<Key: Ord>(
        &self,
        key: impl Fn(&Write, &Place) -> Option<Key>,
        ordered: impl Fn(ReplicaId) -> bool,
    ) -> BTreeMap<Key, Sum> {
        let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
        for write in self.writes() {
            for (place, units) in &write.stock {
                let Some(key) = key(&write, place) else { continue };
                let sum = sums.entry(key).or_default();
                match (write.known, write.replica, write.acknowledged) {
                    (Known::Done, Some(_), _) => sum.certain += i128::from(*units),
                    (Known::Unknown, Some(replica), Some(heard)) if ordered(replica) => {
                        let acknowledged = Acknowledged { begun: write.begun, heard, units: *units };
                        sum.set_back.entry(replica).or_default().push(acknowledged);
                    }
                    (Known::Done | Known::Unknown, ..) => sum.possible.push(*units),
                    (Known::Refused, ..) => {}
                }
            }
            // By how much it changes stock is known once it was acknowledged.
            let is_unknown = write.known == Known::Unknown && write.acknowledged.is_none();
            for place in write.unbounded.iter().filter(|_| is_unknown) {
                if let Some(key) = key(&write, place) {
                    sums.entry(key).or_default().is_unbounded = true;
                }
            }
        }
        sums
    }

    /// How many writes were done, refused, and are unknown.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        let writes = self.writes();
        [Known::Done, Known::Refused, Known::Unknown].map(|known| writes.iter().filter(|w| w.known == known).count())
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}
