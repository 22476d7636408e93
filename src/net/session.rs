//! Drives the core's reconciliation over a stream.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use metrics::{counter, histogram};
use quinn::{RecvStream, SendStream};
use stockmesh_proto::limits::FRAME_BYTES_MAX;
use stockmesh_proto::reconcile::{Agreement, Effect, Outcome, Session, SessionError, StateView};
use stockmesh_proto::wire::Message;
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::frames::{FrameError, REPLY_TIME_MAX, read_message, write_message};
use super::link::Link;
use super::node::Shared;
use crate::commit::{Claim, RemoteDelta, RemoteOutcome, Stopped};

/// Merges that may be under way before the next message is read.
const MERGES_MAX: usize = 32;

/// A reconciliation did not end. What was merged stays, and nothing was claimed that did not arrive whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum SyncError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the peer broke a rule: {0}")]
    Rule(#[from] SessionError),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    #[error("the link ended: {0}")]
    Link(#[from] quinn::ConnectionError),
}

impl SyncError {
    /// Whether the peer broke a rule or is stuck, so that its link is closed. A stuck peer that is dialled anew may
    /// do better, and a link without reconciliations is of no use.
    pub(super) fn violation(&self) -> Option<String> {
        match self {
            Self::Rule(error) => Some(error.to_string()),
            Self::Frame(error @ (FrameError::Violation(_) | FrameError::Silent | FrameError::Stalled)) => {
                Some(error.to_string())
            }
            _ => None,
        }
    }
}

/// Reconciles with a peer, as the side that opens. At most one at a time per link.
pub(super) async fn reconcile(link: &Arc<Link>, shared: &Shared) -> Result<Outcome, SyncError> {
    let guard = link.reconciling.lock().await;
    link.wanted.store(false, Ordering::SeqCst);
    let (group, own_writes) = (shared.committer.applied(), shared.table.own_writes());
    let begun = Instant::now();
    let agreement = link.agreement.lock().clone();
    let session = Session::open(shared.session_settings(), &*shared.table, agreement.as_ref());
    let (mut send, mut receive) = link.connection.open_bi().await?;
    let outcome = drive(session, &mut send, &mut receive, shared, REPLY_TIME_MAX).await?;
    let _ = send.finish();
    if outcome.peer_holds_all() {
        link.confirm(group, own_writes);
    }
    *link.agreement.lock() = Some(Agreement::of(&shared.table.tree(), shared.table.count()));
    *link.last_reconciled.lock() = Some(Instant::now());
    drop(guard);
    histogram!("stockmesh_reconcile_seconds").record(begun.elapsed());
    counter!("stockmesh_reconciliations_total").increment(1);
    debug!(peer = %link.replica, ?outcome, "reconciled");
    shared.confirmations.send_modify(|count| *count += 1);
    Ok(outcome)
}

/// Takes part in a reconciliation that a peer opened.
pub(super) async fn respond(
    mut send: SendStream,
    mut receive: RecvStream,
    shared: &Shared,
    first_within: Duration,
) -> Result<Outcome, SyncError> {
    let session = Session::accept(shared.session_settings());
    let outcome = drive(session, &mut send, &mut receive, shared, first_within).await?;
    let _ = send.finish();
    Ok(outcome)
}

async fn drive(
    mut session: Session,
    send: &mut SendStream,
    receive: &mut RecvStream,
    shared: &Shared,
    first_within: Duration,
) -> Result<Outcome, SyncError> {
    let mut merges = Merges::default();
    let mut doubts = Vec::new();
    let mut begin_within = first_within;
    loop {
        while let Some(message) = session.poll_transmit(&*shared.table) {
            if matches!(message, Message::Done(_)) {
                // The receipt says that all is durable.
                merges.finish().await?;
            }
            // Nothing that was read may leave before it is durable (rule D4).
            shared.committer.barrier().await?;
            write_message(send, &message).await?;
        }
        if session.is_finished() {
            merges.finish().await?;
            let outcome = session.outcome();
            // Doubt alone is no fault (rule F4): slots beyond a gap cause it too, and the exchange ends it.
            if outcome.equal {
                shared.settle_all_doubts();
            } else if outcome.shards_refused == 0 && outcome.shards_refused_by_peer == 0 {
                shared.settle_doubts(&doubts);
            }
            return Ok(outcome);
        }
        let message = read_message(receive, FRAME_BYTES_MAX, Some(begin_within)).await?;
        begin_within = REPLY_TIME_MAX;
        let Some(message) = message else {
            return Err(FrameError::Ended("the peer ended the reconciliation early".into()).into());
        };
        for effect in session.handle(message, &*shared.table, shared.wall.now_ms())? {
            if let Effect::InDoubt { shard } = effect {
                doubts.push(shard);
            }
            carry_out(effect, shared, &mut merges).await?;
        }
    }
}

async fn carry_out(effect: Effect, shared: &Shared, merges: &mut Merges) -> Result<(), SyncError> {
    match effect {
        Effect::Merge { delta, claim } => {
            let claim = claim.map_or(Claim::Nothing, Claim::Version);
            let delta = RemoteDelta { shard: delta.shard, products: delta.products, claim };
            merges.push(shared.committer.merge(vec![delta]).await?).await?;
        }
        Effect::OwnFuture { shard, sequence } => shared.committer.own_future(shard, sequence).await?,
        Effect::Refused { shard, ahead_ms } => {
            counter!("stockmesh_deltas_refused_total").increment(1);
            warn!(%shard, ahead_ms, "a delta was refused: its stamp is too far ahead of this clock");
        }
        Effect::InDoubt { shard } => {
            counter!("stockmesh_shards_in_doubt_total").increment(1);
            warn!(%shard, "equal version vectors but different fingerprints: the shard is exchanged in full");
            shared.note_doubt(shard);
        }
        _ => {}
    }
    Ok(())
}

/// Merges that were queued and are not durable yet.
#[derive(Default)]
struct Merges {
    waiting: VecDeque<oneshot::Receiver<Result<RemoteOutcome, Stopped>>>,
}

impl Merges {
    async fn push(&mut self, merge: oneshot::Receiver<Result<RemoteOutcome, Stopped>>) -> Result<(), Stopped> {
        self.waiting.push_back(merge);
        if self.waiting.len() > MERGES_MAX {
            self.wait_for_one().await?;
        }
        Ok(())
    }

    async fn finish(&mut self) -> Result<(), Stopped> {
        while !self.waiting.is_empty() {
            self.wait_for_one().await?;
        }
        Ok(())
    }

    async fn wait_for_one(&mut self) -> Result<(), Stopped> {
        match self.waiting.pop_front() {
            Some(merge) => merge.await.map_err(|_| Stopped)?.map(|_| ()),
            None => Ok(()),
        }
    }
}
