//! Reconciles with a peer as the side that opens: what differs much is first pulled in parts, from several peers at once
//! (section 16 of the protocol).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use metrics::counter;
use stockmesh_proto::ShardIndex;
use stockmesh_proto::joining::PullNumber;
use stockmesh_proto::limits::FRAME_BYTES_MAX;
use stockmesh_proto::reconcile::{Direction, Session, StateView};
use stockmesh_proto::wire::{Message, Standing};
use tracing::debug;

use super::catch_up::{Assignment, CatchUp};
use super::frames::{FrameError, OwnStream, read_message, write_message};
use super::link::Link;
use super::registry::Others;
use super::session::{Merges, SyncError, drive, reconcile_whole};
use super::shared::Shared;
use crate::limits::{JOIN_AGAIN_AFTER, JOIN_YIELD_TIME_MAX, PULL_LOOK_EVERY, REPLY_TIME_MAX};

/// A difference in so many shards, as a part of all, is large: it is pulled in parts.
const LARGE_PART: usize = 4;

/// Reconciles with a peer, as the side that opens. At most one at a time per link; whoever waited, and finds that a
/// reconciliation has begun and ended since it wanted one, is served.
pub(super) async fn reconcile(link: &Arc<Link>, shared: &Shared) -> Result<(), SyncError> {
    let guard = link.reconciling.lock().await;
    // Served also if there is nothing to do: a wish that stays is asked for again at once.
    if !link.wanted.swap(false, Ordering::SeqCst) {
        return Ok(());
    }
    // Two that only read have nothing to tell each other.
    let Some(direction) = link.direction() else { return Ok(()) };
    let is_awaited = link.awaited.swap(false, Ordering::SeqCst);
    let is_new = link.agreement.lock().is_none();
    let mut peer_catches_up = false;
    if link.knows_pulls && direction != Direction::ServeOnly && (is_new || shared.catch_up.is_catching_up()) {
        let standing = survey(link, shared).await?;
        peer_catches_up = standing.catching_up;
        // Whoever catches up pulls what it lacks, from whom it likes: to send it the same from here would double it. But
        // somebody may wait for the end of this one.
        let is_left = !is_awaited && !shared.catch_up.is_busy() && link.since.elapsed() < JOIN_YIELD_TIME_MAX;
        if peer_catches_up && is_left {
            return Ok(());
        }
        if !peer_catches_up {
            pull_what_differs(link, &standing, direction, shared).await?;
        }
    }
    let outcome = reconcile_whole(link, direction, shared).await?;
    drop(guard);
    // Nothing came from a peer that only reads. With none but such the node waits for others, though not for ever.
    let brings_nothing = direction == Direction::ServeOnly;
    let others = |known: &_| match shared.registry.others(known) {
        Others::None if brings_nothing => Others::Missing,
        others => others,
    };
    // Both are equal now: if there is nothing here, the peer had nothing either, whatever it says of itself. It may have
    // ended its own catching up with nobody but others as empty.
    let is_joiner = peer_catches_up || brings_nothing || shared.table.is_empty();
    if outcome.shards_refused == 0 && shared.catch_up.reconciled(link.replica, is_joiner, others) {
        shared.committer.note_catching_up(false);
    }
    if shared.catch_up.is_catching_up() {
        want_again(link, shared);
    }
    Ok(())
}

/// Asks for another reconciliation after a moment, for as long as this node catches up. Once for each link, however many
/// reconciliations end meanwhile.
fn want_again(link: &Arc<Link>, shared: &Shared) {
    if link.wanted_again.swap(true, Ordering::SeqCst) {
        return;
    }
    let (link, shared_of_task) = (Arc::clone(link), shared.clone());
    shared.spawn(async move {
        tokio::time::sleep(JOIN_AGAIN_AFTER).await;
        link.wanted_again.store(false, Ordering::SeqCst);
        if shared_of_task.catch_up.is_catching_up() {
            shared_of_task.want_reconciliation(link.replica);
        }
    });
}

/// Asks a peer how it stands.
pub(super) async fn survey(link: &Link, shared: &Shared) -> Result<Standing, SyncError> {
    // A peer may grant no stream at all.
    let opened = tokio::time::timeout(REPLY_TIME_MAX, OwnStream::open(&link.connection)).await;
    let mut stream = opened.map_err(|_| FrameError::Stalled)??;
    write_message(&mut stream.send, &Message::Survey).await?;
    stream.finish();
    match read_message(&mut stream.receive, FRAME_BYTES_MAX, Some(REPLY_TIME_MAX)).await? {
        Some(Message::Standing(standing)) if standing.leaves.len() == usize::from(shared.table.count().get()) => {
            Ok(standing)
        }
        Some(_) => Err(FrameError::Violation("a survey was answered with something else".into()).into()),
        None => Err(FrameError::Ended("the peer did not answer the survey".into()).into()),
    }
}

/// What a peer offered is not counted on any more, unless its pulls came to an end: also if nobody waits for them any more.
struct Offer<'a> {
    link: &'a Link,
    catch_up: &'a CatchUp,
    is_ended: bool,
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        if !self.is_ended {
            self.catch_up.leave(self.link.replica);
        }
        self.catch_up.close_plan();
    }
}

/// A pull under way, which ends in the plan however it ends.
struct Pulling<'a> {
    number: PullNumber,
    catch_up: &'a CatchUp,
    is_whole: bool,
}

impl Drop for Pulling<'_> {
    fn drop(&mut self) {
        self.catch_up.ended(self.number, self.is_whole);
    }
}

/// Pulls the shards in which a peer differs, if they are many, beside whoever else can help.
async fn pull_what_differs(
    link: &Arc<Link>,
    standing: &Standing,
    direction: Direction,
    shared: &Shared,
) -> Result<(), SyncError> {
    let tree = shared.table.tree();
    let leaves = shared.table.count().indexes().zip(&standing.leaves);
    let differing: Vec<ShardIndex> =
        leaves.filter(|(shard, theirs)| tree.leaf(*shard) != **theirs).map(|(shard, _)| shard).collect();
    let is_large = differing.len() > standing.leaves.len() / LARGE_PART;
    if !shared.catch_up.offer(link.replica, &differing, is_large) {
        return Ok(());
    }
    let mut offer = Offer { link, catch_up: &shared.catch_up, is_ended: false };
    // Two at a time, so that one transfers while the other waits for an answer or for the disk.
    let result = tokio::try_join!(pull_for_long(link, direction, shared), pull_for_long(link, direction, shared));
    offer.is_ended = result.is_ok();
    result.map(|_| ())
}

/// Pulls one portion after the other, until nobody needs this peer any more.
async fn pull_for_long(link: &Arc<Link>, direction: Direction, shared: &Shared) -> Result<(), SyncError> {
    let catch_up = &shared.catch_up;
    let mut changes = catch_up.changes();
    loop {
        changes.borrow_and_update();
        match catch_up.next(link.replica) {
            Some(assignment) => {
                let mut pulling = Pulling { number: assignment.number, catch_up, is_whole: false };
                let pulled = pull(assignment, link, direction, shared).await;
                pulling.is_whole = matches!(pulled, Ok(true));
                drop(pulling);
                if let Err(error) = pulled {
                    counter!("stockmesh_pulls_failed_total").increment(1);
                    debug!(peer = %link.replica, %error, "a pull did not end");
                    // Anything else may go better next time.
                    if error.violation().is_some() || !link.is_open() || matches!(error, SyncError::Stopped(_)) {
                        return Err(error);
                    }
                }
            }
            None if catch_up.may_need(link.replica) => {
                tokio::select! {
                    biased;
                    error = link.connection.closed() => return Err(error.into()),
                    _ = changes.changed() => {}
                    // Silence and pauses end without a change.
                    () = tokio::time::sleep(PULL_LOOK_EVERY) => catch_up.end_overdue(),
                }
            }
            None => return Ok(()),
        }
    }
}

/// Pulls one portion. False if it was given to another peer meanwhile.
async fn pull(
    assignment: Assignment,
    link: &Arc<Link>,
    direction: Direction,
    shared: &Shared,
) -> Result<bool, SyncError> {
    let Assignment { number, scope, cancelled } = assignment;
    counter!("stockmesh_pulls_total").increment(1);
    let opened = tokio::time::timeout(REPLY_TIME_MAX, OwnStream::open(&link.connection)).await;
    let mut stream = opened.map_err(|_| FrameError::Stalled)??;
    let session = Session::pull(shared.session_settings(), scope).with_direction(direction);
    let merges = Merges::of_pull(number, link.replica);
    let pulled = tokio::select! {
        biased;
        pulled = drive(session, &mut stream.send, &mut stream.receive, (link, shared), merges) => pulled.map(|_| true),
        _ = cancelled => Ok(false),
    };
    if matches!(pulled, Ok(true)) {
        stream.finish();
    }
    pulled
}
