//! What a node keeps about rights beside the slots: who waits for them, what sells, whom not to ask again at once. It is
//! no state of the replica: how much may be sold is decided in the committer alone.

pub(super) mod queue;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use stockmesh_proto::asking::BackOff;
use stockmesh_proto::demand::Demand;
use stockmesh_proto::grant::GrantPolicy;
use stockmesh_proto::{Location, Sku};
use tokio::time::Instant;

use crate::limits::{DEFICITS_MAX, DEMANDS_MAX, DEMANDS_SWEEP_EVERY};
use queue::Queue;

/// A product at a location.
pub(super) type Place = (Sku, Location);

/// What a node keeps about rights beside the slots.
#[derive(Debug)]
pub(super) struct Rights {
    pub(super) policy: Arc<dyn GrantPolicy>,
    /// Who waits, by product and location.
    queues: Mutex<BTreeMap<Place, Queue>>,
    /// Numbers those who wait: whoever came first is served first.
    tickets: AtomicU64,
    pub(super) back_off: Mutex<BackOff>,
    /// Apart from the other, so that a peer that gives nothing ahead of demand is still asked in need.
    pub(super) back_off_ahead: Mutex<BackOff>,
    demands: Mutex<HashMap<Place, Demand>>,
    /// When the demands were last looked through for room.
    swept_ms: AtomicU64,
    /// Where this replica is below zero, as far as that was noticed: paid back from others' rights.
    pub(super) deficits: Mutex<BTreeSet<Place>>,
    begun: Instant,
}

impl Rights {
    pub(super) fn new(policy: Arc<dyn GrantPolicy>) -> Self {
        Self {
            policy,
            queues: Mutex::default(),
            tickets: AtomicU64::new(0),
            back_off: Mutex::default(),
            back_off_ahead: Mutex::default(),
            demands: Mutex::default(),
            swept_ms: AtomicU64::new(0),
            deficits: Mutex::default(),
            begun: Instant::now(),
        }
    }

    /// Time since the node was started: rates and pauses do not follow a wall clock that is set.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts units that somebody wants to buy here.
    pub(super) fn note_demand(&self, sku: &Sku, location: &Location, units: u64) {
        let now_ms = self.now_ms();
        let mut demands = self.demands.lock();
        let place = (sku.clone(), location.clone());
        match demands.get_mut(&place) {
            Some(demand) => demand.note(units, now_ms),
            None => {
                if demands.len() >= DEMANDS_MAX && self.may_sweep(now_ms) {
                    demands.retain(|_, demand| demand.per_hour(now_ms) > 0);
                }
                // Beyond the limit a product is not known as hot: its sales ask for what they need, and no more.
                if demands.len() < DEMANDS_MAX {
                    let mut demand = Demand::default();
                    demand.note(units, now_ms);
                    demands.insert(place, demand);
                }
            }
        }
    }

    /// Whether it is time to look for room: a look at all products must not be part of each sale.
    fn may_sweep(&self, now_ms: u64) -> bool {
        let every_ms = u64::try_from(DEMANDS_SWEEP_EVERY.as_millis()).unwrap_or(u64::MAX);
        let before = self.swept_ms.load(Ordering::Relaxed);
        let is_due = before.saturating_add(every_ms) <= now_ms;
        if is_due {
            self.swept_ms.store(now_ms, Ordering::Relaxed);
        }
        is_due
    }

    /// Whether anybody waits for rights of anything.
    pub(super) fn anybody_waits(&self) -> bool {
        !self.queues.lock().is_empty()
    }

    /// Notes that this replica is below zero somewhere.
    pub(super) fn note_deficit(&self, place: Place) {
        let mut deficits = self.deficits.lock();
        if deficits.len() < DEFICITS_MAX {
            deficits.insert(place);
        }
    }

    /// Units per hour that are wanted here.
    pub(super) fn per_hour(&self, place: &Place) -> u64 {
        let now_ms = self.now_ms();
        self.demands.lock().get(place).map_or(0, |demand| demand.per_hour(now_ms))
    }

    /// Products that are wanted here, with the units per hour. Those that nobody wants any more are forgotten.
    pub(super) fn wanted(&self) -> Vec<(Place, u64)> {
        let now_ms = self.now_ms();
        let mut demands = self.demands.lock();
        demands.retain(|_, demand| demand.per_hour(now_ms) > 0);
        demands.iter().map(|(place, demand)| (place.clone(), demand.per_hour(now_ms))).collect()
    }
}
