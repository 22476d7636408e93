//! A cluster in virtual time: a network with delay and loss, links wherever they are needed, lists over streams.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::member::{Generation, ListedMember, Standing};
use stockmesh_proto::membership::{Effect, Membership, Timing};
use stockmesh_proto::wire::{MemberList, Message};

use super::{record, replica};

/// How often a member exchanges lists with a random one, and how soon again if that brought news.
const EXCHANGE_EVERY: Duration = Duration::from_secs(60);
const EXCHANGE_AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Datagram { from: usize, to: usize, bytes: Arc<Vec<u8>> },
    Wake(usize),
    Exchange(usize),
    Reserved(usize, u64),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Network {
    pub(crate) delay_ms: (u64, u64),
    /// In thousandths.
    pub(crate) loss: u64,
}

pub(crate) struct World {
    pub(crate) members: Vec<Membership>,
    pub(crate) is_crashed: Vec<bool>,
    /// Which side of a cut each is on.
    pub(crate) side: Vec<u8>,
    pub(crate) now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64, Happening)>>,
    woken_at: Vec<Duration>,
    count: u64,
    random: u64,
    network: Network,
    pub(crate) datagrams: u64,
    pub(crate) datagram_bytes: u64,
    pub(crate) list_bytes: u64,
    pub(crate) suspicions: u64,
    /// (observer, observed): when it was seen to go down.
    pub(crate) seen_down: BTreeMap<(usize, usize), Duration>,
    pub(crate) renewals: u64,
}

impl World {
    pub(crate) fn new(count: usize, timing: Timing, network: Network, seed: u64) -> Self {
        let members = (0..count).map(|number| {
            let number = number as u64;
            Membership::new(record(number + 1), timing, seed ^ (number * 0x9e37_79b9), Duration::ZERO)
        });
        let mut world = Self {
            members: members.collect(),
            is_crashed: vec![false; count],
            side: vec![0; count],
            now: Duration::ZERO,
            queue: BinaryHeap::new(),
            woken_at: vec![Duration::MAX; count],
            count: 0,
            random: seed | 1,
            network,
            datagrams: 0,
            datagram_bytes: 0,
            list_bytes: 0,
            suspicions: 0,
            seen_down: BTreeMap::new(),
            renewals: 0,
        };
        for number in 0..count {
            let effects = world.members[number].advance(Duration::ZERO);
            world.carry_out(number, effects);
            let at = Duration::from_millis(world.draw(60_000));
            world.push(at, Happening::Exchange(number));
        }
        world
    }

    pub(crate) fn draw(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.random;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % below
    }

    fn push(&mut self, at: Duration, happening: Happening) {
        self.queue.push(Reverse((at, self.count, happening)));
        self.count += 1;
    }

    fn number_of(replica: ReplicaId) -> usize {
        usize::try_from(replica.bits()).unwrap() - 1
    }

    pub(crate) fn carry_out(&mut self, number: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send { to, bytes } => self.send(number, Self::number_of(to), bytes),
                Effect::Changed { record, standing, before } => {
                    let observed = (number, Self::number_of(record.replica));
                    match standing {
                        Standing::Suspect => self.suspicions += u64::from(before != Some(Standing::Suspect)),
                        Standing::Down | Standing::Left => _ = self.seen_down.insert(observed, self.now),
                        Standing::Alive => {}
                    }
                }
                Effect::Reserve(through) => {
                    self.push(self.now + Duration::from_millis(1), Happening::Reserved(number, through.get()));
                }
                Effect::Renewed(_) => self.renewals += 1,
                _ => {}
            }
        }
        let due = self.members[number].next_due();
        if due < self.woken_at[number] {
            self.woken_at[number] = due;
            self.push(due, Happening::Wake(number));
        }
    }

    pub(crate) fn send(&mut self, from: usize, to: usize, bytes: Vec<u8>) {
        assert!(bytes.len() <= 1100, "{}", bytes.len());
        self.datagrams += 1;
        self.datagram_bytes += bytes.len() as u64;
        let is_cut = to >= self.members.len() || self.side[from] != self.side[to];
        if is_cut || self.draw(1000) < self.network.loss {
            return;
        }
        let (least, most) = self.network.delay_ms;
        let delay = Duration::from_millis(least) + Duration::from_micros(self.draw((most - least) * 1000 + 1));
        self.push(self.now + delay, Happening::Datagram { from, to, bytes: Arc::new(bytes) });
    }

    /// A link comes up, and the first gets the list of the second, as a node does.
    pub(crate) fn link(&mut self, opener: usize, other: usize) {
        for (one, two) in [(opener, other), (other, opener)] {
            let effects = self.members[one].linked(replica(two as u64 + 1), self.now);
            self.carry_out(one, effects);
        }
        self.exchange(opener, other);
    }

    fn exchange(&mut self, opener: usize, other: usize) -> usize {
        let bytes = |list: &[ListedMember]| -> u64 {
            let pages = MemberList::pages(0, list);
            pages.into_iter().map(|page| Message::Members(page).encode().unwrap().len() as u64).sum()
        };
        self.list_bytes += 2 * bytes(&[]);
        if self.members[opener].digest() == self.members[other].digest() {
            return 0;
        }
        let list = self.members[other].list();
        let back = self.members[opener].lacking(&list);
        self.list_bytes += bytes(&list) + bytes(&back);
        let (effects, news) = self.members[opener].learn(replica(other as u64 + 1), &list, self.now);
        self.carry_out(opener, effects);
        let (effects, _) = self.members[other].learn(replica(opener as u64 + 1), &back, self.now);
        self.carry_out(other, effects);
        news + back.len()
    }

    fn exchange_at_random(&mut self, number: usize) {
        let others: Vec<usize> = {
            let list = self.members[number].list();
            let up = list.iter().filter(|listed| listed.standing.is_up());
            up.map(|listed| Self::number_of(listed.record.replica)).filter(|other| *other != number).collect()
        };
        let mut again = EXCHANGE_EVERY;
        if !others.is_empty() {
            let other = others[usize::try_from(self.draw(others.len() as u64)).unwrap()];
            if other < self.members.len() && !self.is_crashed[other] && self.side[other] == self.side[number] {
                let news = self.exchange(number, other);
                again = if news > 0 { EXCHANGE_AGAIN } else { EXCHANGE_EVERY };
            }
        }
        let jitter = Duration::from_millis(self.draw(again.as_secs() * 500));
        self.push(self.now + again.mul_f64(0.75) + jitter, Happening::Exchange(number));
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(Reverse((at, ..))) = self.queue.peek()
            && *at <= until
        {
            let Some(Reverse((at, _, happening))) = self.queue.pop() else { return };
            self.now = at;
            self.happen(happening);
        }
        self.now = until;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Datagram { from, to, bytes } if !self.is_crashed[to] && self.side[from] == self.side[to] => {
                let effects = self.members[to].datagram(replica(from as u64 + 1), &bytes, self.now).unwrap();
                self.carry_out(to, effects);
            }
            Happening::Wake(number) if !self.is_crashed[number] => {
                self.woken_at[number] = Duration::MAX;
                let effects = self.members[number].advance(self.now);
                self.carry_out(number, effects);
            }
            Happening::Exchange(number) if !self.is_crashed[number] => self.exchange_at_random(number),
            Happening::Reserved(number, through) => {
                let through = Generation::new(through).unwrap();
                let effects = self.members[number].reserved(through, self.now);
                self.carry_out(number, effects);
            }
            _ => {}
        }
    }

    /// The living.
    pub(crate) fn live(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|number| !self.is_crashed[*number]).collect()
    }

    /// Whether each that lives holds exactly the others that live for up.
    pub(crate) fn all_know_all(&self) -> bool {
        let live = self.live();
        live.iter().all(|number| {
            let list = self.members[*number].list();
            let up = list
                .iter()
                .filter(|listed| listed.standing.is_up())
                .map(|listed| Self::number_of(listed.record.replica));
            up.eq(live.iter().copied())
        })
    }

    /// Runs until that is so, at most for so long, and returns how long it took.
    pub(crate) fn run_until_all_know_all(&mut self, at_most: Duration) -> Duration {
        let begun = self.now;
        while !self.all_know_all() {
            assert!(self.now - begun < at_most, "not all know all after {:?}", self.now - begun);
            self.run_for(Duration::from_millis(500));
        }
        self.now - begun
    }

    /// Datagram and list bytes for each living member and second, since the figures were set to zero.
    pub(crate) fn bytes_per_second(&self, time: Duration) -> (f64, f64) {
        let share = self.live().len() as f64 * time.as_secs_f64();
        (self.datagram_bytes as f64 / share, self.list_bytes as f64 / share)
    }

    pub(crate) fn reset_figures(&mut self) {
        (self.datagrams, self.datagram_bytes, self.list_bytes, self.suspicions) = (0, 0, 0, 0);
        self.seen_down.clear();
    }
}
