//! The state machine: its inputs, and its timers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foca::{Foca, Member, NoCustomBroadcast, State, Timer};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::node::Node;
use super::packet::{self, Belief};
use super::room::Intake;
use super::swim::{Collected, SwimCodec};
use super::timing::Timing;
use super::{Breach, Effect};
use crate::id::ReplicaId;
use crate::limits::GENERATION_STEP_MAX;
use crate::member::{Generation, ListedMember, MemberRecord, Standing};

/// Generations that are reserved on disk at once, and when the next are.
const RESERVED_AHEAD: u64 = 64;
const RESERVE_BELOW: u64 = 16;

/// How often what is down for too long is looked for.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What is known of a member.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) record: Arc<MemberRecord>,
    pub(super) incarnation: u16,
    pub(super) standing: Standing,
    /// When it went down or left.
    pub(super) down_since: Option<Since>,
    /// The record came over the member's own link, and not from others.
    pub(super) vouched: bool,
    pub(super) known_since: Duration,
    pub(super) mark: Mark,
    /// When it last had this member pass a probe on to one that is not linked.
    pub(super) relayed_at: Option<Duration>,
    /// When it was last told that its record is not the one of its generation.
    pub(super) disputed_at: Option<Duration>,
}

/// The generation from which it is measured how far others' word may bring a member (rule N4): the one that its link
/// brought, or that was first heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    generation: Generation,
    /// When others' word first went beyond it.
    passed_at: Option<Duration>,
}

/// A time, with the seconds that had passed before it when it was learnt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Since {
    pub(super) at: Duration,
    pub(super) before_s: u32,
}

/// One member's view of the cluster.
///
/// Times are those of one clock that never goes back, from any point on. Each call that takes `now` also does what is
/// due by then; [`Membership::next_due`] says when to call [`Membership::advance`] if nothing else happens. All effects
/// must be carried out in their order, but that sends may be lost.
pub struct Membership {
    pub(super) foca: Foca<Node, SwimCodec, SmallRng, NoCustomBroadcast>,
    pub(super) timing: Timing,
    pub(super) own: Arc<MemberRecord>,
    pub(super) own_incarnation: u16,
    /// Generations up to this one are durable.
    pub(super) reserved: Option<Generation>,
    pub(super) reserving: bool,
    pub(super) entries: BTreeMap<ReplicaId, Entry>,
    pub(super) by_address: BTreeMap<SocketAddr, Vec<ReplicaId>>,
    /// Open links, and when the member was last asked for its word.
    pub(super) links: BTreeMap<ReplicaId, Option<Duration>>,
    pub(super) timers: BTreeMap<(Duration, u64), Timer<Node>>,
    pub(super) timer_count: u64,
    pub(super) token: Option<u8>,
    pub(super) now: Duration,
    pub(super) next_sweep: Duration,
    pub(super) renewed_at: Option<Duration>,
    pub(super) active: usize,
    pub(super) config_for: usize,
    pub(super) leaving: bool,
    pub(super) effects: Vec<Effect>,
    /// Updates that were not taken: no room, or a step of generations that is too large.
    pub(super) turned_away: u64,
    /// The linked member that got gossip in the place of another one last.
    pub(super) stand_in: Option<ReplicaId>,
    pub(super) intake: Intake,
    /// That of all members, until something changes.
    pub(super) digest: Option<u64>,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { own, entries, links, now, .. } = self;
        let mut shown = formatter.debug_struct("Membership");
        shown.field("own", own).field("members", &entries.len()).field("links", &links.len()).field("now", now);
        shown.finish_non_exhaustive()
    }
}

impl Membership {
    /// A member alone. Nothing is sent before [`Membership::reserved`] was called for its generation.
    pub fn new(own: MemberRecord, timing: Timing, seed: u64, now: Duration) -> Self {
        let own = Arc::new(own);
        let (node, random) = (Node::new(Arc::clone(&own)), SmallRng::seed_from_u64(seed));
        let foca = Foca::new(node, timing.config(0), random, SwimCodec);
        Self {
            foca,
            timing,
            own,
            own_incarnation: 0,
            reserved: None,
            reserving: false,
            entries: BTreeMap::new(),
            by_address: BTreeMap::new(),
            links: BTreeMap::new(),
            timers: BTreeMap::new(),
            timer_count: 0,
            token: None,
            now,
            next_sweep: now + SWEEP_EVERY,
            renewed_at: None,
            active: 0,
            config_for: 0,
            leaving: false,
            effects: Vec::new(),
            turned_away: 0,
            stand_in: None,
            intake: Intake::default(),
            digest: None,
        }
    }

    /// What this member says of itself.
    pub fn own(&self) -> &Arc<MemberRecord> {
        &self.own
    }

    /// How many members are alive or suspect, this one aside.
    pub fn active(&self) -> usize {
        self.active
    }

    /// How many updates were not taken, for lack of room or since their generation is too far ahead (rule N5, N8).
    pub fn turned_away(&self) -> u64 {
        self.turned_away
    }

    /// When there is something to be done next.
    pub fn next_due(&self) -> Duration {
        let timer = self.timers.keys().next().map(|(due, _)| *due);
        timer.map_or(self.next_sweep, |due| due.min(self.next_sweep))
    }

    /// Does what is due by now.
    pub fn advance(&mut self, now: Duration) -> Vec<Effect> {
        self.reach(now);
        self.finish()
    }

    /// Takes a datagram that came over the link of `from`, as its certificate and hello say.
    ///
    /// # Errors
    /// If the datagram breaks a rule. Nothing of it was applied, and the peer should lose its link.
    pub fn datagram(&mut self, from: ReplicaId, bytes: &[u8], now: Duration) -> Result<Vec<Effect>, Breach> {
        self.reach(now);
        let judged = if self.leaving { Ok(()) } else { self.take_datagram(from, bytes) };
        let effects = self.finish();
        judged.map(|()| effects)
    }

    /// There is a link to this member now, under its certificate.
    pub fn linked(&mut self, replica: ReplicaId, now: Duration) -> Vec<Effect> {
        self.reach(now);
        if replica != self.own.replica && !self.leaving {
            self.links.insert(replica, None);
            self.ask(replica);
        }
        self.finish()
    }

    /// The link to this member ended. If it was not said why, or time ran out, that is a hint that the member may be
    /// gone: it is suspected, and has to show that it lives.
    pub fn unlinked(&mut self, replica: ReplicaId, is_hint: bool, now: Duration) -> Vec<Effect> {
        self.reach(now);
        self.links.remove(&replica);
        if is_hint && !self.leaving {
            self.suspect(replica);
        }
        self.finish()
    }

    /// Generations up to this one are durable now.
    pub fn reserved(&mut self, through: Generation, now: Duration) -> Vec<Effect> {
        self.reach(now);
        self.reserving = false;
        let could_speak = self.may_speak();
        self.reserved = self.reserved.max(Some(through));
        if !could_speak && self.may_speak() {
            self.tell_word();
        }
        self.finish()
    }

    /// This member accepts links at another address from now on.
    pub fn set_address(&mut self, address: SocketAddr, now: Duration) -> Vec<Effect> {
        self.reach(now);
        if address != self.own.address && !self.leaving {
            self.renew(|record| record.address = address);
        }
        self.finish()
    }

    /// This member only reads from here on, or no longer.
    pub fn set_read_only(&mut self, read_only: bool, now: Duration) -> Vec<Effect> {
        self.reach(now);
        if read_only != self.own.read_only && !self.leaving {
            self.renew(|record| record.read_only = read_only);
        }
        self.finish()
    }

    /// This member was away for a while, and others may take it for dead: it goes on in a new generation.
    pub fn resume(&mut self, now: Duration) -> Vec<Effect> {
        self.reach(now);
        if !self.leaving {
            self.renew(|_| ());
        }
        self.finish()
    }

    /// Tells members that this one leaves. It takes part in nothing after that, but for telling its list to whoever may have
    /// lost that (rule N7).
    pub fn leave(&mut self, now: Duration) -> Vec<Effect> {
        self.reach(now);
        if !self.leaving {
            self.renew(|record| record.left = true);
            let mut collected = Collected::default();
            // A few more than SWIM would tell: who leaves must not look dead.
            let left = self.foca.leave_cluster(&mut collected).and_then(|()| self.foca.gossip(&mut collected));
            debug_assert!(left.is_ok(), "{left:?}");
            let word = packet::word(&self.own, self.own_incarnation);
            let linked: Vec<_> = self.links.keys().copied().collect();
            self.settle(collected);
            self.effects.extend(linked.into_iter().map(|to| Effect::Send { to, bytes: word.clone() }));
            self.leaving = true;
            self.digest = None;
            self.timers.clear();
        }
        self.finish()
    }

    /// Delivers timers in order. Those that are late are delivered all the same.
    fn reach(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let timer = entry.remove();
            let mut collected = Collected::default();
            // It says that a probe was cut short, as by a pause: it has begun anew.
            let _ = self.foca.handle_timer(timer, &mut collected);
            self.settle(collected);
        }
        if self.next_sweep <= self.now {
            self.next_sweep = self.now + SWEEP_EVERY;
            self.forget_long_gone();
        }
    }

    /// The effects since the last call.
    fn finish(&mut self) -> Vec<Effect> {
        self.intake = Intake::default();
        self.reserve_ahead();
        let mut effects = std::mem::take(&mut self.effects);
        if !self.may_speak() {
            effects.retain(|effect| !matches!(effect, Effect::Send { .. }));
        }
        effects
    }

    /// Whether the own generation is durable (rule N2).
    pub(super) fn may_speak(&self) -> bool {
        self.reserved.is_some_and(|reserved| self.own.generation <= reserved)
    }

    fn reserve_ahead(&mut self) {
        let generation = self.own.generation.get();
        let left = self.reserved.map_or(0, |reserved| reserved.get().saturating_sub(generation));
        if left < RESERVE_BELOW && !self.reserving {
            let through = generation.saturating_add(RESERVED_AHEAD).min(crate::limits::GENERATION_MAX);
            if let Ok(through) = Generation::new(through)
                && Some(through) > self.reserved
            {
                self.reserving = true;
                self.effects.push(Effect::Reserve(through));
            }
        }
    }

    /// Goes on in a new generation, which it tells.
    pub(super) fn renew(&mut self, change: impl FnOnce(&mut MemberRecord)) {
        if let Some(generation) = self.own.generation.next() {
            self.renew_as(generation, change);
        }
    }

    pub(super) fn renew_as(&mut self, generation: Generation, change: impl FnOnce(&mut MemberRecord)) {
        let mut record = MemberRecord { generation, ..(*self.own).clone() };
        change(&mut record);
        let mut collected = Collected::default();
        let _ = self.foca.change_identity(Node::new(Arc::new(record)), &mut collected);
        self.settle(collected);
    }

    /// Tells all linked members what this one is.
    pub(super) fn tell_word(&mut self) {
        let bytes = packet::word(&self.own, self.own_incarnation);
        let linked = self.links.keys().copied();
        self.effects.extend(linked.map(|to| Effect::Send { to, bytes: bytes.clone() }));
    }

    /// Asks a member for its word, and tells it what is believed of it; not too often.
    pub(super) fn ask(&mut self, replica: ReplicaId) {
        if let Some(last) = self.links.get_mut(&replica) {
            if last.is_some_and(|last| self.now < last + self.timing.probe_answer()) {
                return;
            }
            *last = Some(self.now);
        }
        let belief = self.entries.get(&replica).map(|entry| Belief {
            generation: entry.record.generation,
            incarnation: entry.incarnation,
            standing: entry.standing,
        });
        let bytes = packet::ask(&self.own, self.own_incarnation, belief);
        self.effects.push(Effect::Send { to: replica, bytes });
    }

    /// Suspects a member that was alive, and gives it the usual time to show that it lives.
    fn suspect(&mut self, replica: ReplicaId) {
        let Some(entry) = self.entries.get(&replica).filter(|entry| entry.standing == Standing::Alive) else { return };
        let (node, incarnation) = (Node::new(Arc::clone(&entry.record)), entry.incarnation);
        let Some(token) = self.token else { return };
        let down = Timer::ChangeSuspectToDown { member_id: node.clone(), incarnation, token };
        let mut collected = Collected::default();
        collected.timers.push((self.timing.suspicion(), down));
        collected.touched.insert(replica);
        let suspect = Member::new(node, incarnation, State::Suspect);
        let _ = self.foca.apply_many(std::iter::once(suspect), true, &mut collected);
        self.settle(collected);
    }

    /// A member as lists have it.
    pub(super) fn listed(&self, entry: &Entry) -> ListedMember {
        ListedMember {
            record: Arc::clone(&entry.record),
            incarnation: entry.incarnation,
            standing: entry.standing,
            down_for_s: entry.down_since.map_or(0, |since| since.seconds(self.now)),
        }
    }
}

impl Mark {
    pub(super) fn at(generation: Generation) -> Self {
        Self { generation, passed_at: None }
    }

    /// Whether others' word may bring a member from the one generation to the other. If it was brought ahead before, the
    /// mark follows after a while: by then the member has heard of it, and has refuted what is wrong. So it is never left
    /// behind further than it follows itself.
    pub(super) fn may_rise(&mut self, known: Generation, said: Generation, now: Duration, lasts: Duration) -> bool {
        if self.passed_at.is_some_and(|at| now >= at + lasts) {
            *self = Self::at(known);
        }
        let may_rise = said.get() <= self.generation.get().saturating_add(GENERATION_STEP_MAX);
        if may_rise && self.passed_at.is_none() {
            self.passed_at = Some(now);
        }
        may_rise
    }
}

impl Since {
    pub(super) fn seconds(self, now: Duration) -> u32 {
        let passed = u32::try_from(now.saturating_sub(self.at).as_secs()).unwrap_or(u32::MAX);
        self.before_s.saturating_add(passed).min(crate::limits::MEMBER_DOWN_LISTED_S)
    }
}
