//! Those who wait for rights of one product at one location, first come, first served.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::super::shared::Shared;
use super::Place;

/// Somebody who waits.
#[derive(Debug)]
struct Waiter {
    units: u64,
    /// True: go on, there is enough for you. False: there is no more to be had.
    go: oneshot::Sender<bool>,
}

/// Who waits, and what they are about to take.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<u64, Waiter>,
    /// Units of those who were told to go on and have not taken them yet.
    promised: u64,
    /// Units that were obtained and may not be in the table yet.
    on_the_way: u64,
    /// Somebody is asking peers for this place.
    is_served: bool,
    changed: Arc<Notify>,
}

/// What somebody waits for in one queue.
pub(super) struct Part {
    pub(super) place: Place,
    pub(super) units: u64,
    /// Where the answer comes, until it has.
    pub(super) answer: Option<oneshot::Receiver<bool>>,
    /// The units are promised to this turn.
    pub(super) has_come: bool,
}

/// The turn of somebody who waits, in all the queues that it needs: until it is dropped, the units count as taken.
pub(crate) struct Turn {
    shared: Shared,
    parts: Vec<Part>,
}

impl Turn {
    pub(super) fn new(shared: Shared, parts: Vec<Part>) -> Self {
        Self { shared, parts }
    }

    /// Waits until all have come. False if one cannot come, or not in time.
    pub(super) async fn come(&mut self, until: Instant) -> bool {
        for part in &mut self.parts {
            let Some(answer) = &mut part.answer else { continue };
            let told = tokio::time::timeout_at(until, answer).await;
            if let Ok(told) = told {
                part.answer = None;
                part.has_come = told == Ok(true);
            }
            if !part.has_come {
                return false;
            }
        }
        true
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
            change(&self.shared, &part.place, |queue| queue.promised = queue.promised.saturating_sub(promised));
        }
    }
}

/// Changes a queue, tells whoever serves it, and lets go of it if nothing is left.
fn change(shared: &Shared, place: &Place, change: impl FnOnce(&mut Queue)) {
    let mut queues = shared.rights.queues.lock();
    let Some(queue) = queues.get_mut(place) else { return };
    change(queue);
    queue.changed.notify_one();
    if queue.is_idle() {
        queues.remove(place);
    }
}

/// Takes a place in the queue. Returns where the answer comes, and whether the caller must see to it that the queue is
/// served.
pub(super) fn join(shared: &Shared, place: &Place, ticket: u64, units: u64) -> (oneshot::Receiver<bool>, bool) {
    let (go, answer) = oneshot::channel();
    let mut queues = shared.rights.queues.lock();
    let queue = queues.entry(place.clone()).or_default();
    queue.waiting.insert(ticket, Waiter { units, go });
    queue.changed.notify_one();
    let must_serve = !std::mem::replace(&mut queue.is_served, true);
    (answer, must_serve)
}

/// Units were obtained, and are being merged.
pub(super) fn note_obtained(shared: &Shared, place: &Place, units: u64) {
    change(shared, place, |queue| queue.on_the_way = queue.on_the_way.saturating_add(units));
}

/// Units that were obtained are in the table.
pub(super) fn note_arrived(shared: &Shared, place: &Place, units: u64) {
    change(shared, place, |queue| queue.on_the_way = queue.on_the_way.saturating_sub(units));
}

/// What is still lacking.
pub(super) struct Lack {
    /// Units that those who wait need beyond what there is.
    pub(super) units: u64,
    /// Wakes up when somebody came, went on, or something arrived.
    pub(super) changed: Arc<Notify>,
}

/// Lets those go on for whom there is enough, in their order, by the rights that the table shows. `None` if nobody is
/// left: the queue is not served any more from then on.
pub(super) fn step(shared: &Shared, place: &Place, rights: i128) -> Option<Lack> {
    let mut queues = shared.rights.queues.lock();
    let queue = queues.get_mut(place)?;
    queue.waiting.retain(|_, waiter| !waiter.go.is_closed());
    while let Some(first) = queue.waiting.first_entry() {
        if i128::from(first.get().units) > budget(rights, queue.on_the_way, queue.promised) {
            break;
        }
        let waiter = first.remove();
        // Counted before it is told: its turn takes it back.
        if waiter.go.send(true).is_ok() {
            queue.promised = queue.promised.saturating_add(waiter.units);
        }
    }
    if queue.waiting.is_empty() {
        queue.is_served = false;
        if queue.is_idle() {
            queues.remove(place);
        }
        return None;
    }
    let wanted: i128 = queue.waiting.values().map(|waiter| i128::from(waiter.units)).sum();
    let lacking = (wanted - budget(rights, queue.on_the_way, queue.promised)).max(1);
    Some(Lack { units: u64::try_from(lacking).unwrap_or(u64::MAX), changed: Arc::clone(&queue.changed) })
}

/// Nothing more is to be had: whoever fits into what there is goes on, the others are told.
pub(super) fn give_up(shared: &Shared, place: &Place, rights: i128) {
    let mut queues = shared.rights.queues.lock();
    let Some(queue) = queues.get_mut(place) else { return };
    for waiter in std::mem::take(&mut queue.waiting).into_values() {
        let fits = i128::from(waiter.units) <= budget(rights, queue.on_the_way, queue.promised);
        if waiter.go.send(fits).is_ok() && fits {
            queue.promised = queue.promised.saturating_add(waiter.units);
        }
    }
}

/// Units that can be handed out: what there is and comes, less what others are about to take.
fn budget(rights: i128, on_the_way: u64, promised: u64) -> i128 {
    rights + i128::from(on_the_way) - i128::from(promised)
}

impl Queue {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && !self.is_served && self.promised == 0 && self.on_the_way == 0
    }
}
