//! Those who wait for rights of one product at one location, first come, first served.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::reconcile::StateView;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::{Place, Rights};
use crate::table::Table;

/// Somebody who waits.
#[derive(Debug)]
struct Waiter {
    units: u64,
    /// True: go on, there is enough for you. False: there is no more to be had.
    go: oneshot::Sender<bool>,
}

/// A grant to this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::net) struct Coming {
    pub(in crate::net) from: ReplicaId,
    pub(in crate::net) sequence: u64,
    pub(in crate::net) units: u64,
}

/// Who waits, and what they are about to take.
#[derive(Debug, Default)]
pub(in crate::net) struct Queue {
    waiting: BTreeMap<u64, Waiter>,
    /// Units of those who were told to go on and have not taken them yet.
    promised: u64,
    /// Grants that were obtained and may not be in the table yet.
    on_the_way: Vec<Coming>,
    /// Units that were obtained for those who wait, and that nobody was told to take yet.
    obtained: u64,
    /// Somebody is asking peers for this place.
    is_served: bool,
    /// All who could be asked are silent: whoever fits into what there is need not wait behind one who does not.
    is_stalled: bool,
    changed: Arc<Notify>,
}

/// What somebody waits for in one queue.
pub(in crate::net) struct Part {
    pub(in crate::net) place: Place,
    pub(in crate::net) units: u64,
    /// Where the answer comes, until it has.
    pub(in crate::net) answer: Option<oneshot::Receiver<bool>>,
    /// The units are promised to this turn.
    pub(in crate::net) has_come: bool,
}

/// The turn of somebody who waits, in all the queues that it needs: until it is dropped, the units count as taken.
pub(crate) struct Turn {
    rights: Arc<Rights>,
    parts: Vec<Part>,
}

impl Turn {
    pub(in crate::net) fn new(rights: Arc<Rights>, parts: Vec<Part>) -> Self {
        Self { rights, parts }
    }

    /// Waits until all have come. False if one cannot come, not in time, or not before the node is `offline`.
    pub(in crate::net) async fn come(&mut self, until: Instant, offline: impl Future<Output = ()>) -> bool {
        let mut offline = std::pin::pin!(offline);
        let mut timeout = std::pin::pin!(tokio::time::sleep_until(until));
        // All at once: a no from one ends it, however long the others would have to be waited for.
        std::future::poll_fn(|context| {
            let mut all = true;
            for part in &mut self.parts {
                if let Some(answer) = &mut part.answer {
                    match Pin::new(answer).poll(context) {
                        Poll::Pending => {
                            all = false;
                            continue;
                        }
                        Poll::Ready(told) => {
                            part.answer = None;
                            part.has_come = told == Ok(true);
                        }
                    }
                }
                if !part.has_come {
                    return Poll::Ready(false);
                }
            }
            // Nobody can be asked any more when the node is offline, as when the store is closed.
            let is_over = timeout.as_mut().poll(context).is_ready() || offline.as_mut().poll(context).is_ready();
            if all || is_over { Poll::Ready(all) } else { Poll::Pending }
        })
        .await
    }
}

impl Drop for Turn {
    /// Also of a caller that went away: what was promised to it goes to the next.
    fn drop(&mut self) {
        for part in &mut self.parts {
            // Told in the last moment.
            let told = part.answer.as_mut().is_some_and(|answer| {
                answer.close();
                answer.try_recv() == Ok(true)
            });
            let promised = if part.has_come || told { part.units } else { 0 };
            change(&self.rights, &part.place, |queue| queue.promised = queue.promised.saturating_sub(promised));
        }
    }
}

/// Changes a queue, tells whoever serves it, and lets go of it if nothing is left.
fn change(desk: &Rights, place: &Place, change: impl FnOnce(&mut Queue)) {
    let mut queues = desk.queues.lock();
    let Some(queue) = queues.get_mut(place) else { return };
    change(queue);
    queue.changed.notify_one();
    if queue.is_idle() {
        queues.remove(place);
    }
}

/// Takes a place in the queue. Returns where the answer comes, and whether the caller must see to it that the queue is
/// served.
pub(in crate::net) fn join(desk: &Rights, place: &Place, ticket: u64, units: u64) -> (oneshot::Receiver<bool>, bool) {
    let (go, answer) = oneshot::channel();
    let mut queues = desk.queues.lock();
    let queue = queues.entry(place.clone()).or_default();
    queue.waiting.insert(ticket, Waiter { units, go });
    queue.changed.notify_one();
    let must_serve = !std::mem::replace(&mut queue.is_served, true);
    (answer, must_serve)
}

/// Whether rights at hand are meant for those who wait, so that somebody who wants so many units must wait too: what
/// was obtained for them, and what they were told to take. What was at hand before is there for whoever comes.
pub(in crate::net) fn is_kept(desk: &Rights, place: &Place, units: u64, rights: i128) -> bool {
    let queues = desk.queues.lock();
    let obtained = |queue: &Queue| if queue.is_stalled { 0 } else { queue.obtained };
    let kept = queues.get(place).map_or(0, |queue| queue.promised.saturating_add(obtained(queue)));
    kept > 0 && rights >= i128::from(units) && rights < i128::from(units) + i128::from(kept)
}

/// How many of the rights at hand may be given to a peer: not what somebody here was told to take; and of two nodes that
/// wait for each other's rights, the one of the lower id serves its own first, so that they do not swap them for ever.
pub(in crate::net) fn spare(desk: &Rights, place: &Place, rights: u64, serves_own_first: bool) -> u64 {
    let queues = desk.queues.lock();
    let Some(queue) = queues.get(place) else { return rights };
    let waiting = if serves_own_first {
        queue.waiting.values().map(|waiter| waiter.units).fold(0, u64::saturating_add)
    } else {
        0
    };
    rights.saturating_sub(queue.promised).saturating_sub(waiting)
}

/// Units were obtained, and are being merged.
pub(in crate::net) fn note_obtained(desk: &Rights, place: &Place, coming: Coming) {
    change(desk, place, |queue| {
        queue.on_the_way.push(coming);
        queue.obtained = queue.obtained.saturating_add(coming.units);
    });
}

/// Units that were obtained are in the table.
pub(in crate::net) fn note_arrived(desk: &Rights, place: &Place, coming: Coming) {
    change(desk, place, |queue| queue.on_the_way.retain(|other| *other != coming));
}

/// Whoever serves a queue, for as long as this lives. If it ends early, as when the node is closed, those who wait are
/// told that no more is to be had, and the next to come has the queue served anew.
pub(in crate::net) struct Serving {
    rights: Arc<Rights>,
    place: Place,
    is_done: bool,
}

impl Serving {
    pub(in crate::net) fn begin(rights: &Arc<Rights>, place: &Place) -> Self {
        Self { rights: Arc::clone(rights), place: place.clone(), is_done: false }
    }

    /// The queue is not served any more already.
    pub(in crate::net) fn end(mut self) {
        self.is_done = true;
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if !self.is_done {
            change(&self.rights, &self.place, |queue| {
                queue.is_served = false;
                queue.waiting.clear();
            });
        }
    }
}

/// What is still lacking.
pub(in crate::net) struct Lack {
    /// Units that those who wait need beyond what there is.
    pub(in crate::net) units: u64,
    /// Somebody was told to take units and has not done so yet: what there is will be known then.
    pub(in crate::net) is_promised: bool,
    /// Wakes up when somebody came, went on, or something arrived.
    pub(in crate::net) changed: Arc<Notify>,
}

/// Lets those go on for whom there is enough, in their order, by the rights that the table shows. `None` if nobody is
/// left: the queue is not served any more from then on.
/// With `is_stalled`, whoever fits goes on, also before one who does not.
pub(in crate::net) fn step(desk: &Rights, place: &Place, table: &Table, is_stalled: bool) -> Option<Lack> {
    let mut queues = desk.queues.lock();
    let queue = queues.get_mut(place)?;
    queue.waiting.retain(|_, waiter| !waiter.go.is_closed());
    queue.is_stalled = is_stalled;
    let budget = queue.budget(place, table);
    loop {
        let left = budget - i128::from(queue.promised);
        let fits = |(_, waiter): &(&u64, &Waiter)| i128::from(waiter.units) <= left;
        let mut candidates = queue.waiting.iter().take(if is_stalled { usize::MAX } else { 1 });
        let Some(ticket) = candidates.find(fits).map(|(ticket, _)| *ticket) else { break };
        let Some(waiter) = queue.waiting.remove(&ticket) else { break };
        // Counted before it is told: its turn takes it back.
        if waiter.go.send(true).is_ok() {
            queue.promised = queue.promised.saturating_add(waiter.units);
            queue.obtained = queue.obtained.saturating_sub(waiter.units);
        }
    }
    if queue.waiting.is_empty() {
        queue.obtained = 0;
        queue.is_served = false;
        if queue.is_idle() {
            queues.remove(place);
        }
        return None;
    }
    let wanted: i128 = queue.waiting.values().map(|waiter| i128::from(waiter.units)).sum();
    let lacking = (wanted + i128::from(queue.promised) - budget).max(1);
    let units = u64::try_from(lacking).unwrap_or(u64::MAX);
    Some(Lack { units, is_promised: queue.promised > 0, changed: Arc::clone(&queue.changed) })
}

/// Nothing more is to be had: whoever fits into what there is goes on, the others are told.
pub(in crate::net) fn give_up(desk: &Rights, place: &Place, table: &Table) {
    let mut queues = desk.queues.lock();
    let Some(queue) = queues.get_mut(place) else { return };
    let budget = queue.budget(place, table);
    for waiter in std::mem::take(&mut queue.waiting).into_values() {
        let fits = i128::from(waiter.units) <= budget - i128::from(queue.promised);
        if waiter.go.send(fits).is_ok() && fits {
            queue.promised = queue.promised.saturating_add(waiter.units);
        }
    }
}

impl Queue {
    /// Units that there are and that come, promised ones included. Read from one state of the product, so that a grant is
    /// counted once: in the table, or on its way to it.
    fn budget(&self, place: &Place, table: &Table) -> i128 {
        let (own, product) = (table.own(), table.get(place.0.as_str()));
        let rights = product.as_ref().map_or(0, |product| product.rights(&place.1, own));
        let has_come = |coming: &&Coming| {
            let mut grants = product.iter().flat_map(|product| product.grants_at(&place.1));
            grants.any(|grant| (grant.from, grant.to) == (coming.from, own) && grant.sequence >= coming.sequence)
        };
        let coming = self.on_the_way.iter().filter(|coming| !has_come(coming));
        rights + coming.map(|coming| i128::from(coming.units)).sum::<i128>()
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_served && self.promised == 0 && self.on_the_way.is_empty()
    }
}
