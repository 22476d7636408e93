//! Drives the core's reconciliation over a stream.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use metrics::{counter, histogram};
use quinn::{RecvStream, SendStream};
use stockmesh_proto::delta::slot_count;
use stockmesh_proto::joining::PullNumber;
use stockmesh_proto::limits::FRAME_BYTES_MAX;
use stockmesh_proto::reconcile::{Agreement, Direction, Effect, Outcome, Session, SessionError, StateView};
use stockmesh_proto::wire::Message;
use stockmesh_proto::{ReplicaId, ShardIndex, VersionVector};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::frames::{FrameError, OwnStream, read_metered, reply_time, write_message};
use super::link::Link;
use super::shared::Shared;
use crate::commit::{Claim, Merged, RemoteDelta, Stopped};
use crate::limits::{REPLY_TIME_MAX, SESSION_MERGES_MAX};

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

/// Reconciles all shards with a peer, as the side that opens. The caller holds the link's lock.
pub(super) async fn reconcile_whole(
    link: &Arc<Link>,
    direction: Direction,
    shared: &Shared,
) -> Result<Outcome, SyncError> {
    let (group, own_writes) = (shared.committer.durable(), shared.table.own_writes());
    let begun = Instant::now();
    let agreement = link.agreement.lock().clone();
    let session =
        Session::open(shared.session_settings(), &*shared.table, agreement.as_ref()).with_direction(direction);
    let is_reader = direction == Direction::PullOnly;
    let session = if is_reader { session.with_suspects(shared.stranded.suspects()) } else { session };
    // A peer may grant no stream at all, and the link is not asked anew while this one waits.
    let opened = tokio::time::timeout(REPLY_TIME_MAX, OwnStream::open(&link.connection)).await;
    let mut stream = opened.map_err(|_| FrameError::Stalled)??;
    let (send, receive) = (&mut stream.send, &mut stream.receive);
    let outcome = drive(session, send, receive, (link, shared), Merges::default()).await?;
    stream.finish();
    if is_reader {
        shared.stranded.note(&outcome, shared);
    }
    if outcome.peer_holds_all() && !is_reader {
        link.confirm(group, own_writes);
    }
    *link.agreement.lock() = Some(Agreement::of(&shared.table.tree(), shared.table.count()));
    *link.last_reconciled.lock() = Some(Instant::now());
    if outcome.shards_refused == 0 {
        *link.pulled.lock() = Some(begun);
    }
    histogram!("stockmesh_reconcile_seconds").record(begun.elapsed());
    counter!("stockmesh_reconciliations_total").increment(1);
    debug!(peer = %link.replica, ?outcome, "reconciled");
    shared.confirmations.send_modify(|count| *count += 1);
    Ok(outcome)
}

/// Takes part in a reconciliation that a peer opened.
pub(super) async fn respond(
    open: Message,
    mut send: SendStream,
    mut receive: RecvStream,
    link: &Link,
    shared: &Shared,
) -> Result<Outcome, SyncError> {
    let between_readers = || FrameError::Violation("read-only members do not reconcile with each other".into());
    let direction = link.direction().ok_or_else(between_readers)?;
    let mut session = Session::accept(shared.session_settings()).with_direction(direction);
    let mut merges = Merges::default();
    take(&mut session, open, (link, shared), &mut merges).await?;
    let outcome = drive(session, &mut send, &mut receive, (link, shared), merges).await?;
    let _ = send.finish();
    if direction == Direction::PullOnly {
        shared.stranded.note(&outcome, shared);
    }
    Ok(outcome)
}

/// Runs a session to its end.
pub(super) async fn drive(
    mut session: Session,
    send: &mut SendStream,
    receive: &mut RecvStream,
    (link, shared): (&Link, &Shared),
    mut merges: Merges,
) -> Result<Outcome, SyncError> {
    loop {
        let mut sent_bytes = 0;
        while let Some(message) = session.poll_transmit(&*shared.table) {
            let message = match message {
                Message::Done(refused) => {
                    // The receipt says that all is durable, and how much was not taken.
                    merges.finish().await?;
                    Message::Done(refused.saturating_add(merges.refused_count()))
                }
                message => message,
            };
            // Nothing that was read may leave before it is durable (rule R8).
            shared.committer.barrier().await?;
            sent_bytes += write_message(send, &message).await?;
        }
        if session.is_finished() {
            merges.finish().await?;
            let mut outcome = session.outcome();
            outcome.shards_refused = outcome.shards_refused.saturating_add(merges.refused_count());
            return Ok(outcome);
        }
        let message = read_metered(receive, FRAME_BYTES_MAX, Some(reply_time(sent_bytes)), &link.meter).await?;
        let Some(message) = message else {
            return Err(FrameError::Ended("the peer ended the reconciliation early".into()).into());
        };
        if let Some((number, _)) = merges.pull {
            shared.catch_up.heard(number);
        }
        take(&mut session, message, (link, shared), &mut merges).await?;
    }
}

/// Gives a message to the session, and carries out what comes of it.
async fn take(
    session: &mut Session,
    message: Message,
    (link, shared): (&Link, &Shared),
    merges: &mut Merges,
) -> Result<(), SyncError> {
    // Read before the message is judged: if a new id is minted meanwhile, what was judged is not about that one.
    let own = shared.table.own();
    for effect in session.handle(message, &*shared.table, shared.wall.now_ms())? {
        carry_out(effect, own, (link, shared), merges).await?;
    }
    Ok(())
}

async fn carry_out(
    effect: Effect,
    own: ReplicaId,
    (link, shared): (&Link, &Shared),
    merges: &mut Merges,
) -> Result<(), SyncError> {
    match effect {
        Effect::Merge { delta, claim } => {
            let is_whole = claim.is_some();
            let claim = merges.admit(delta.shard, claim).await?;
            if shared.catch_up.is_catching_up() {
                let bytes_received = shared.registry.traffic().1;
                shared.catch_up.note_received(delta.products.len(), slot_count(&delta.products), bytes_received);
            }
            let shard = delta.shard;
            let source = link.source(&delta.products).await;
            let delta = RemoteDelta { shard, products: delta.products, claim };
            merges.push(shared.committer.merge(vec![delta], source).await?).await?;
            if let Some((number, peer)) = merges.pull.filter(|_| is_whole) {
                shared.catch_up.arrived(number, peer, shard);
            }
        }
        Effect::OwnFuture { shard, .. } if link.read_only => doubt_reader(shard, link, shared),
        Effect::OwnFuture { shard, sequence } => {
            shared.committer.own_future(own, shard, sequence, &link.witness).await?;
        }
        Effect::Refused { shard, ahead_ms } => {
            counter!("stockmesh_deltas_refused_total").increment(1);
            warn!(%shard, ahead_ms, "a delta was refused: its stamp is too far ahead of this clock");
        }
        Effect::InDoubt { shard } => {
            // No fault yet: a side may hold slots beyond a gap. If one has lost something, its committer reports it.
            counter!("stockmesh_full_exchanges_total").increment(1);
            debug!(%shard, "equal version vectors but different fingerprints: the shard is exchanged in full");
        }
        Effect::Compared { shard, vectors, comparison } => {
            shared.stranded.compared(shard, &vectors, link.replica, comparison);
        }
        _ => {}
    }
    Ok(())
}

/// A read-only member claims own writes of this node that it never made. To take a new id for it would leave rights behind,
/// so who may write nothing could take stock away. If it is true, a full member shows it too (rule K2).
fn doubt_reader(shard: ShardIndex, link: &Link, shared: &Shared) {
    counter!("stockmesh_futures_doubted_total").increment(1);
    let reason = format!(
        "the read-only member {} claims writes of this node that it never made, in shard {shard}: it lies, or this node's \
         directory was restored from an old copy",
        link.witness
    );
    warn!(peer = %link.replica, reason, "nothing is done about it until a full member shows the same");
    shared.registry.note_refusal_once(link.address, reason);
}

/// The answer of the committer, to come.
type Merge = Merged;

/// Merges that were queued and are not durable yet.
#[derive(Default)]
pub(super) struct Merges {
    /// In a pull: its number, and from whom.
    pull: Option<(PullNumber, ReplicaId)>,
    waiting: VecDeque<Merge>,
    /// The shard of which a chunk was queued and more follow.
    unfinished: Option<ShardIndex>,
    /// Shards of which something was turned away.
    refused: BTreeSet<ShardIndex>,
}

impl Merges {
    /// Those of a pull, whose progress is told.
    pub(super) fn of_pull(number: PullNumber, peer: ReplicaId) -> Self {
        Self { pull: Some((number, peer)), ..Self::default() }
    }

    /// What may be claimed with a shard's next chunk. The last of several chunks waits until the others are known to
    /// be merged: its claim speaks of them too.
    async fn admit(&mut self, shard: ShardIndex, claim: Option<VersionVector>) -> Result<Claim, Stopped> {
        let continued = self.unfinished == Some(shard);
        self.unfinished = claim.is_none().then_some(shard);
        let Some(version) = claim else { return Ok(Claim::Nothing) };
        if continued {
            self.finish().await?;
        }
        Ok(if self.refused.contains(&shard) { Claim::Nothing } else { Claim::Version(version) })
    }

    fn refused_count(&self) -> u32 {
        u32::try_from(self.refused.len()).unwrap_or(u32::MAX)
    }

    async fn push(&mut self, merge: Merge) -> Result<(), Stopped> {
        self.waiting.push_back(merge);
        if self.waiting.len() > SESSION_MERGES_MAX {
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
            Some(merge) => {
                let outcome = merge.await.map_err(|_| Stopped)??;
                self.refused.extend(outcome.shards_refused);
                Ok(())
            }
            None => Ok(()),
        }
    }
}
