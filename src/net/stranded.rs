//! What this node holds and no full member does, if it only reads (rule K9).

use std::collections::BTreeSet;
use std::time::Duration;

use metrics::gauge;
use parking_lot::Mutex;
use stockmesh_proto::reconcile::{Outcome, Standing, Stranded};
use stockmesh_proto::{ReplicaId, ShardIndex, VersionVector};
use tokio::time::Instant;
use tracing::{error, info};

use super::shared::Shared;
use crate::limits::{STRANDED_ROUNDS, STRANDED_TIME_MIN};

/// What is known of it.
#[derive(Debug)]
pub(super) struct StrandedWrites {
    begun: Instant,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    stranded: Stranded,
    /// What was told last.
    told: BTreeSet<ShardIndex>,
}

impl StrandedWrites {
    pub(super) fn new(reconcile_every: Duration) -> Self {
        let patience = reconcile_every.saturating_mul(STRANDED_ROUNDS).max(STRANDED_TIME_MIN);
        let known = Known { stranded: Stranded::new(patience), told: BTreeSet::new() };
        Self { begun: Instant::now(), known: Mutex::new(known) }
    }

    /// The shards in which something is stranded.
    pub(super) fn shards(&self) -> Vec<u16> {
        self.known.lock().told.iter().map(|shard| shard.0).collect()
    }

    pub(super) fn suspects(&self) -> BTreeSet<ShardIndex> {
        self.known.lock().stranded.suspects()
    }

    /// How a shard stands to that of a full member.
    pub(super) fn compared(
        &self,
        shard: ShardIndex,
        (ours, theirs): &(VersionVector, VersionVector),
        peer: ReplicaId,
        standing: Standing,
    ) {
        self.known.lock().stranded.compared(shard, (ours, theirs, peer), standing, self.begun.elapsed());
    }

    /// A reconciliation with a full member ended: tells what has come out, and asks whoever has not been asked.
    pub(super) fn note(&self, outcome: &Outcome, shared: &Shared) {
        let links = shared.registry.links();
        let full = links.iter().filter(|link| link.is_open() && !link.read_only).map(|link| link.replica).collect();
        let to_ask = {
            let mut known = self.known.lock();
            if outcome.equal && !outcome.scoped {
                known.stranded.agreed();
            }
            let found = known.stranded.findings(&full);
            tell(&known.told, &found.shards);
            known.told = found.shards;
            found.to_ask
        };
        to_ask.into_iter().for_each(|replica| shared.want_reconciliation(replica));
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
