//! What is believed of whom (rules N4, N5): a member's own link before all others, and itself before others' word.

use std::sync::Arc;

use foca::{Header, Member, Message, State};

use super::Breach;
use super::driver::{Entry, Mark, Membership};
use super::node::Node;
use super::packet::{self, Belief, Packet};
use super::swim::Collected;
use crate::id::ReplicaId;
use crate::limits::GENERATION_STEP_MAX;
use crate::member::{MalformedMember, MemberRecord, Standing};

impl Membership {
    pub(super) fn take_datagram(&mut self, from: ReplicaId, bytes: &[u8]) -> Result<(), Breach> {
        let packet = Packet::decode(bytes)?;
        let claimed = packet.source();
        if claimed != from || from == self.own.replica {
            return Err(Breach::ForeignSource { linked: from, claimed });
        }
        match packet {
            Packet::Word { record, incarnation } => self.vouch(&record, incarnation),
            Packet::Ask { record, incarnation, belief } => {
                self.vouch(&record, incarnation);
                if let Some(belief) = belief {
                    self.hear_of_self(belief);
                }
                let bytes = packet::word(&self.own, self.own_incarnation);
                self.effects.push(super::Effect::Send { to: from, bytes });
            }
            Packet::Swim { header, updates } => self.take_swim(header, updates)?,
        }
        Ok(())
    }

    fn take_swim(&mut self, header: Header<Node>, updates: Vec<Member<Node>>) -> Result<(), Breach> {
        let from = header.src.replica;
        let entry = self.entries.get(&from).filter(|entry| entry.record.generation == header.src.generation);
        let Some(entry) = entry else {
            // Its record is needed before it can be answered. What it knows of others is news all the same.
            self.ask(from);
            self.hear(updates, from);
            return Ok(());
        };
        if header.dst.replica != self.own.replica {
            // For a former id of this node, most likely.
            return Ok(());
        }
        if header.dst.generation != self.own.generation {
            let bytes = packet::word(&self.own, self.own_incarnation);
            self.effects.push(super::Effect::Send { to: from, bytes });
            self.hear(updates, from);
            return Ok(());
        }
        if header.message == Message::TurnUndead && !self.may_renew() {
            return Ok(());
        }
        if third_party(&header.message).is_some_and(|third| !self.entries.contains_key(&third)) {
            return Ok(());
        }
        let source = Member::new(Node::new(Arc::clone(&entry.record)), header.src_incarnation, State::Alive);
        if let Some(third) = passed_on_to(&header.message)
            && !self.links.contains_key(&third)
            && !self.may_relay(from)
        {
            self.hear(updates, from);
            return Ok(());
        }
        let mut collected = Collected::default();
        collected.touched.insert(from);
        let mut admitted = Vec::with_capacity(updates.len());
        for update in updates {
            if let Some(update) = self.admit(update, from) {
                collected.touched.insert(update.id().replica);
                admitted.push(update);
            }
        }
        if admitted.is_empty() && header.message == Message::Gossip {
            self.apply(vec![source], true);
            return Ok(());
        }
        let malformed = |error: MalformedMember| Breach::Malformed(error);
        let bytes = packet::swim(&header, &admitted).map_err(malformed)?;
        // First with its record, which the header lacks.
        let applied = self.foca.apply_many(std::iter::once(source), true, &mut collected);
        let handled = applied.and_then(|()| self.foca.handle_data(&bytes, &mut collected));
        self.settle(collected);
        handled.map_err(|error| Breach::Unexpected(error.to_string()))
    }

    /// Whether this peer may have a probe passed on to a member without a link now, which costs a new link (rule N12). An
    /// honest one has at most one in a period.
    fn may_relay(&mut self, from: ReplicaId) -> bool {
        let pause = self.timing.probe_period() / 2;
        let Some(entry) = self.entries.get_mut(&from) else { return false };
        let may_relay = entry.relayed_at.is_none_or(|at| self.now >= at + pause);
        if may_relay {
            entry.relayed_at = Some(self.now);
        }
        may_relay
    }

    /// Takes what a datagram says of others, and nothing else of it.
    fn hear(&mut self, updates: Vec<Member<Node>>, from: ReplicaId) {
        let admitted: Vec<_> = updates.into_iter().filter_map(|update| self.admit(update, from)).collect();
        if !admitted.is_empty() {
            self.apply(admitted, true);
        }
    }

    /// Takes a member's own word, from its link: it counts more than what others say.
    pub(super) fn vouch(&mut self, record: &Arc<MemberRecord>, incarnation: u16) {
        let replica = record.replica;
        if let Some(known) = self.entries.get(&replica) {
            let (theirs, ours) = (record.generation, known.record.generation);
            if theirs < ours && known.vouched {
                // An old datagram; or others had its directory before it was restored.
                return self.ask(replica);
            }
            if theirs == ours && known.vouched && known.record != *record {
                return self.dispute(replica);
            }
            // What others said of it is not what it says itself.
            if theirs < ours || (theirs == ours && known.record != *record) {
                self.forget(replica);
            }
        }
        if !self.entries.contains_key(&replica) && !self.has_room_for_vouched() {
            return;
        }
        self.apply(vec![Member::new(Node::new(Arc::clone(record)), incarnation, State::Alive)], true);
        if let Some(entry) = self.entries.get_mut(&replica) {
            entry.vouched = true;
            entry.mark = Mark::at(entry.record.generation);
            if !entry.standing.is_up() && !entry.record.left {
                // Only a new generation brings it back.
                self.ask(replica);
            }
        }
        self.take_place(replica);
    }

    /// Another record under a generation that the member had already: a breach of N1, or its directory was restored and has
    /// come to that generation again. It is not taken; a member that means well goes on in a later one when it hears this.
    fn dispute(&mut self, replica: ReplicaId) {
        let (now, pause) = (self.now, self.timing.probe_answer());
        let Some(known) = self.entries.get_mut(&replica) else { return };
        if known.disputed_at.is_some_and(|at| now < at + pause) {
            return;
        }
        known.disputed_at = Some(now);
        let (generation, incarnation) = (known.record.generation, known.incarnation);
        let belief = Belief { generation, incarnation, standing: Standing::Down };
        let bytes = packet::ask(&self.own, self.own_incarnation, Some(belief));
        self.effects.push(super::Effect::Send { to: replica, bytes });
    }

    /// What of others' word is passed on to SWIM.
    pub(super) fn admit(&mut self, update: Member<Node>, from: ReplicaId) -> Option<Member<Node>> {
        let (replica, generation) = (update.id().replica, update.id().generation);
        if replica == self.own.replica {
            let (incarnation, standing) = (update.incarnation(), standing_of(update.state()));
            self.hear_of_self(Belief { generation, incarnation, standing });
            return None;
        }
        let (now, mark_lasts) = (self.now, self.timing.noticed_within());
        let Some(known) = self.entries.get_mut(&replica) else {
            return self.has_room_for(replica).then_some(update);
        };
        let ours = known.record.generation;
        if generation > ours && !known.mark.may_rise(ours, generation, now, mark_lasts) {
            self.turned_away = self.turned_away.saturating_add(1);
            return None;
        }
        if generation > ours && replica != from && self.links.contains_key(&replica) {
            // It is linked, so it can say so itself.
            let incarnation = update.incarnation();
            self.ask_with(replica, Belief { generation, incarnation, standing: Standing::Alive });
            return None;
        }
        if generation < ours {
            return None;
        }
        self.keep_place(replica);
        Some(update)
    }

    /// Tells a linked member what is said of it, and asks for its word: either that is so, or it refutes it.
    fn ask_with(&mut self, replica: ReplicaId, belief: Belief) {
        let Some(last) = self.links.get_mut(&replica) else { return };
        if last.is_some_and(|last| self.now < last + self.timing.probe_answer()) {
            return;
        }
        *last = Some(self.now);
        let bytes = packet::ask(&self.own, self.own_incarnation, Some(belief));
        self.effects.push(super::Effect::Send { to: replica, bytes });
    }

    /// Others say this of this member: it refutes what is wrong.
    pub(super) fn hear_of_self(&mut self, belief: Belief) {
        if std::mem::replace(&mut self.intake.told_of_self, true) {
            return;
        }
        let ours = self.own.generation;
        if belief.generation > ours {
            // Somebody made it up, or an older copy of this directory went further.
            let step = belief.generation.get() - ours.get();
            if step <= GENERATION_STEP_MAX
                && self.may_renew()
                && let Some(next) = belief.generation.next()
            {
                self.renewed_at = Some(self.now);
                self.renew_as(next, |_| ());
            }
            return;
        }
        if belief.generation < ours {
            return;
        }
        // No incarnation is left to refute that with: it takes a new generation, as if it were down.
        let is_last = belief.incarnation.max(self.own_incarnation) == u16::MAX;
        let state = match belief.standing {
            Standing::Alive => return,
            Standing::Suspect if !is_last => State::Suspect,
            _ if self.may_renew() => State::Down,
            _ => return,
        };
        self.apply(vec![Member::new(Node::new(Arc::clone(&self.own)), belief.incarnation, state)], true);
        if state == State::Suspect {
            // It may be alone, and have told nobody.
            self.own_incarnation = self.own_incarnation.max(belief.incarnation.saturating_add(1));
        }
    }

    /// Whether others' word may bring this member to a new generation now.
    fn may_renew(&self) -> bool {
        self.renewed_at.is_none_or(|at| self.now >= at + self.timing.renewal_pause())
    }

    /// Gives SWIM what is known.
    pub(super) fn apply(&mut self, updates: Vec<Member<Node>>, tell: bool) {
        let mut collected = Collected::default();
        collected.touched.extend(updates.iter().map(|update| update.id().replica));
        let applied = self.foca.apply_many(updates.into_iter(), tell, &mut collected);
        debug_assert!(applied.is_ok(), "{applied:?}");
        self.settle(collected);
    }

    /// A member whose word is heard over its link takes the place of those that had its address before and are not
    /// linked: they are former lives of it under other replica ids (rule N9).
    pub(super) fn take_place(&mut self, replica: ReplicaId) {
        let Some(address) = self.entries.get(&replica).map(|entry| entry.record.address) else { return };
        let others = self.by_address.get(&address).cloned().unwrap_or_default();
        for other in others {
            if other != replica && !self.links.contains_key(&other) {
                self.forget(other);
            }
        }
    }

    /// Forgets a member altogether.
    pub(super) fn forget(&mut self, replica: ReplicaId) {
        let Some(entry) = self.entries.get(&replica) else { return };
        let (node, incarnation) = (Node::new(Arc::clone(&entry.record)), entry.incarnation);
        let mut collected = Collected::default();
        let down = Member::new(node.clone(), incarnation, State::Down);
        let _ = self.foca.apply_many(std::iter::once(down), false, &mut collected);
        let _ = self.foca.handle_timer(foca::Timer::RemoveDown(node), &mut collected);
        self.remove_entry(replica);
        self.settle(collected);
    }
}

/// Whom a message is about, besides its two ends.
fn third_party(message: &Message<Node>) -> Option<ReplicaId> {
    match message {
        Message::PingReq { target: third, .. }
        | Message::IndirectPing { origin: third, .. }
        | Message::IndirectAck { target: third, .. }
        | Message::ForwardedAck { origin: third, .. } => Some(third.replica),
        _ => None,
    }
}

/// Whom a message makes its receiver send something to, besides its sender.
fn passed_on_to(message: &Message<Node>) -> Option<ReplicaId> {
    match message {
        Message::PingReq { target: third, .. } | Message::IndirectAck { target: third, .. } => Some(third.replica),
        _ => None,
    }
}

fn standing_of(state: State) -> Standing {
    match state {
        State::Alive => Standing::Alive,
        State::Suspect => Standing::Suspect,
        State::Down => Standing::Down,
    }
}

impl Entry {
    /// How a member stands, by SWIM's state and its own record.
    pub(super) fn standing(record: &MemberRecord, state: State) -> Standing {
        match standing_of(state) {
            _ if record.left => Standing::Left,
            standing => standing,
        }
    }
}
