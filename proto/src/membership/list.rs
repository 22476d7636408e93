//! Whole lists of members, exchanged over streams (rule N7).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use foca::{Member, State};
use xxhash_rust::xxh3::Xxh3Default;

use super::Effect;
use super::driver::{Membership, Since};
use super::node::Node;
use super::packet::Belief;
use crate::id::ReplicaId;
use crate::limits::{MEMBER_DOWN_LISTED_S, MEMBERS_MAX};
use crate::member::{ListedMember, Standing};

/// Up to so much news of one list is passed on by gossip. More than that is the knowledge of a whole cluster, which
/// others have or get by lists of their own.
const TOLD_MAX: usize = 32;

impl Membership {
    /// A hash of who is known in which generation, and is up or not, this member included. Equal for equal knowledge.
    /// Costs a pass over all members after each change.
    pub fn digest(&mut self) -> u64 {
        if let Some(digest) = self.digest {
            return digest;
        }
        let mut hash = Xxh3Default::new();
        let own = (self.own.replica, (self.own.generation, !self.leaving));
        let others =
            self.entries.iter().map(|(replica, entry)| (*replica, (entry.record.generation, entry.standing.is_up())));
        let all: BTreeMap<_, _> = others.chain([own]).collect();
        for (replica, (generation, is_up)) in all {
            hash.update(&replica.bits().to_le_bytes());
            hash.update(&generation.get().to_le_bytes());
            hash.update(&[u8::from(is_up)]);
        }
        *self.digest.insert(hash.digest())
    }

    /// All members, by replica: at most `MEMBERS_MAX` + 1, since peers take no longer list. This one too, once its generation
    /// is durable (rule N2).
    pub fn list(&self) -> Vec<ListedMember> {
        let own = ListedMember {
            record: Arc::clone(&self.own),
            incarnation: self.own_incarnation,
            standing: if self.leaving { Standing::Left } else { Standing::Alive },
            down_for_s: 0,
        };
        let mut list: Vec<_> = self.entries.values().take(MEMBERS_MAX).map(|entry| self.listed(entry)).collect();
        if self.may_speak() {
            list.push(own);
        }
        list.sort_by_key(|listed| listed.record.replica);
        list
    }

    /// What whoever sent this list does not know yet.
    pub fn lacking(&self, theirs: &[ListedMember]) -> Vec<ListedMember> {
        let known: BTreeMap<ReplicaId, _> =
            theirs.iter().map(|listed| (listed.record.replica, listed.order())).collect();
        let mut list = self.list();
        list.retain(|listed| known.get(&listed.record.replica).is_none_or(|known| *known < listed.order()));
        list
    }

    /// Takes in a list that came over the link of `from`. What it says of others is hearsay, as in datagrams.
    /// Also returns how much of it was news.
    pub fn learn(&mut self, from: ReplicaId, list: &[ListedMember], now: Duration) -> (Vec<Effect>, usize) {
        let mut effects = self.advance(now);
        if self.leaving {
            return (effects, 0);
        }
        // Its own word first: it is not to be turned away for what it says of others.
        let is_word = |listed: &&ListedMember| listed.standing.is_up() || listed.record.left;
        if let Some(own) = list.iter().filter(|listed| listed.record.replica == from).find(is_word) {
            self.vouch(&own.record, own.incarnation);
        }
        let mut news = Vec::new();
        for listed in list.iter().filter(|listed| listed.record.replica != from) {
            let replica = listed.record.replica;
            let (generation, incarnation) = (listed.record.generation, listed.incarnation);
            if replica == self.own.replica {
                self.hear_of_self(Belief { generation, incarnation, standing: listed.standing });
                continue;
            }
            let known = self.entries.get(&replica).map(|entry| self.listed(entry).order());
            let is_long_gone = listed.down_for_s >= MEMBER_DOWN_LISTED_S;
            if is_long_gone || known.is_some_and(|known| known >= listed.order()) {
                continue;
            }
            let update = Member::new(Node::new(Arc::clone(&listed.record)), incarnation, state_of(listed.standing));
            if let Some(update) = self.admit(update, from) {
                news.push((update, listed));
            }
        }
        let count = news.len();
        let (updates, listed): (Vec<_>, Vec<_>) = news.into_iter().unzip();
        self.apply(updates, count <= TOLD_MAX);
        for listed in listed {
            self.note_age(listed);
        }
        effects.append(&mut self.advance(now));
        (effects, count)
    }

    /// Takes in members that were known to be gone before a restart, from the own disk.
    pub fn restore(&mut self, gone: &[ListedMember], now: Duration) -> Vec<Effect> {
        let mut effects = self.advance(now);
        let is_other = |listed: &&ListedMember| listed.record.replica != self.own.replica && !listed.standing.is_up();
        let mut gone: Vec<_> = gone.iter().filter(is_other).collect();
        gone.retain(|listed| {
            let replica = listed.record.replica;
            let is_known = self.entries.contains_key(&replica);
            if is_known {
                self.keep_place(replica);
            }
            is_known || self.has_room_for(replica)
        });
        let down = |listed: &&ListedMember| {
            Member::new(Node::new(Arc::clone(&listed.record)), listed.incarnation, State::Down)
        };
        self.apply(gone.iter().map(down).collect(), false);
        for listed in gone {
            self.note_age(listed);
        }
        effects.append(&mut self.advance(now));
        effects
    }

    /// How long a member has been gone: so that all forget it at about the same time.
    fn note_age(&mut self, listed: &ListedMember) {
        let now = self.now;
        let entry = self.entries.get_mut(&listed.record.replica);
        let since = entry.filter(|entry| entry.record.generation == listed.record.generation);
        if let Some(since) = since.and_then(|entry| entry.down_since.as_mut())
            && since.seconds(now) < listed.down_for_s
        {
            *since = Since { at: now, before_s: listed.down_for_s };
        }
    }
}

fn state_of(standing: Standing) -> State {
    match standing {
        Standing::Alive => State::Alive,
        Standing::Suspect => State::Suspect,
        Standing::Down | Standing::Left => State::Down,
    }
}
