//! What a session sends: summaries, and deltas chunk by chunk.

use std::collections::VecDeque;

use super::super::turn::{Job, PartJob, PartState};
use super::super::{Direction, StateView};
use super::Session;
use crate::delta::slot_count;
use crate::id::ShardIndex;
use crate::limits::{SUMMARIES_PER_FRAME_MAX, SUMMARY_BYTES_TARGET};
use crate::wire::{Message, Part};

impl Session {
    pub(super) fn summaries(&mut self, mut shards: VecDeque<ShardIndex>, view: &dyn StateView) -> Option<Message> {
        const ENTRY_BYTES: usize = 19;
        const HEADER_BYTES: usize = 32;
        let mut summaries = Vec::new();
        let mut bytes = 0;
        while let Some(shard) = shards.pop_front() {
            let summary = view.summary(shard);
            bytes += HEADER_BYTES + summary.version.len() * ENTRY_BYTES;
            summaries.push(summary);
            if bytes >= SUMMARY_BYTES_TARGET || summaries.len() == SUMMARIES_PER_FRAME_MAX {
                break;
            }
        }
        if !shards.is_empty() {
            self.outgoing.push_front(Job::Summaries(shards));
        }
        (!summaries.is_empty()).then_some(Message::Summary(summaries))
    }

    /// The next chunk of a shard's delta. The first carries the version vector read with it; later chunks may hold
    /// newer slots than it claims, never older ones (rule R3).
    pub(super) fn part(&mut self, mut job: PartJob, view: &dyn StateView) -> Option<Message> {
        if self.direction == Direction::PullOnly {
            // The peer needs this side's vector to know what it lacks, and takes no slot.
            let (shard, version) = (job.shard, Some(view.summary(job.shard).version));
            return Some(Message::Part(Part { shard, version, products: Vec::new(), full: job.full, last: true }));
        }
        let (from, is_first) = match &job.state {
            PartState::Unsent => (None, true),
            PartState::From(sku) => (Some(sku), false),
        };
        let chunk = view.extract(job.shard, &job.covered, from, self.settings.chunk_bytes_target);
        let (shard, full, last) = (job.shard, job.full, chunk.next.is_none());
        if is_first {
            if !job.needed && chunk.products.is_empty() && job.covered.dominates(&chunk.version) {
                return None;
            }
            self.outcome.shards_sent += 1;
        }
        self.outcome.slots_sent += u64::try_from(slot_count(&chunk.products)).unwrap_or(u64::MAX);
        if let Some(next) = chunk.next {
            job.state = PartState::From(next);
            self.outgoing.push_front(Job::Part(job));
        }
        let version = is_first.then_some(chunk.version);
        Some(Message::Part(Part { shard, version, products: chunk.products, full, last }))
    }
}
