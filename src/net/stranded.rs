//! What this node holds and no full member does, if it only reads (rule K9).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use metrics::gauge;
use parking_lot::Mutex;
use stockmesh_proto::reconcile::{Comparison, Outcome, StateView, Stranded};
use stockmesh_proto::{ReplicaId, ShardIndex, VersionVector};
use tokio::time::Instant;
use tracing::{error, info};

use super::link::Link;
use super::pull::survey;
use super::shared::Shared;
use super::verdict::judge;
use crate::limits::{STRANDED_LOOKS, STRANDED_TIME};

/// What is known of it.
#[derive(Debug)]
pub(super) struct StrandedWrites {
    begun: Instant,
    patience: Duration,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    stranded: Stranded,
    told: BTreeSet<ShardIndex>,
    /// When it was last looked at more closely, and whether it is being done.
    looked: Option<Instant>,
    is_looking: bool,
}

impl Known {
    fn new(patience: Duration) -> Self {
        Self { stranded: Stranded::new(patience), told: BTreeSet::new(), looked: None, is_looking: false }
    }
}

impl StrandedWrites {
    pub(super) fn new(reconcile_every: Duration) -> Self {
        let patience =
            reconcile_every.saturating_mul(STRANDED_LOOKS).clamp(*STRANDED_TIME.start(), *STRANDED_TIME.end());
        Self { begun: Instant::now(), patience, known: Mutex::new(Known::new(patience)) }
    }

    /// The shards in which something is stranded.
    pub(super) fn shards(&self) -> Vec<u16> {
        self.known.lock().told.iter().map(|shard| shard.0).collect()
    }

    pub(super) fn suspects(&self) -> BTreeSet<ShardIndex> {
        self.known.lock().stranded.suspects()
    }

    /// How a shard compares with that of a full member.
    pub(super) fn compared(
        &self,
        shard: ShardIndex,
        (ours, theirs): &(VersionVector, VersionVector),
        peer: ReplicaId,
        comparison: Comparison,
    ) {
        self.known.lock().stranded.compared(shard, (ours, theirs, peer), comparison, self.begun.elapsed());
    }

    /// This node has another role now.
    pub(super) fn begin_anew(&self) {
        *self.known.lock() = Known::new(self.patience);
        tell(&BTreeSet::new(), &BTreeSet::new());
    }

    /// A reconciliation with a full member ended. What seems stranded is looked at more closely, now and then.
    pub(super) fn note(&self, outcome: &Outcome, shared: &Shared) {
        if outcome.equal && !outcome.scoped {
            self.known.lock().stranded.agreed();
        }
        let full = full_members(shared);
        let to_ask = self.judge(&full, &BTreeSet::new());
        let is_pending = !to_ask.is_empty() || !self.found(&full).is_empty();
        if is_pending && self.is_time_to_look() {
            let shared_of_task = shared.clone();
            shared.spawn(async move {
                look_closer(to_ask, &shared_of_task).await;
                shared_of_task.stranded.has_looked();
            });
        }
    }

    fn is_time_to_look(&self) -> bool {
        let mut known = self.known.lock();
        let is_due = known.looked.is_none_or(|looked| looked.elapsed() >= self.patience / STRANDED_LOOKS);
        let is_time = is_due && !known.is_looking;
        known.is_looking |= is_time;
        is_time
    }

    fn has_looked(&self) {
        let mut known = self.known.lock();
        (known.looked, known.is_looking) = (Some(Instant::now()), false);
    }

    fn found(&self, full: &[Arc<Link>]) -> BTreeSet<ShardIndex> {
        self.known.lock().stranded.findings(&replicas(full)).shards
    }

    /// Tells what was found, of what is new only what is confirmed. Returns who is to be asked.
    fn judge(&self, full: &[Arc<Link>], confirmed: &BTreeSet<ShardIndex>) -> BTreeSet<ReplicaId> {
        let (before, now, to_ask) = {
            let mut known = self.known.lock();
            let findings = known.stranded.findings(&replicas(full));
            let is_told = |shard: &ShardIndex| confirmed.contains(shard) || known.told.contains(shard);
            let now: BTreeSet<ShardIndex> = findings.shards.into_iter().filter(is_told).collect();
            (std::mem::replace(&mut known.told, now.clone()), now, findings.to_ask)
        };
        tell(&before, &now);
        to_ask
    }
}

fn full_members(shared: &Shared) -> Vec<Arc<Link>> {
    shared.registry.links().into_iter().filter(|link| !link.read_only).collect()
}

fn replicas(links: &[Arc<Link>]) -> BTreeSet<ReplicaId> {
    links.iter().map(|link| link.replica).collect()
}

/// Vectors do not tell that a member holds the same by other writes, nor that it is about to get them: fingerprints do, and its
/// own word.
async fn look_closer(to_ask: BTreeSet<ReplicaId>, shared: &Shared) {
    to_ask.into_iter().for_each(|replica| shared.want_reconciliation(replica));
    let full = full_members(shared);
    let found = shared.stranded.found(&full);
    let mut is_confirmed = true;
    for link in full.iter().filter(|link| link.knows_pulls && !found.is_empty()) {
        match survey(link, shared).await {
            Ok(standing) => {
                is_confirmed &= !standing.catching_up;
                let (ours, theirs) = (shared.table.tree(), standing.leaves);
                let is_same = |shard: &&ShardIndex| theirs.get(shard.as_usize()) == Some(&ours.leaf(**shard));
                let mut known = shared.stranded.known.lock();
                found.iter().filter(is_same).for_each(|shard| known.stranded.settled(*shard));
            }
            Err(error) => {
                is_confirmed = false;
                judge(&error, error.violation(), link, shared);
            }
        }
    }
    if shared.is_read_only() {
        let confirmed = if is_confirmed { found } else { BTreeSet::new() };
        shared.stranded.judge(&full_members(shared), &confirmed);
    }
}

fn tell(before: &BTreeSet<ShardIndex>, now: &BTreeSet<ShardIndex>) {
    #[expect(clippy::cast_precision_loss, reason = "there are few shards")]
    gauge!("stockmesh_shards_stranded").set(now.len() as f64);
    let new: Vec<u16> = now.difference(before).map(|shard| shard.0).collect();
    if !new.is_empty() {
        error!(
            shards = ?new,
            "this read-only member holds writes that no full member has: they died with their writer, or this directory \
             was a full member's. See Status::stranded"
        );
    }
    if now.is_empty() && !before.is_empty() {
        info!("full members hold again all that this read-only member holds");
    }
}
