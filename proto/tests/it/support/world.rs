//! A cluster in memory on which anything can happen: writes, sessions cut at any message, pushes that are lost,
//! doubled, late and forwarded, crashes that take back what was not durable, and deaths for good.

use std::collections::BTreeMap;

use stockmesh_proto::check::DriftCheck;
use stockmesh_proto::gossip::{choose, note_told};
use stockmesh_proto::operation::{Operation, Reader};
use stockmesh_proto::reconcile::{Agreement, Effect};
use stockmesh_proto::wire::{Message, Push, Scope};
use stockmesh_proto::{Location, ReplicaId, ShardCount, ShardIndex, Sku};

use super::conversation::{Conversation, settings};
use super::oracle::Log;
use super::replica::Replica;
use super::{replica_id, shard_count};

/// A batch's effect on the stock, as a plain model keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Counted {
    pub(crate) replica: ReplicaId,
    pub(crate) shard: ShardIndex,
    pub(crate) sequence: u64,
    pub(crate) sku: Sku,
    pub(crate) location: Location,
    pub(crate) units: i64,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) replicas: Vec<Replica>,
    pub(crate) alive: Vec<bool>,
    /// By how much each replica's clock runs ahead, in milliseconds.
    pub(crate) skews: Vec<u64>,
    pub(crate) now_ms: u64,
    pub(crate) drift_ms_max: u64,
    pub(crate) fan_out: usize,
    pub(crate) log: Log,
    pub(crate) model: Vec<Counted>,
    pub(crate) conversations: Vec<Conversation>,
    /// Pushes that wait until the writes in them are durable.
    outboxes: Vec<Vec<Push>>,
    /// Pushes on their way, as bytes.
    pub(crate) network: Vec<(usize, Vec<u8>)>,
    agreements: BTreeMap<(usize, usize), Agreement>,
    draws: u64,
}

impl World {
    pub(crate) fn new(skews: &[u64], shards: u32, drift_ms_max: u64, fan_out: usize) -> Self {
        let count = shard_count(shards);
        let ids = (1..).take(skews.len());
        Self {
            replicas: ids.map(|bits| Replica::new(replica_id(bits), count)).collect(),
            alive: vec![true; skews.len()],
            skews: skews.to_vec(),
            now_ms: 1_000,
            drift_ms_max,
            fan_out,
            log: Log::default(),
            model: Vec::new(),
            conversations: Vec::new(),
            outboxes: vec![Vec::new(); skews.len()],
            network: Vec::new(),
            agreements: BTreeMap::new(),
            draws: 0,
        }
    }

    pub(crate) fn count(&self) -> ShardCount {
        self.replicas[0].count
    }

    fn clock(&self, index: usize) -> u64 {
        self.now_ms + self.skews[index]
    }

    fn number_of(&self, id: ReplicaId) -> usize {
        self.replicas.iter().position(|replica| replica.id == id).unwrap()
    }

    pub(crate) fn write(&mut self, index: usize, operations: &[Operation]) {
        let now_ms = self.clock(index);
        let replica = &mut self.replicas[index];
        let mut sequences = BTreeMap::<ShardIndex, u64>::new();
        for shard in replica.count.indexes() {
            sequences.insert(shard, replica.sequence(shard, replica.id));
        }
        let (evaluation, pushes) = replica.write(operations, now_ms);
        for (operation, units) in operations.iter().zip(evaluation.differences()) {
            let shard = replica.count.shard_of(operation.sku().unwrap());
            let sequence = sequences.get_mut(&shard).unwrap();
            let location = match operation {
                Operation::Stocktake { .. } if units == 0 => continue,
                Operation::Adjust { location, .. } | Operation::Stocktake { location, .. } => Some(location.clone()),
                _ => None,
            };
            *sequence += 1;
            if let Some(location) = location {
                let units = if let Operation::Adjust { units, .. } = operation { *units } else { units };
                let sku = operation.sku().unwrap().clone();
                let counted = Counted { replica: replica.id, shard, sequence: *sequence, sku, location, units };
                self.model.push(counted);
            }
        }
        for (shard, sequence) in sequences {
            assert_eq!(replica.sequence(shard, replica.id), sequence, "each write has its number");
        }
        self.log.note(replica.id, &evaluation);
        self.outboxes[index].extend(pushes);
        self.check(index);
    }

    /// Makes everything durable at a replica; then its pushes go out.
    pub(crate) fn sync(&mut self, index: usize) {
        self.replicas[index].sync();
        let own = self.replicas[index].id;
        for mut push in std::mem::take(&mut self.outboxes[index]) {
            let linked = self.replicas.iter().zip(&self.alive).filter(|(replica, alive)| **alive && replica.id != own);
            let linked: Vec<ReplicaId> = linked.map(|(replica, _)| replica.id).collect();
            let draws = &mut self.draws;
            let chosen = choose(&linked, &push, self.fan_out, &mut || {
                *draws = draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *draws >> 33
            });
            note_told(&mut push, &chosen);
            let bytes = Message::Push(push).encode().unwrap()[4..].to_vec();
            for id in chosen {
                let target = self.number_of(id);
                self.network.push((target, bytes.clone()));
            }
        }
    }

    /// Delivers a push that is on its way; a copy may stay behind.
    pub(crate) fn deliver_push(&mut self, position: usize, keep_copy: bool) {
        let (index, bytes) = if keep_copy { self.network[position].clone() } else { self.network.remove(position) };
        if !self.alive[index] {
            return;
        }
        let Message::Push(push) = Message::decode(&bytes).unwrap() else { panic!("not a push") };
        let drift = DriftCheck { now_ms: self.clock(index), drift_ms_max: self.drift_ms_max };
        if self.replicas[index].receive(&push, drift).is_some_and(|(is_news, _)| is_news) {
            self.outboxes[index].push(push);
        }
        self.check(index);
    }

    pub(crate) fn open(&mut self, opener: usize, accepter: usize, chunk_bytes_target: usize, with_agreement: bool) {
        let settings = settings(self.count(), chunk_bytes_target, self.drift_ms_max);
        let agreement = self.agreements.get(&(opener, accepter)).filter(|_| with_agreement);
        let conversation = Conversation::open(&self.replicas[opener], &self.replicas[accepter], settings, agreement);
        self.conversations.push(conversation);
    }

    /// Opens a conversation over the shards of which the mask has the bit, or over the first one.
    pub(crate) fn pull(&mut self, opener: usize, accepter: usize, chunk_bytes_target: usize, mask: u16) {
        let settings = settings(self.count(), chunk_bytes_target, self.drift_ms_max);
        let scope: Vec<ShardIndex> = self.count().indexes().filter(|shard| mask >> shard.0 & 1 == 1).collect();
        let scope = Scope::new(scope).unwrap_or_else(|| Scope::new(vec![ShardIndex(0)]).unwrap());
        let conversation = Conversation::pull(&self.replicas[opener], &self.replicas[accepter], settings, scope);
        self.conversations.push(conversation);
    }

    /// A side of a conversation sends: what it read is durable first, so its pushes go out too.
    pub(crate) fn step_send(&mut self, position: usize, side: usize) -> bool {
        let conversation = &mut self.conversations[position];
        let index = self.replicas.iter().position(|replica| replica.id == conversation.parties[side]).unwrap();
        let sent = conversation.send(side, &mut self.replicas[index]);
        if sent {
            self.sync(index);
        }
        sent
    }

    pub(crate) fn step_deliver(&mut self, position: usize, side: usize) -> bool {
        let conversation = &mut self.conversations[position];
        let index = self.replicas.iter().position(|replica| replica.id == conversation.parties[side]).unwrap();
        let now_ms = self.now_ms + self.skews[index];
        let moved = conversation.deliver(side, &mut self.replicas[index], now_ms).unwrap();
        if moved {
            self.check(index);
        }
        moved
    }

    /// Runs a conversation to its end, and takes note of the agreement.
    pub(crate) fn finish(&mut self, position: usize) {
        while !self.conversations[position].is_over() {
            let mut moved = self.step_send(position, 0) | self.step_send(position, 1);
            moved |= self.step_deliver(position, 0) | self.step_deliver(position, 1);
            assert!(moved, "the session is stuck");
        }
        let conversation = self.conversations.remove(position);
        if conversation.sessions[0].outcome().scoped {
            return;
        }
        let [opener, accepter] = conversation.parties.map(|id| self.number_of(id));
        let tree = &self.replicas[opener].state.tree;
        self.agreements.insert((opener, accepter), Agreement::of(tree, self.count()));
    }

    fn hang_up(&mut self, index: usize) {
        let id = self.replicas[index].id;
        self.conversations.retain(|conversation| !conversation.parties.contains(&id));
        self.outboxes[index].clear();
    }

    pub(crate) fn crash(&mut self, index: usize) {
        self.hang_up(index);
        self.replicas[index].crash();
        let replica = &self.replicas[index];
        self.log.truncate(replica);
        self.model.retain(|counted| {
            counted.replica != replica.id || counted.sequence <= replica.shard(counted.shard).version().get(replica.id)
        });
        self.check(index);
    }

    pub(crate) fn die(&mut self, index: usize) {
        if self.survivors().len() > 2 {
            self.crash(index);
            self.alive[index] = false;
        }
    }

    pub(crate) fn survivors(&self) -> Vec<usize> {
        (0..self.replicas.len()).filter(|index| self.alive[*index]).collect()
    }

    /// What must hold after each step at the replica that it touched.
    pub(crate) fn check(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        assert_eq!(self.log.missing(replica), None);
        assert_eq!(replica.own_futures, 0, "nothing that was taken back had been sent");
        assert_eq!(replica.slots_repaired, 0, "nothing that was claimed had been missing");
        replica.notes.retain(|note| !matches!(note, Effect::Refused { .. } | Effect::InDoubt { .. }));
        assert_eq!(replica.notes, []);
    }

    /// Heals everything: clocks catch up, open conversations end, and every pair of survivors reconciles twice.
    pub(crate) fn heal(&mut self) {
        self.now_ms += 10_000_000;
        while !self.conversations.is_empty() {
            self.finish(0);
        }
        let survivors = self.survivors();
        for _ in 0..2 {
            for (place, left) in survivors.iter().enumerate() {
                for right in &survivors[place + 1..] {
                    self.open(*left, *right, 1 << 16, false);
                    self.finish(0);
                }
            }
        }
    }
}
