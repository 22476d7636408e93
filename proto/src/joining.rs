//! Which shards are pulled from which peer, when several can help (rules J3 to J5).
//!
//! A [`Plan`] is told what each peer offers and what became of each pull, and says what to pull next. A shard is never
//! pulled from two peers at once, and never again once it arrived. Whatever a plan does, a plain reconciliation closes it:
//! peers that differ from each other may hold more than what was pulled.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{ReplicaId, ShardIndex};
use crate::limits::{
    FINGERPRINT_GROUP_SHARDS, PULL_PAUSE_MS_MAX, PULL_PAUSE_MS_MIN, PULL_PEERS_MAX, PULL_PORTION_SHARDS_MAX,
    PULL_SILENCE_MS_MAX, PULL_SILENCE_MS_MIN,
};
use crate::wire::Scope;

/// The number of one pull, unique within its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PullNumber(u64);

/// What is pulled from whom.
#[derive(Clone, Debug)]
pub struct Plan {
    peers: BTreeMap<ReplicaId, Peer>,
    /// Shards that some peer offered, and that neither arrived nor are being pulled.
    left: BTreeSet<ShardIndex>,
    pulls: BTreeMap<PullNumber, Pull>,
    arrived: BTreeSet<ShardIndex>,
    numbers: u64,
    /// How long a peer may be silent while another one could do its work. Grows each time, so that work is not passed
    /// on for ever where all are slow.
    silence_ms_max: u64,
}

#[derive(Clone, Debug, Default)]
struct Peer {
    /// The shards in which it differs, as far as is known.
    offers: BTreeSet<ShardIndex>,
    /// Pulls of it that failed in a row.
    failures: u32,
    /// It is not asked before this time.
    paused_until_ms: u64,
}

#[derive(Clone, Debug)]
struct Pull {
    peer: ReplicaId,
    /// The shards that did not arrive yet.
    shards: BTreeSet<ShardIndex>,
    heard_ms: u64,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            peers: BTreeMap::new(),
            left: BTreeSet::new(),
            pulls: BTreeMap::new(),
            arrived: BTreeSet::new(),
            numbers: 0,
            silence_ms_max: PULL_SILENCE_MS_MIN,
        }
    }
}

impl Plan {
    /// A plan without any peer.
    pub fn new() -> Self {
        Self::default()
    }

    /// A peer differs in these shards. What it offered before is forgotten.
    pub fn offer(&mut self, peer: ReplicaId, shards: impl IntoIterator<Item = ShardIndex>) {
        let offers: BTreeSet<ShardIndex> = shards.into_iter().collect();
        let pulled: BTreeSet<ShardIndex> = self.pulls.values().flat_map(|pull| pull.shards.iter().copied()).collect();
        self.left.extend(offers.iter().filter(|shard| !self.arrived.contains(shard) && !pulled.contains(shard)));
        self.peers.entry(peer).or_default().offers = offers;
    }

    /// What to pull from a peer now; `None` if there is nothing to pull from it at the moment. The scope may be as wide as
    /// a half of what the peer's share of the rest is: wide at first, so that there are few round trips, and narrow at the
    /// end, so that all peers are done at about the same time.
    pub fn next(&mut self, peer: ReplicaId, now_ms: u64) -> Option<(PullNumber, Scope)> {
        let known = self.peers.get(&peer).filter(|known| known.paused_until_ms <= now_ms)?;
        let busy: BTreeSet<ReplicaId> = self.pulls.values().map(|pull| pull.peer).collect();
        if busy.len() >= PULL_PEERS_MAX && !busy.contains(&peer) {
            return None;
        }
        let offered: Vec<ShardIndex> = self.left.intersection(&known.offers).copied().collect();
        let helpers =
            self.peers.values().filter(|peer| !peer.offers.is_disjoint(&self.left)).take(PULL_PEERS_MAX).count();
        let (_, total) = self.progress();
        let width_min = total.div_ceil(16).clamp(1, usize::try_from(FINGERPRINT_GROUP_SHARDS).unwrap_or(1));
        let share = offered.len().div_ceil(2 * helpers.max(1));
        let shards: Vec<ShardIndex> =
            offered.into_iter().take(share.clamp(width_min, PULL_PORTION_SHARDS_MAX)).collect();
        let scope = Scope::new(shards)?;
        self.numbers += 1;
        let number = PullNumber(self.numbers);
        let shards: BTreeSet<ShardIndex> = scope.shards().iter().copied().collect();
        self.left.retain(|shard| !shards.contains(shard));
        self.pulls.insert(number, Pull { peer, shards, heard_ms: now_ms });
        Some((number, scope))
    }

    /// Something came for a pull.
    pub fn heard(&mut self, number: PullNumber, now_ms: u64) {
        if let Some(pull) = self.pulls.get_mut(&number) {
            pull.heard_ms = now_ms;
        }
    }

    /// A shard of a pull arrived whole.
    pub fn arrived(&mut self, number: PullNumber, shard: ShardIndex) {
        if let Some(pull) = self.pulls.get_mut(&number)
            && pull.shards.remove(&shard)
        {
            self.arrived.insert(shard);
        }
    }

    /// A pull ended as it should: all of its shards count as arrived, those that turned out to be equal too.
    pub fn finished(&mut self, number: PullNumber) {
        if let Some(pull) = self.pulls.remove(&number) {
            self.arrived.extend(pull.shards);
            if let Some(peer) = self.peers.get_mut(&pull.peer) {
                peer.failures = 0;
            }
        }
    }

    /// A pull broke off: what did not arrive is left for another one. The peer is not asked for a while, which grows.
    pub fn failed(&mut self, number: PullNumber, now_ms: u64) {
        if let Some(pull) = self.pulls.remove(&number) {
            self.left.extend(pull.shards);
            if let Some(peer) = self.peers.get_mut(&pull.peer) {
                let pause_ms = PULL_PAUSE_MS_MIN.saturating_mul(1 << peer.failures.min(16)).min(PULL_PAUSE_MS_MAX);
                peer.failures = peer.failures.saturating_add(1);
                peer.paused_until_ms = now_ms.saturating_add(pause_ms);
            }
        }
    }

    /// A peer is gone, and with it its pulls and what it offered.
    pub fn leave(&mut self, peer: ReplicaId) {
        self.peers.remove(&peer);
        let (gone, kept) = std::mem::take(&mut self.pulls).into_iter().partition(|(_, pull)| pull.peer == peer);
        self.pulls = kept;
        let gone: BTreeMap<PullNumber, Pull> = gone;
        self.left.extend(gone.into_values().flat_map(|pull| pull.shards));
    }

    /// Pulls of which nothing was heard for too long, while an idle peer could do their work. They count as failed; the
    /// caller must end them.
    pub fn overdue(&mut self, now_ms: u64) -> Vec<PullNumber> {
        let busy: BTreeSet<ReplicaId> = self.pulls.values().map(|pull| pull.peer).collect();
        let could_help = |pull: &Pull| {
            let mut idle = self.peers.iter().filter(|(peer, _)| !busy.contains(peer));
            idle.any(|(_, peer)| peer.paused_until_ms <= now_ms && !peer.offers.is_disjoint(&pull.shards))
        };
        let is_silent = |pull: &Pull| now_ms.saturating_sub(pull.heard_ms) >= self.silence_ms_max;
        let overdue = self.pulls.iter().filter(|(_, pull)| is_silent(pull) && could_help(pull));
        let overdue: Vec<PullNumber> = overdue.map(|(number, _)| *number).collect();
        if !overdue.is_empty() {
            self.silence_ms_max = self.silence_ms_max.saturating_mul(2).min(PULL_SILENCE_MS_MAX);
        }
        for number in &overdue {
            let peer = self.pulls.get(number).map(|pull| pull.peer);
            self.failed(*number, now_ms);
            // Longer than after a failure that was told: else it would take the next portion, and keep that too.
            if let Some(peer) = peer.and_then(|peer| self.peers.get_mut(&peer)) {
                peer.paused_until_ms = peer.paused_until_ms.max(now_ms.saturating_add(self.silence_ms_max));
            }
        }
        overdue
    }

    /// Whether nothing is to arrive any more, and no peer offers anything that is left. Of a pull of which all arrived, the
    /// receipt may be still to come.
    pub fn is_over(&self) -> bool {
        self.pulls.values().all(|pull| pull.shards.is_empty())
            && self.peers.values().all(|peer| peer.offers.is_disjoint(&self.left))
    }

    /// Whether a peer offers something that is left, or being pulled from another one that may fail.
    pub fn may_need(&self, peer: ReplicaId) -> bool {
        let Some(known) = self.peers.get(&peer) else { return false };
        let mut pulled = self.pulls.values().filter(|pull| pull.peer != peer);
        !known.offers.is_disjoint(&self.left) || pulled.any(|pull| !known.offers.is_disjoint(&pull.shards))
    }

    /// Shards that arrived, and those that any peer ever offered.
    pub fn progress(&self) -> (usize, usize) {
        let pulled: usize = self.pulls.values().map(|pull| pull.shards.len()).sum();
        (self.arrived.len(), self.arrived.len() + self.left.len() + pulled)
    }

    /// The pulls under way: from whom, and the shards that did not arrive yet.
    pub fn pulls(&self) -> impl Iterator<Item = (PullNumber, ReplicaId, &BTreeSet<ShardIndex>)> {
        self.pulls.iter().map(|(number, pull)| (*number, pull.peer, &pull.shards))
    }
}
