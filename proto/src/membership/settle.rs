//! After each step of SWIM: what it changed, and what follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foca::{Member, State, Timer};

use super::Effect;
use super::driver::{Entry, Mark, Membership, Since};
use super::node::Node;
use super::swim::Collected;
use crate::id::ReplicaId;
use crate::limits::MEMBER_DOWN_LISTED_S;
use crate::member::MemberRecord;

/// From so many members on, one pass over all finds them faster than a search for each.
const SEARCHES_MAX: usize = 8;

impl Membership {
    /// Takes over what a call of SWIM brought about.
    pub(super) fn settle(&mut self, mut collected: Collected) {
        if !self.leaving {
            // After a change of identity SWIM is idle until it is told of members.
            let _ = self.foca.apply_many(std::iter::empty(), false, &mut collected);
        }
        let Collected { sends, timers, touched, incarnation } = collected;
        let token_before = self.token;
        let mut suspects = Vec::new();
        for (after, timer) in timers {
            if let Timer::ChangeSuspectToDown { member_id, .. } = &timer {
                suspects.push(member_id.replica);
            }
            if let Timer::ProbeRandomMember(token) = &timer {
                self.token = Some(*token);
            }
            self.timers.insert((self.now + after, self.timer_count), timer);
            self.timer_count += 1;
        }
        self.own_incarnation = incarnation.unwrap_or(self.own_incarnation);
        self.effects.extend(sends.into_iter().map(|(to, bytes)| Effect::Send { to, bytes }));
        if self.note_renewal(incarnation.is_some()) {
            self.keep_suspicions(token_before);
        }
        if !touched.is_empty() {
            self.note_members(&touched);
            self.fit_config();
        }
        // Who suspects decides: so it asks for itself, and does not wait until the rumour has come back.
        for suspect in suspects {
            self.ask(suspect);
        }
    }

    /// With a new identity SWIM takes up no timer of before. Suspects get no more time for that: else whoever makes this
    /// member renew itself again and again would keep the dead alive.
    fn keep_suspicions(&mut self, token_before: Option<u8>) {
        let (Some(before), Some(now)) = (token_before, self.token) else { return };
        for timer in self.timers.values_mut() {
            if let Timer::ChangeSuspectToDown { token, .. } = timer
                && *token == before
            {
                *token = now;
            }
        }
    }

    /// Returns whether there is a new generation.
    fn note_renewal(&mut self, has_spoken: bool) -> bool {
        let generation = self.foca.identity().generation;
        if generation == self.own.generation {
            return false;
        }
        if let Some(record) = &self.foca.identity().record {
            self.own = Arc::clone(record);
        }
        if !has_spoken {
            self.own_incarnation = 0;
        }
        self.renewed_at = Some(self.now);
        self.digest = None;
        self.effects.push(Effect::Renewed(generation));
        self.tell_word();
        true
    }

    fn note_members(&mut self, touched: &BTreeSet<ReplicaId>) {
        let is_touched = |member: &&Member<Node>| touched.contains(&member.id().replica);
        let found: BTreeMap<ReplicaId, Member<Node>> = if touched.len() > SEARCHES_MAX {
            let members = self.foca.iter_membership_state().filter(is_touched);
            members.map(|member| (member.id().replica, member.clone())).collect()
        } else {
            let find = |replica: &ReplicaId| {
                let member = self.foca.iter_membership_state().find(|member| member.id().replica == *replica)?;
                Some((*replica, member.clone()))
            };
            touched.iter().filter_map(find).collect()
        };
        for (replica, member) in found {
            self.note_member(replica, &member);
        }
    }

    fn note_member(&mut self, replica: ReplicaId, member: &Member<Node>) {
        let Some(record) = &member.id().record else { return };
        let standing = Entry::standing(record, member.state());
        let before = self.entries.get(&replica);
        let is_same = before.is_some_and(|entry| entry.standing == standing && Arc::ptr_eq(&entry.record, record));
        let standing_before = before.map(|entry| entry.standing);
        let down_since = before.and_then(|entry| entry.down_since).filter(|_| !standing.is_up());
        let down_since = down_since.or_else(|| (!standing.is_up()).then_some(Since { at: self.now, before_s: 0 }));
        let vouched = before.is_some_and(|entry| entry.vouched && entry.record.generation == record.generation);
        let entry = Entry {
            record: Arc::clone(record),
            incarnation: member.incarnation(),
            standing,
            down_since,
            vouched,
            known_since: before.map_or(self.now, |entry| entry.known_since),
            mark: before.map_or(Mark::at(record.generation), |entry| entry.mark),
            relayed_at: before.and_then(|entry| entry.relayed_at),
            disputed_at: before.and_then(|entry| entry.disputed_at),
        };
        self.put_entry(replica, entry);
        if is_same {
            return;
        }
        self.effects.push(Effect::Changed { record: Arc::clone(record), standing, before: standing_before });
        if !standing.is_up() {
            self.give_place(replica, record);
        }
        // It is linked, and others say that it does not live: it should hear of it at once.
        if member.state() != State::Alive && !record.left && self.links.contains_key(&replica) {
            self.ask(replica);
        }
    }

    /// A member that is gone is forgotten if another one lives at its address: that is the same node, under a new
    /// replica id (rule N9).
    fn give_place(&mut self, replica: ReplicaId, record: &MemberRecord) {
        let neighbours = self.by_address.get(&record.address);
        let is_replaced = neighbours
            .into_iter()
            .flatten()
            .any(|other| *other != replica && self.entries.get(other).is_some_and(|entry| entry.standing.is_up()));
        if is_replaced {
            self.forget(replica);
        }
    }

    fn put_entry(&mut self, replica: ReplicaId, entry: Entry) {
        let address = entry.record.address;
        let is_up = entry.standing.is_up();
        let before = self.entries.insert(replica, entry);
        self.digest = None;
        self.has_arrived(replica);
        self.active = self.active + usize::from(is_up)
            - usize::from(before.as_ref().is_some_and(|before| before.standing.is_up()));
        let address_before = before.map(|before| before.record.address);
        if address_before != Some(address) {
            if let Some(before) = address_before {
                self.remove_address(replica, before);
            }
            if !address.ip().is_unspecified() {
                self.by_address.entry(address).or_default().push(replica);
            }
        }
    }

    pub(super) fn remove_entry(&mut self, replica: ReplicaId) {
        let Some(entry) = self.entries.remove(&replica) else { return };
        self.digest = None;
        self.active -= usize::from(entry.standing.is_up());
        self.remove_address(replica, entry.record.address);
        self.effects.push(Effect::Forgotten(replica));
    }

    fn remove_address(&mut self, replica: ReplicaId, address: std::net::SocketAddr) {
        if let Some(neighbours) = self.by_address.get_mut(&address) {
            neighbours.retain(|other| *other != replica);
            if neighbours.is_empty() {
                self.by_address.remove(&address);
            }
        }
    }

    /// News is passed on more often in a larger cluster.
    fn fit_config(&mut self) {
        let wanted = self.active.next_power_of_two();
        if wanted != self.config_for {
            self.config_for = wanted;
            let fitted = self.foca.set_config(self.timing.config(wanted));
            debug_assert!(fitted.is_ok(), "{fitted:?}");
        }
    }

    pub(super) fn forget_long_gone(&mut self) {
        let is_long = |since: Since| since.seconds(self.now) >= MEMBER_DOWN_LISTED_S;
        let gone = self.entries.iter().filter(|(_, entry)| entry.down_since.is_some_and(is_long));
        let gone: Vec<ReplicaId> = gone.map(|(replica, _)| *replica).collect();
        for replica in gone {
            self.forget(replica);
        }
    }
}
