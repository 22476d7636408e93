//! Asks peers for rights: those with the most and the nearest first, several at once where one cannot cover the need.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use metrics::counter;
use quinn::VarInt;
use stockmesh_proto::asking::{Candidate, asked_at_once, order};
use stockmesh_proto::check::check_granted;
use stockmesh_proto::limits::FRAME_BYTES_MAX;
use stockmesh_proto::operation::Shortfall;
use stockmesh_proto::product::Product;
use stockmesh_proto::wire::{Ask, Granted, Message};
use stockmesh_proto::{ReplicaId, Shard};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::commit::{Claim, RemoteDelta, Source};
use crate::limits::{ASK_ROUND_TRIPS, ASK_TIME_MAX, REPLY_TIME_MAX, RIGHTS_LOOK_EVERY};
use crate::net::frames::{FrameError, read_metered, write_message};
use crate::net::link::Link;
use crate::net::rights::Place;
use crate::net::rights::queue::{self, Coming, Part, Serving, Turn};
use crate::net::session::SyncError;
use crate::net::shared::Shared;
use crate::net::verdict::judge;

/// What a peer answered.
pub(super) struct Answer {
    peer: ReplicaId,
    /// Units that it gave, and what it is known to have left; nothing if it did not answer in time.
    given: Option<(u64, u64)>,
    /// Rights that it was known to have when it was asked.
    known: u64,
}

/// Waits until there are rights enough for all that is lacking, or no more are to be had in time. The turn must be kept
/// until they are taken. `ticket` keeps the place in the queue of somebody who has to come again.
pub(in crate::net) async fn obtain(
    shared: &Shared,
    shortfalls: &[Shortfall],
    until: Instant,
    ticket: &mut Option<u64>,
) -> Option<Turn> {
    // What came now would be left behind.
    if shared.leaving.load(Ordering::SeqCst) {
        return None;
    }
    let ticket = *ticket.get_or_insert_with(|| shared.rights.ticket());
    let mut waiting = Vec::new();
    for shortfall in shortfalls {
        let place = (shortfall.sku.clone(), shortfall.location.clone());
        let (answer, must_serve) = queue::join(&shared.rights, &place, ticket, shortfall.wanted);
        if must_serve {
            // Made here, so that the queue is let go of also if the task never runs.
            let serving = Serving::begin(&shared.rights, &place);
            shared.spawn(serve(serving, place.clone(), shared.clone()));
        }
        waiting.push(Part { place, units: shortfall.wanted, answer: Some(answer), has_come: false });
    }
    let mut turn = Turn::new(Arc::clone(&shared.rights), waiting);
    turn.come(until, shared.until_offline()).await.then_some(turn)
}

fn rights_of(shared: &Shared, place: &Place) -> BTreeMap<ReplicaId, i128> {
    let (sku, location) = place;
    shared.table.get(sku.as_str()).map(|product| product.rights_at(location)).unwrap_or_default()
}

/// A peer that was asked and has not answered yet.
struct Asked {
    needed: u64,
    /// From then on it counts as silent: others are asked beside it.
    silent_from: Instant,
}

impl Asked {
    fn is_silent(&self) -> bool {
        Instant::now() >= self.silent_from
    }
}

/// Serves the queue of one product at one location until nobody waits.
async fn serve(serving: Serving, place: Place, shared: Shared) {
    let mut asking: JoinSet<Answer> = JoinSet::new();
    let mut asked: BTreeMap<ReplicaId, Asked> = BTreeMap::new();
    loop {
        let rights = rights_of(&shared, &place);
        // With none but silent peers nobody knows how long it takes.
        let is_stalled = !asked.is_empty() && asked.values().all(Asked::is_silent);
        let Some(lack) = queue::step(&shared.rights, &place, &shared.table, is_stalled) else {
            // What is under way goes on: rights that come now stay here.
            asking.detach_all();
            serving.end();
            return;
        };
        let awaited = asked.values().filter(|asked| !asked.is_silent()).map(|asked| asked.needed);
        let needed = lack.units.saturating_sub(awaited.fold(0, u64::saturating_add));
        if needed > 0 {
            for (link, needed, known) in candidates(&shared, &place, &rights, &asked, needed) {
                let silent_from = Instant::now() + time_to_answer(&link);
                asked.insert(link.replica, Asked { needed, silent_from });
                let (shared, place) = (shared.clone(), place.clone());
                asking.spawn(async move { ask_in_need(link, place, (needed, known), silent_from, &shared).await });
            }
        }
        if asked.is_empty() && !lack.is_promised {
            queue::give_up(&shared.rights, &place, &shared.table);
            continue;
        }
        tokio::select! {
            biased;
            answer = asking.join_next(), if !asking.is_empty() => match answer {
                Some(Ok(peer)) => drop(asked.remove(&peer.peer)),
                // A question that ended in a panic: nobody knows whose it was.
                _ => asked.clear(),
            },
            () = lack.changed.notified() => {}
            // Rights also come by pushes, receipts and releases, of which the queue is not told.
            () = tokio::time::sleep(RIGHTS_LOOK_EVERY) => {}
        }
    }
}

/// How long a peer may take before it counts as silent. A distant one is given the time that its distance takes.
pub(super) fn time_to_answer(link: &Link) -> Duration {
    ASK_TIME_MAX + link.connection.rtt() * ASK_ROUND_TRIPS
}

/// Whom to ask now, for how much each, and the rights that each is known to have.
fn candidates(
    shared: &Shared,
    place: &Place,
    rights: &BTreeMap<ReplicaId, i128>,
    asked: &BTreeMap<ReplicaId, Asked>,
    needed: u64,
) -> Vec<(Arc<Link>, u64, u64)> {
    let now_ms = shared.rights.now_ms();
    let links = shared.registry.links();
    let mut candidates: Vec<Candidate> = {
        let back_off = shared.rights.back_off.lock();
        let may_be_asked = links.iter().filter(|link| link.knows_rights && !asked.contains_key(&link.replica));
        let known = may_be_asked.filter_map(|link| candidate(link, rights));
        known
            .filter(|candidate| back_off.may_ask(candidate.replica, &place.0, &place.1, candidate.rights, now_ms))
            .collect()
    };
    order(&mut candidates);
    candidates.truncate(asked_at_once(&candidates, needed));
    let mut left = needed;
    let share = candidates.iter().map_while(|candidate| {
        let part = left.min(candidate.rights);
        left -= part;
        let link = links.iter().find(|link| link.replica == candidate.replica)?;
        Some((Arc::clone(link), part, candidate.rights)).filter(|_| part > 0)
    });
    share.collect()
}

/// A linked peer as somebody who may have rights.
pub(super) fn candidate(link: &Link, rights: &BTreeMap<ReplicaId, i128>) -> Option<Candidate> {
    let rights = u64::try_from(rights.get(&link.replica).copied()?).ok().filter(|rights| *rights > 0)?;
    let round_trip_us = u64::try_from(link.connection.rtt().as_micros()).unwrap_or(u64::MAX);
    Some(Candidate { replica: link.replica, rights, round_trip_us })
}

/// Asks one peer, and goes on waiting for it when it counts as silent: to ask it once more would only move more rights.
async fn ask_in_need(
    link: Arc<Link>,
    place: Place,
    (needed, known): (u64, u64),
    silent_from: Instant,
    shared: &Shared,
) -> Answer {
    let per_hour = shared.rights.per_hour(&place);
    let ask = Ask { sku: place.0.clone(), location: place.1.clone(), needed, rights: 0, per_hour };
    let mut asking = std::pin::pin!(ask_peer(&link, ask, known, REPLY_TIME_MAX, shared));
    let answer = tokio::select! {
        biased;
        answer = &mut asking => answer,
        () = tokio::time::sleep_until(silent_from) => {
            heed(&Answer { peer: link.replica, given: None, known }, &place, shared);
            asking.await
        }
    };
    // Here, since nobody may wait for the answer any more.
    heed(&answer, &place, shared);
    answer
}

/// Asks one peer, which is known to have so many rights, and takes in what it gives.
pub(super) async fn ask_peer(link: &Arc<Link>, ask: Ask, known: u64, within: Duration, shared: &Shared) -> Answer {
    let peer = link.replica;
    let place = (ask.sku.clone(), ask.location.clone());
    let granted_before = granted(shared, &ask, link);
    let given = match exchange(link, &ask, within, shared).await {
        // One that repeats an old grant has given nothing, and is as good as silent.
        Ok(Some(answer)) if answer.units > 0 && granted_in(&answer, &ask, link) <= granted_before => Ok(None),
        Ok(Some(answer)) => take_in(answer, &ask, &place, link, shared).await,
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    let given = given.unwrap_or_else(|error| {
        judge(&error, error.violation(), link, shared);
        None
    });
    let outcome = match given {
        Some((0, _)) => "nothing",
        Some(_) => "granted",
        None => "no-answer",
    };
    counter!("stockmesh_asks_total", "outcome" => outcome).increment(1);
    Answer { peer, given, known }
}

/// One question and its answer; nothing if the peer does not answer in time.
async fn exchange(link: &Link, ask: &Ask, within: Duration, shared: &Shared) -> Result<Option<Granted>, SyncError> {
    let until = Instant::now() + within;
    let Ok(opened) = tokio::time::timeout_at(until, link.connection.open_bi()).await else { return Ok(None) };
    let (mut send, mut receive) = opened?;
    let Ok(written) = tokio::time::timeout_at(until, write_message(&mut send, &Message::Ask(ask.clone()))).await else {
        // Dropping it would end the stream in the middle of a frame, which the peer would have to take for a violation.
        let _ = send.reset(VarInt::from_u32(0));
        return Ok(None);
    };
    written?;
    let _ = send.finish();
    let Ok(answer) =
        tokio::time::timeout_at(until, read_metered(&mut receive, FRAME_BYTES_MAX, None, &link.meter)).await
    else {
        return Ok(None);
    };
    match answer? {
        Some(Message::Granted(granted)) => {
            check_granted(&granted, ask, (link.replica, link.told), shared.table.count())
                .map_err(|refused| FrameError::Violation(refused.to_string()))?;
            Ok(Some(granted))
        }
        Some(_) => Err(FrameError::Violation("a question for rights was answered with something else".into()).into()),
        None => Err(FrameError::Ended("a question for rights was not answered".into()).into()),
    }
}

/// Units that the peer of a link gave this node in all, as a product shows it.
fn granted_of(product: &Product, ask: &Ask, link: &Link) -> u64 {
    product.granted(&ask.location, link.replica, link.told)
}

fn granted(shared: &Shared, ask: &Ask, link: &Link) -> u64 {
    shared.table.get(ask.sku.as_str()).map_or(0, |product| granted_of(&product, ask, link))
}

fn granted_in(answer: &Granted, ask: &Ask, link: &Link) -> u64 {
    answer.products.first().map_or(0, |(_, product)| granted_of(product, ask, link))
}

/// Merges an answer. Whoever waits may go on at once: the committer takes the merge before what they write.
async fn take_in(
    granted: Granted,
    ask: &Ask,
    place: &Place,
    link: &Link,
    shared: &Shared,
) -> Result<Option<(u64, u64)>, SyncError> {
    let Granted { units, sequence, shard, products } = granted;
    let given = units;
    let left = products.first().map(|(_, product)| product.rights(&ask.location, link.replica)).unwrap_or_default();
    let left = u64::try_from(left.max(0)).unwrap_or(u64::MAX);
    if products.is_empty() {
        // It is asked too often, or does not know the product: as good as no answer.
        return Ok(None);
    }
    let after = products.first().map_or(0, |(_, product)| granted_of(product, ask, link));
    let read = |state: &Shard| {
        let before = state.get(ask.sku.as_str()).map_or(0, |product| granted_of(product, ask, link));
        (before, state.version().get(link.replica) >= sequence)
    };
    let (before, is_known) = shared.table.read(shard, read).unwrap_or_default();
    if units > 0 && is_known && after > before {
        // Its own past as a future: it was restored from an old copy, and gives away what it has given already.
        let reason = "a grant came under a number of which another write is known";
        return Err(FrameError::Violation(reason.into()).into());
    }
    let claim = match units {
        0 => Claim::Nothing,
        _ => Claim::Range { origin: link.replica, from: sequence, to: sequence },
    };
    // What a push brought already is in the table, and must not be counted twice.
    let units = units.min(after.saturating_sub(before));
    let delta = RemoteDelta { shard, products, claim };
    // Counted before it can be applied, so that it is never in the table and not counted as on its way.
    let coming = Coming { from: link.replica, sequence, units };
    queue::note_obtained(&shared.rights, place, coming);
    let (readable, merged) = match shared.committer.merge_watched(vec![delta], Source::of(&link.witness)).await {
        Ok(merging) => merging,
        Err(stopped) => {
            queue::note_arrived(&shared.rights, place, coming);
            return Err(stopped.into());
        }
    };
    let (place, shared_of_task, peer) = (place.clone(), shared.clone(), link.replica);
    shared.spawn(async move {
        let _ = readable.await;
        queue::note_arrived(&shared_of_task.rights, &place, coming);
        let outcome = merged.await;
        // Turned away for lack of room: to ask again would only move more rights out of reach.
        if matches!(outcome, Ok(Ok(outcome)) if !outcome.shards_refused.is_empty()) {
            let now_ms = shared_of_task.rights.now_ms();
            shared_of_task.rights.back_off.lock().timed_out(peer, &place.0, &place.1, now_ms);
        }
    });
    Ok(Some((given, left)))
}

/// Keeps in mind who gave nothing.
fn heed(answer: &Answer, place: &Place, shared: &Shared) {
    let (peer, now_ms, (sku, location)) = (answer.peer, shared.rights.now_ms(), place);
    let mut back_off = shared.rights.back_off.lock();
    match answer.given {
        // What is known here may be more than the peer has, or knows of: it is no reason to ask again.
        Some((0, left)) => back_off.refused(peer, sku, location, left.max(answer.known), now_ms),
        Some(_) => back_off.granted(peer, sku, location),
        None => back_off.timed_out(peer, sku, location, now_ms),
    }
}

impl Answer {
    /// Whether rights came.
    pub(super) fn has_given(&self) -> bool {
        self.given.is_some_and(|(units, _)| units > 0)
    }
}
