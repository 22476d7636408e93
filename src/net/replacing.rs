//! A read-only member that holds what no full member does takes a shard anew (rule K9).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{RecvStream, SendStream};
use stockmesh_proto::delta::{Products, bytes_max};
use stockmesh_proto::fingerprint::FingerprintTree;
use stockmesh_proto::limits::FRAME_BYTES_MAX;
use stockmesh_proto::reconcile::{Direction, Doubts, Effect, Patience, Session, Standing, StateView};
use stockmesh_proto::shard::Chunk;
use stockmesh_proto::wire::{Scope, Summary};
use stockmesh_proto::{Fingerprint, ReplicaId, ShardIndex, Sku, VersionVector};
use tokio::time::Instant;
use tracing::warn;

use super::frames::{FrameError, OwnStream, read_metered, reply_time, write_message};
use super::link::Link;
use super::session::SyncError;
use super::shared::Shared;
use crate::commit::{Replacement, Source};
use crate::limits::{
    DOUBT_DENIED_MIN, DOUBT_MIN, DOUBT_ROUNDS, DOUBTED_AT_ONCE_MAX, DOUBTED_BYTES_MAX, REPLY_TIME_MAX,
};

/// What this node holds and its peers lack, if it only reads.
#[derive(Debug)]
pub(super) struct ReaderDoubts {
    doubts: Mutex<Doubts>,
    begun: Instant,
    patience: Patience,
}

impl ReaderDoubts {
    pub(super) fn new(reconcile_every: Duration) -> Self {
        let rounds = reconcile_every.saturating_mul(DOUBT_ROUNDS);
        let patience = Patience { unknown: rounds.max(DOUBT_MIN), denied: rounds.max(DOUBT_DENIED_MIN) };
        Self { doubts: Mutex::default(), begun: Instant::now(), patience }
    }

    pub(super) fn compared(
        &self,
        shard: ShardIndex,
        (ours, theirs): &(VersionVector, VersionVector),
        peer: ReplicaId,
        standing: Standing,
    ) {
        self.doubts.lock().compared(shard, (ours, theirs, peer), standing, self.begun.elapsed());
    }

    pub(super) fn agreed(&self) {
        self.doubts.lock().agreed();
    }

    fn due(&self) -> Option<Scope> {
        Scope::new(self.doubts.lock().due(self.patience, self.begun.elapsed(), DOUBTED_AT_ONCE_MAX))
    }
}

/// Takes those shards anew from a full member that have been in doubt for too long. The caller holds the link's lock.
pub(super) async fn replace_doubted(link: &Arc<Link>, direction: Direction, shared: &Shared) -> Result<(), SyncError> {
    if direction != Direction::PullOnly || !link.knows_pulls {
        return Ok(());
    }
    let Some(scope) = shared.doubts.due() else { return Ok(()) };
    let session = Session::pull(shared.session_settings(), scope.clone()).with_direction(direction);
    let opened = tokio::time::timeout(REPLY_TIME_MAX, OwnStream::open(&link.connection)).await;
    let mut stream = opened.map_err(|_| FrameError::Stalled)??;
    let arrived = pull_all((session, &scope), &mut stream.send, &mut stream.receive, link, shared).await?;
    stream.finish();
    for shard in scope.shards() {
        shared.doubts.doubts.lock().settled(*shard);
    }
    for replacement in arrived {
        // Refused if it must not be let go of, which the committer tells.
        let _ = shared.committer.replace(replacement, Source::of(&link.witness)).await;
    }
    Ok(())
}

/// Gets whole shards, and puts them aside.
async fn pull_all(
    (mut session, scope): (Session, &Scope),
    send: &mut SendStream,
    receive: &mut RecvStream,
    link: &Link,
    shared: &Shared,
) -> Result<Vec<Replacement>, SyncError> {
    let nothing = Nothing { own: shared.table.own(), tree: FingerprintTree::new(shared.table.count()) };
    let mut aside = Aside::default();
    loop {
        let mut sent_bytes = 0;
        while let Some(message) = session.poll_transmit(&nothing) {
            sent_bytes += write_message(send, &message).await?;
        }
        if session.is_finished() {
            return Ok(aside.finish(scope));
        }
        let message = read_metered(receive, FRAME_BYTES_MAX, Some(reply_time(sent_bytes)), &link.meter).await?;
        let message = message.ok_or_else(|| FrameError::Ended("the peer ended the reconciliation early".into()))?;
        for effect in session.handle(message, &nothing, shared.wall.now_ms())? {
            aside.take(effect);
        }
        if aside.bytes > DOUBTED_BYTES_MAX {
            warn!(bytes = aside.bytes, "a shard is too large to be taken anew; those that came before it are");
            return Ok(aside.arrived);
        }
    }
}

/// Shards that arrive, beside the state.
#[derive(Default)]
struct Aside {
    chunks: BTreeMap<ShardIndex, Vec<Products>>,
    arrived: Vec<Replacement>,
    refused: BTreeSet<ShardIndex>,
    bytes: usize,
}

impl Aside {
    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Merge { delta, claim } => {
                let shard = delta.shard;
                self.bytes += delta.products.iter().map(|(sku, product)| bytes_max(sku, product)).sum::<usize>();
                self.chunks.entry(shard).or_default().push(delta.products);
                if let Some(version) = claim {
                    let chunks = self.chunks.remove(&shard).unwrap_or_default();
                    self.arrived.push(Replacement { shard, chunks, version });
                }
            }
            // A stamp runs too far ahead: another time.
            Effect::Refused { shard, .. } => {
                self.refused.insert(shard);
            }
            _ => {}
        }
    }

    /// All that was asked for. Of a shard that is empty there too nothing came.
    fn finish(mut self, scope: &Scope) -> Vec<Replacement> {
        for shard in scope.shards() {
            let came = self.arrived.iter().any(|replacement| replacement.shard == *shard);
            if !came && !self.refused.contains(shard) {
                let (chunks, version) = (Vec::new(), VersionVector::new());
                self.arrived.push(Replacement { shard: *shard, chunks, version });
            }
        }
        self.arrived
    }
}

/// A state that holds nothing, so that all comes.
struct Nothing {
    own: ReplicaId,
    tree: FingerprintTree,
}

impl StateView for Nothing {
    fn own(&self) -> ReplicaId {
        self.own
    }

    fn tree(&self) -> FingerprintTree {
        self.tree.clone()
    }

    fn summary(&self, shard: ShardIndex) -> Summary {
        Summary { shard, fingerprint: Fingerprint::EMPTY, version: VersionVector::new() }
    }

    fn extract(&self, _: ShardIndex, _: &VersionVector, _: Option<&Sku>, _: usize) -> Chunk {
        Chunk { version: VersionVector::new(), products: Vec::new(), next: None }
    }
}
