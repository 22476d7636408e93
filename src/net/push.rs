//! Pushes: what was committed here goes out at once, what is news is forwarded (rules P1 to P5).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use metrics::counter;
use quinn::RecvStream;
use stockmesh_proto::ReplicaId;
use stockmesh_proto::check::DriftCheck;
use stockmesh_proto::gossip::{check_push, choose, note_told, pack};
use stockmesh_proto::limits::FRAME_BYTES_MAX;
use stockmesh_proto::wire::{Message, Push};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::frames::{FrameError, read_metered};
use super::link::{Link, PushFrame};
use super::session::SyncError;
use super::shared::Shared;
use crate::commit::{Claim, Commits, Merged, RemoteDelta, Stopped};
use crate::limits::PUSH_MERGES_MAX;

/// Sends each committed batch to the linked peers, for as long as the store lives.
pub(super) async fn push_commits(mut commits: Commits, shared: Shared) {
    while let Some(writes) = commits.recv().await {
        for push in pack(writes.origin, writes.shards) {
            spread(push, None, &shared);
        }
    }
}

/// Queues a push to those who were not told yet.
fn spread(mut push: Push, from: Option<ReplicaId>, shared: &Shared) {
    if shared.is_read_only() {
        // It has none of its own, and nobody takes from it what others wrote (rule K2).
        return;
    }
    let mut links = shared.registry.links();
    links.retain(|link| !link.is_temporary.load(Ordering::SeqCst));
    let linked: Vec<ReplicaId> =
        links.iter().map(|link| link.replica).filter(|replica| Some(*replica) != from).collect();
    let targets = choose(&linked, &push, shared.fan_out, &mut crate::chance::random::<u64>);
    if targets.is_empty() {
        return;
    }
    note_told(&mut push, &targets);
    let frame: PushFrame = match Message::Push(push).encode() {
        Ok(frame) => Arc::new(frame),
        Err(error) => {
            debug!(%error, "a push is left to reconciliation");
            return;
        }
    };
    for link in links.iter().filter(|link| targets.contains(&link.replica)) {
        // A slow peer's queue is bounded; what it misses, reconciliation brings (rule P5).
        if !link.queue_push(&frame) {
            counter!("stockmesh_pushes_dropped_total").increment(1);
        }
    }
}

/// Sends one link's queued pushes on one stream.
pub(super) async fn send_pushes(link: Arc<Link>, mut queue: mpsc::Receiver<PushFrame>) {
    let Ok(mut stream) = link.connection.open_uni().await else { return };
    while let Some(frame) = queue.recv().await {
        let written = stream.write_all(&frame).await;
        link.push_bytes.fetch_sub(frame.len(), Ordering::SeqCst);
        if written.is_err() {
            return;
        }
        counter!("stockmesh_pushes_sent_total").increment(1);
    }
}

/// A push whose merge is under way.
struct Merging {
    push: Push,
    outcome: Merged,
}

/// Receives a peer's pushes until its stream ends.
pub(super) async fn receive_pushes(mut stream: RecvStream, link: &Arc<Link>, shared: &Shared) -> Result<(), SyncError> {
    let (sender, mut merging) = mpsc::channel::<Merging>(PUSH_MERGES_MAX);
    let reading = async {
        // Between two pushes any time may pass; within one it may not.
        while let Some(message) = read_metered(&mut stream, FRAME_BYTES_MAX, None, &link.meter).await? {
            let Message::Push(push) = message else {
                return Err(FrameError::Violation("a stream of pushes carries something else".into()).into());
            };
            let Some(merge) = merge(push, link, shared).await? else { continue };
            if sender.send(merge).await.is_err() {
                break;
            }
        }
        drop(sender);
        Ok(())
    };
    let settling = async {
        while let Some(merge) = merging.recv().await {
            settle(merge, link, shared).await?;
        }
        Ok::<(), SyncError>(())
    };
    tokio::try_join!(reading, settling).map(|_| ())
}

/// Checks a push and queues its merge; `None` if it is refused for its stamps.
async fn merge(push: Push, link: &Link, shared: &Shared) -> Result<Option<Merging>, SyncError> {
    let drift = DriftCheck { now_ms: shared.wall.now_ms(), drift_ms_max: shared.drift_ms_max };
    if let Err(refused) = check_push(&push, shared.table.count(), drift) {
        if refused.is_violation() {
            return Err(FrameError::Violation(refused.to_string()).into());
        }
        counter!("stockmesh_deltas_refused_total").increment(1);
        warn!(%refused, "a push was refused");
        return Ok(None);
    }
    let source = link.source(push.shards.iter().flat_map(|part| &part.products)).await;
    let origin = push.origin;
    let deltas = push.shards.iter().map(|part| {
        let claim = Claim::Range { origin, from: part.from, to: part.to };
        RemoteDelta { shard: part.shard, products: part.products.clone(), claim }
    });
    let outcome = shared.committer.merge(deltas.collect(), source).await?;
    Ok(Some(Merging { push, outcome }))
}

async fn settle(merge: Merging, link: &Arc<Link>, shared: &Shared) -> Result<(), SyncError> {
    let outcome = merge.outcome.await.map_err(|_| Stopped)??;
    counter!("stockmesh_pushes_received_total").increment(1);
    let is_new = outcome.slots_changed > 0;
    shared.pushes.received.fetch_add(1, Ordering::SeqCst);
    shared.pushes.new.fetch_add(u64::from(is_new), Ordering::SeqCst);
    counter!("stockmesh_push_copies_total", "payload" => if is_new { "new" } else { "known" }).increment(1);
    if !outcome.gaps.is_empty() {
        counter!("stockmesh_push_gaps_total").increment(1);
        link.wanted.store(true, Ordering::SeqCst);
        shared.want_reconciliation(link.replica);
    }
    if is_new {
        spread(merge.push, Some(link.replica), shared);
    }
    Ok(())
}
