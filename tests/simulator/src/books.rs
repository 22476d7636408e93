//! What callers were told of their writes: done, refused, or nothing that can be relied on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use stockmesh::{HoldId, ReplicaId};

use crate::plan::Action;

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
    /// Writes under a reference, which can be asked for again.
    again: BTreeMap<u64, Action>,
    /// Ids that may have two histories: of their later writes nobody knows which counted.
    suspects: BTreeSet<ReplicaId>,
    /// Dead nodes that were retired.
    retired: BTreeSet<u16>,
}

/// Units that are certain, and amounts of which each may be added or not.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    /// Certain.
    pub certain: i128,
    /// Each may count.
    pub possible: Vec<i64>,
    /// Nothing can be said.
    pub is_unbounded: bool,
}

impl Sum {
    /// Whether these units can come of it.
    #[must_use]
    pub fn allows(&self, units: i128) -> bool {
        if self.is_unbounded {
            return true;
        }
        let mut sums = BTreeSet::from([self.certain]);
        for possible in &self.possible {
            let more: Vec<i128> = sums.iter().map(|sum| sum + i128::from(*possible)).collect();
            sums.extend(more);
        }
        sums.contains(&units)
    }
}

impl Books {
    /// Notes a write that begins. Until it ends nothing is known of it.
    pub fn begin(&self, mut write: Write, again: Option<Action>) -> u64 {
        let mut state = self.0.lock();
        let number = state.tick();
        state.again.extend(again.map(|action| (number, action)));
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

    /// Writes of a node whose answers were lost, and that can be asked for again.
    #[must_use]
    pub fn unanswered(&self, node: u16) -> Vec<(u64, Action)> {
        let state = self.0.lock();
        let lost = |number: &u64| {
            state.writes.get(number).is_some_and(|write| write.node == node && write.known == Known::Unknown)
        };
        state
            .again
            .iter()
            .filter(|(number, _)| lost(number))
            .map(|(number, action)| (*number, action.clone()))
            .collect()
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
        self.sums(|_, place| Some(place.clone()))
    }

    /// By product, what one replica may have counted.
    #[must_use]
    pub fn of_replica(&self, replica: ReplicaId, node: u16) -> BTreeMap<String, Sum> {
        self.sums(|write, (sku, _)| {
            // A write whose id is not known counts as possible, see below.
            let is_own = write.replica.map_or(write.node == node, |known| known == replica);
            is_own.then(|| sku.clone())
        })
    }

    fn sums<Key: Ord>(&self, key: impl Fn(&Write, &Place) -> Option<Key>) -> BTreeMap<Key, Sum> {
        let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
        for write in self.writes() {
            for (place, units) in &write.stock {
                let Some(key) = key(&write, place) else { continue };
                let sum = sums.entry(key).or_default();
                match (write.known, write.replica) {
                    (Known::Done, Some(_)) => sum.certain += i128::from(*units),
                    (Known::Done | Known::Unknown, _) => sum.possible.push(*units),
                    (Known::Refused, _) => {}
                }
            }
            for place in write.unbounded.iter().filter(|_| write.known == Known::Unknown) {
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
