//! The members of a script, their links, and the datagrams on their way.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use stockmesh_proto::limits::{MEMBERS_MAX, MEMBERSHIP_DATAGRAM_BYTES_MAX};
use stockmesh_proto::member::{Generation, Labels, ListedMember, MemberRecord, Software, Standing};
use stockmesh_proto::membership::{Effect, Membership, Timing};
use stockmesh_proto::wire::{MemberList, Message};
use stockmesh_proto::{Location, ReplicaId};

pub(super) const NODES: usize = 4;
/// More than that on their way are lost, so that a script cannot grow without bound.
const DATAGRAMS_MAX: usize = 256;

struct Node {
    member: Membership,
    links: BTreeSet<usize>,
    durable: Generation,
    /// The generation in which it was opened.
    opened_in: Generation,
    has_left: bool,
}

struct Datagram {
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

pub(super) struct World {
    nodes: Vec<Node>,
    network: Vec<Datagram>,
    now: Duration,
    timing: Timing,
    /// Nobody lied, and no byte was changed.
    is_honest: bool,
    restarts: u64,
    /// Whether the disk takes its time: what is to be reserved is so only at the next step of time.
    is_slow: bool,
    waiting: Vec<(usize, Generation)>,
}

fn replica(index: usize) -> ReplicaId {
    ReplicaId::from_random(1 + index as u64)
}

fn record(index: usize, generation: Generation) -> MemberRecord {
    MemberRecord {
        replica: replica(index),
        generation,
        address: SocketAddr::from(([10, 0, 1, u8::try_from(index).unwrap()], 9000)),
        location: Location::new("here").unwrap(),
        labels: Labels::new([("role", "shop")]).unwrap(),
        software: Software::new("fuzzed").unwrap(),
        read_only: false,
        left: false,
    }
}

impl World {
    pub(super) fn new(options: u8) -> Self {
        let timing = if options & 1 == 0 { Timing::Lan } else { Timing::Wan };
        let node = |index: usize| {
            let member = Membership::new(record(index, Generation::FIRST), timing, index as u64, Duration::ZERO);
            let (durable, opened_in) = (Generation::FIRST, Generation::FIRST);
            Node { member, links: BTreeSet::new(), durable, opened_in, has_left: false }
        };
        let mut world = Self {
            nodes: (0..NODES).map(node).collect(),
            network: Vec::new(),
            now: Duration::ZERO,
            timing,
            is_honest: true,
            restarts: 0,
            is_slow: options & 2 != 0,
            waiting: Vec::new(),
        };
        (0..NODES).for_each(|index| world.tell(index, |member, now| member.reserved(Generation::FIRST, now)));
        world
    }

    /// Has a member do something, and carries out the effects.
    pub(super) fn tell(&mut self, index: usize, act: impl FnOnce(&mut Membership, Duration) -> Vec<Effect>) {
        let effects = act(&mut self.nodes[index].member, self.now);
        self.carry_out(index, effects);
    }

    fn carry_out(&mut self, index: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, bytes } => self.send(index, to, bytes),
                Effect::Reserve(generation) if self.is_slow => self.waiting.push((index, generation)),
                Effect::Reserve(generation) => self.reserve(index, generation),
                _ => {}
            }
        }
    }

    fn reserve(&mut self, index: usize, generation: Generation) {
        self.nodes[index].durable = self.nodes[index].durable.max(generation);
        self.tell(index, |member, now| member.reserved(generation, now));
    }

    /// As the endpoint does: gossip costs no link, other datagrams need none here.
    fn send(&mut self, index: usize, to: ReplicaId, bytes: Vec<u8>) {
        let node = &mut self.nodes[index];
        assert!(bytes.len() <= MEMBERSHIP_DATAGRAM_BYTES_MAX, "a datagram of {} bytes", bytes.len());
        assert!(node.member.own().generation <= node.durable, "rule N2");
        let is_linked = node.links.iter().any(|other| replica(*other) == to);
        let sent = if !is_linked && Membership::is_gossip(&bytes) {
            node.member.stand_in_for(&bytes)
        } else {
            Some((to, bytes))
        };
        let Some((to, bytes)) = sent else { return };
        if let Some(to) = (0..NODES).find(|other| replica(*other) == to)
            && self.network.len() < DATAGRAMS_MAX
        {
            self.network.push(Datagram { from: index, to, bytes });
        }
    }

    pub(super) fn pass(&mut self, by: Duration) {
        self.now += by;
        for (index, generation) in std::mem::take(&mut self.waiting) {
            self.reserve(index, generation);
        }
        for index in 0..NODES {
            self.tell(index, Membership::advance);
            let due = self.nodes[index].member.next_due();
            assert!(due > self.now, "something is due at {due:?}, which was done at {:?}", self.now);
        }
    }

    pub(super) fn deliver(&mut self, which: u8, copies: u8) {
        if self.network.is_empty() {
            return;
        }
        let Datagram { from, to, bytes } = self.network.remove(usize::from(which) % self.network.len());
        for _ in 0..copies {
            let taken = self.nodes[to].member.datagram(replica(from), &bytes, self.now);
            match taken {
                Ok(effects) => self.carry_out(to, effects),
                Err(breach) => assert!(!self.is_honest, "an honest datagram is a breach: {breach}"),
            }
        }
    }

    /// One byte is changed on the way; the datagram stays, so that more of it may be changed.
    pub(super) fn damage(&mut self, which: u8, at: u8, byte: u8) {
        self.is_honest = false;
        let count = self.network.len();
        let Some(datagram) = self.network.get_mut(usize::from(which) % count.max(1)) else { return };
        let at = usize::from(at) % datagram.bytes.len();
        datagram.bytes[at] = byte;
    }

    pub(super) fn link(&mut self, one: usize, other: usize) {
        if one == other || self.nodes[one].has_left || self.nodes[other].has_left {
            return;
        }
        for (index, peer) in [(one, other), (other, one)] {
            self.nodes[index].links.insert(peer);
            self.tell(index, |member, now| member.linked(replica(peer), now));
        }
    }

    pub(super) fn unlink(&mut self, one: usize, other: usize, is_hint: bool) {
        for (index, peer) in [(one, other), (other, one)] {
            if self.nodes[index].links.remove(&peer) {
                self.tell(index, |member, now| member.unlinked(replica(peer), is_hint, now));
            }
        }
    }

    pub(super) fn exchange_lists(&mut self, one: usize, other: usize) {
        if one == other || !self.nodes[one].links.contains(&other) {
            return;
        }
        let theirs = self.through_frames(other, &self.nodes[other].member.list());
        let lacking = self.through_frames(one, &self.nodes[one].member.lacking(&theirs));
        self.learn(one, other, &theirs);
        self.learn(other, one, &lacking);
    }

    /// Who reads that it is suspected takes a later incarnation, and who reads that it is down a later generation, the first
    /// time at least (rule N5).
    fn learn(&mut self, index: usize, from: usize, list: &[ListedMember]) {
        let own = |world: &Self| {
            let list = world.nodes[index].member.list();
            list.into_iter().find(|listed| listed.record.replica == replica(index))
        };
        // Of one list it hears one thing about itself.
        let heard = list.iter().find(|listed| listed.record.replica == replica(index));
        let before = own(self).filter(|_| !self.nodes[index].has_left);
        self.tell(index, |member, now| member.learn(replica(from), list, now).0);
        let (Some(heard), Some(before), Some(after)) = (heard, before, own(self)) else { return };
        let generation = before.record.generation;
        if heard.record.generation != generation || after.record.generation > generation {
            return;
        }
        match heard.standing {
            Standing::Suspect if before.incarnation.max(heard.incarnation) < u16::MAX => {
                assert!(after.incarnation > heard.incarnation, "a suspicion is not refuted");
            }
            Standing::Down | Standing::Suspect => {
                assert!(generation > self.nodes[index].opened_in, "it stays in a generation that is taken for dead");
            }
            Standing::Alive | Standing::Left => {}
        }
    }

    /// A list as it arrives.
    fn through_frames(&mut self, from: usize, list: &[ListedMember]) -> Vec<ListedMember> {
        let digest = self.nodes[from].member.digest();
        let mut arrived = Vec::new();
        for page in MemberList::pages(digest, list) {
            match Message::decode(&Message::Members(page).encode().unwrap()[4..]).unwrap() {
                Message::Members(page) => arrived.extend(page.members),
                other => panic!("{other:?}"),
            }
        }
        arrived
    }

    pub(super) fn lie(&mut self, from: usize, to: usize, list: &[ListedMember]) {
        if from == to {
            // No link leads a node to itself: the handshake refuses it.
            return;
        }
        self.is_honest = false;
        self.learn(to, from, list);
    }

    /// Somebody with this record, on a link of that id.
    pub(super) fn impostor(&mut self, to: usize, record: MemberRecord) {
        self.is_honest = false;
        let (from, generation) = (record.replica, record.generation);
        let mut impostor = Membership::new(record, self.timing, 9, self.now);
        impostor.reserved(generation, self.now);
        for effect in impostor.linked(replica(to), self.now) {
            if let Effect::Send { bytes, .. } = effect
                && let Ok(effects) = self.nodes[to].member.datagram(from, &bytes, self.now)
            {
                self.carry_out(to, effects);
            }
        }
    }

    pub(super) fn leave(&mut self, index: usize) {
        self.tell(index, Membership::leave);
        self.nodes[index].has_left = true;
        (0..NODES).for_each(|other| self.unlink(index, other, false));
    }

    /// Opens the same directory again: in a generation beyond those that were reserved, with those who were gone.
    pub(super) fn restart(&mut self, index: usize) {
        let node = &self.nodes[index];
        let Some(generation) = node.durable.next().filter(|_| !node.has_left) else { return };
        let gone: Vec<ListedMember> =
            node.member.list().into_iter().filter(|listed| !listed.standing.is_up()).collect();
        self.restarts += 1;
        let seed = 100 * self.restarts + index as u64;
        let member = Membership::new(record(index, generation), self.timing, seed, self.now);
        for other in std::mem::take(&mut self.nodes[index].links) {
            self.nodes[other].links.remove(&index);
            self.tell(other, |member, now| member.unlinked(replica(index), true, now));
        }
        self.waiting.retain(|(of, _)| *of != index);
        self.nodes[index].member = member;
        self.nodes[index].opened_in = generation;
        self.reserve(index, generation);
        // Whom it remembers as gone it knows as nothing else.
        let mut effects = self.nodes[index].member.restore(&gone, self.now);
        effects.retain(|effect| !matches!(effect, Effect::Changed { before: None, standing, .. } if !standing.is_up()));
        self.carry_out(index, effects);
        // Once more is as once.
        self.tell(index, |member, now| member.restore(&gone, now));
    }

    pub(super) fn check(&mut self) {
        for node in &mut self.nodes {
            let list = node.member.list();
            assert!(
                list.len() <= MEMBERS_MAX + 1
                    && list.is_sorted_by(|left, right| left.record.replica < right.record.replica)
            );
            // Rule N2: once its generation is durable.
            let may_speak = node.member.own().generation <= node.durable;
            let is_listed = list.iter().any(|listed| listed.record == *node.member.own());
            assert_eq!(is_listed, may_speak, "itself in the list");
            for listed in &list {
                assert_eq!(ListedMember::decode(&listed.encode()).unwrap(), *listed);
            }
            assert!(!self.is_honest || node.member.turned_away() == 0, "there is room for all");
            assert!(!format!("{:?}", node.member).is_empty());
            assert_eq!(node.member.lacking(&list), Vec::new(), "nothing is lacking in the own list");
            assert_eq!(node.member.digest(), node.member.digest());
            let up = list.iter().filter(|listed| listed.standing.is_up()).count();
            let itself = usize::from(may_speak && !node.has_left);
            assert_eq!(up, node.member.active() + itself);
        }
    }

    /// All are linked, and nothing is lost any more: whoever is there is known to be so.
    pub(super) fn finish(&mut self) {
        if !self.is_honest {
            return;
        }
        for one in 0..NODES {
            (0..one).for_each(|other| self.link(one, other));
        }
        let until = self.now + 2 * self.timing.suspicion();
        while self.now < until {
            let mut left = DATAGRAMS_MAX;
            while !self.network.is_empty() && left > 0 {
                self.deliver(0, 1);
                left -= 1;
            }
            self.pass(self.timing.probe_answer() / 2);
        }
        let there: Vec<usize> = (0..NODES).filter(|index| !self.nodes[*index].has_left).collect();
        for index in &there {
            let list = self.nodes[*index].member.list();
            for other in &there {
                let known = list.iter().find(|listed| listed.record.replica == replica(*other));
                let standing = known.map(|known| known.standing);
                assert_eq!(standing, Some(Standing::Alive), "{} at {}", replica(*other), replica(*index));
                let own = self.nodes[*other].member.own();
                assert_eq!(known.map(|known| &known.record), Some(own), "an old record");
            }
        }
    }
}
