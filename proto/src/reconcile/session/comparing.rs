//! What a read-only member learns of how it stands to a full one (rule K9).

use std::collections::BTreeSet;

use super::super::turn::Job;
use super::super::{Comparison, Direction, Effect};
use super::Session;
use crate::id::ShardIndex;
use crate::version::VersionVector;

impl Session {
    /// Summarises these shards too, whatever was agreed before.
    #[must_use]
    pub fn with_suspects(mut self, shards: BTreeSet<ShardIndex>) -> Self {
        for job in &mut self.outgoing {
            if let Job::Summaries(suspects) = job {
                *suspects = suspects
                    .iter()
                    .copied()
                    .chain(shards.iter().copied())
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect();
                self.suspected = suspects.iter().copied().collect();
            }
        }
        self
    }

    /// The shards that this side summarised and of which nothing came: they are equal (rule R2).
    pub(super) fn unanswered(&self) -> Vec<Effect> {
        let equal = self.suspected.iter().filter(|shard| !self.received.contains(*shard));
        let nothing = VersionVector::new;
        equal.filter_map(|shard| self.compared(*shard, nothing(), &nothing(), Comparison::Same)).collect()
    }

    /// What a read-only member is to keep in mind of a full one's vector (rule K9).
    pub(super) fn compared(
        &self,
        shard: ShardIndex,
        ours: VersionVector,
        theirs: &VersionVector,
        comparison: Comparison,
    ) -> Option<Effect> {
        let is_wanted = self.direction == Direction::PullOnly;
        is_wanted.then(|| Effect::Compared { shard, vectors: (ours, theirs.clone()), comparison })
    }
}
