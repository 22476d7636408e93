//! Typed scripts over three replicas that sell one product: requests, holds, grants by messages that come in any order,
//! twice or not at all, crashes, and old copies put back. Whatever happens, nothing is sold twice.

mod node;

use std::collections::{BTreeMap, BTreeSet};

use arbitrary::{Arbitrary, Result, Unstructured};
use stockmesh_proto::check::check_granted;
use stockmesh_proto::hold::HoldId;
use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::{Operation, Outcome, OversellPolicy, Request};
use stockmesh_proto::wire::{Ask, Granted, Message};
use stockmesh_proto::{Location, Quantity, Reference, ReplicaId, Sku};

use node::{Ack, Node, Place};

const REPLICAS: usize = 3;
/// Steps of a script: enough for every case, and few enough for thousands of scripts in a second.
const STEPS_MAX: usize = 64;

/// One step of a script; the first number says at which replica.
#[derive(Clone, Copy, Debug)]
enum Step {
    Receive(u8, u8),
    Adjust(u8, u8),
    Sell(u8, u8, bool),
    Hold(u8, u8, u8),
    /// What becomes of which hold.
    Resolve(u8, u8, u8),
    /// The same request under one name, again and again.
    Order(u8, u8),
    Ask(u8, u8, u8),
    /// Which message, and how often it arrives.
    Deliver(u8, u8),
    Sync(u8),
    Crash(u8),
    Backup(u8),
    Restore(u8),
    Meet(u8, u8),
    Wait(u8),
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let (kind, who, number) = <(u8, u8, u8)>::arbitrary(input)?;
        Ok(match kind % 24 {
            0 | 1 => Self::Receive(who, number),
            2 => Self::Adjust(who, number),
            3..6 => Self::Sell(who, number % 16, number > 239),
            6 | 7 => Self::Hold(who, number % 16, number / 16),
            8..11 => Self::Resolve(who, number / 4, number % 4),
            11 => Self::Order(who, number),
            12 | 13 => Self::Ask(who, number / 16, number % 16),
            14..18 => Self::Deliver(who, number),
            18 | 19 => Self::Sync(who),
            20 => Self::Crash(who),
            21 => {
                if number < 128 {
                    Self::Backup(who)
                } else {
                    Self::Restore(who)
                }
            }
            22 => Self::Meet(who, number),
            _ => Self::Wait(number),
        })
    }
}

/// What callers were told, over all ids that ever were.
#[derive(Debug, Default)]
struct Told {
    came_in: i128,
    went_out: i128,
    held: BTreeMap<HoldId, (i128, u64)>,
    resolved: BTreeSet<HoldId>,
    /// What facts and backorders took beyond rights.
    excess: i128,
}

impl Told {
    fn acknowledge(&mut self, ack: &Ack) {
        self.excess += ack.excess;
        for (operation, outcome) in ack.operations.iter().zip(&ack.outcomes) {
            match (operation, outcome) {
                (Operation::Receive { units, .. }, _) => self.came_in += i128::from(units.get()),
                (Operation::Adjust { units, .. }, _) => self.came_in += i128::from(*units),
                (Operation::Sell { units, .. }, _) => self.went_out += i128::from(units.get()),
                (Operation::Hold { units, .. }, Outcome::Held { id, expires_ms }) => {
                    let before = self.held.insert(*id, (i128::from(units.get()), *expires_ms));
                    assert!(before.is_none() && !self.resolved.contains(id), "the hold id {id} was given twice");
                }
                (Operation::CommitHold { id, .. }, Outcome::Resolved { sold, .. }) => {
                    // The first resolution counts, whatever a caller hears of it once more.
                    let is_first = self.resolved.insert(*id);
                    self.went_out += if is_first { i128::from(*sold) } else { 0 };
                }
                (Operation::ReleaseHold { id }, _) => {
                    self.resolved.insert(*id);
                }
                (Operation::ExpireHold { id }, _) if self.held.get(id).is_some_and(|held| held.1 <= ack.now_ms) => {
                    self.resolved.insert(*id);
                }
                _ => {}
            }
        }
    }

    fn available(&self) -> i128 {
        let held = self.held.iter().filter(|(id, _)| !self.resolved.contains(id));
        self.came_in - self.went_out - held.map(|(_, (units, _))| units).sum::<i128>()
    }
}

/// A message on its way, with the ids that its link knew.
#[derive(Clone, Debug)]
struct Packet {
    from: (usize, ReplicaId),
    to: (usize, ReplicaId),
    ask: Ask,
    bytes: Vec<u8>,
}

struct Cluster {
    nodes: Vec<Node>,
    network: Vec<Packet>,
    told: Told,
    place: Place,
    now_ms: u64,
    ids_minted: u64,
    /// An old copy was put back: what the copy lacked and nobody else knew is gone.
    has_lost: bool,
}

/// Runs one script, and then lets all meet.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let place = Place { sku: Sku::new("A").unwrap(), location: Location::new("x").unwrap() };
    let mut cluster = Cluster {
        nodes: (1..).take(REPLICAS).map(Node::new).collect(),
        network: Vec::new(),
        told: Told::default(),
        place,
        now_ms: 1_000,
        ids_minted: 100,
        has_lost: false,
    };
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        cluster.take(step);
    }
    cluster.finish();
}

impl Cluster {
    fn take(&mut self, step: Step) {
        let node = |who: u8| usize::from(who) % REPLICAS;
        match step {
            Step::Receive(who, number) => self.request(node(who), self.receive(1 + u64::from(number % 32))),
            Step::Adjust(who, number) => {
                let (sku, location) = (self.place.sku.clone(), self.place.location.clone());
                let units = i64::from(number % 16) - 12;
                self.request(node(who), Operation::Adjust { sku, location, units, reason: Reason::Lost });
            }
            Step::Sell(who, units, is_backorder) => {
                let policy = if is_backorder { OversellPolicy::Backorder } else { OversellPolicy::Refuse };
                self.request(node(who), self.sale(1 + u64::from(units), policy));
            }
            Step::Hold(who, units, tens) => {
                let (sku, location) = (self.place.sku.clone(), self.place.location.clone());
                let (units, ttl_ms) = (Quantity::new(1 + u64::from(units)).unwrap(), 10 * u64::from(tens));
                self.request(node(who), Operation::Hold { sku, location, units, ttl_ms });
            }
            Step::Resolve(who, which, how) => self.resolve(node(who), which, how),
            Step::Order(who, number) => self.order(node(who), number),
            Step::Ask(who, peer, needed) => self.ask(node(who), node(peer), u64::from(needed)),
            Step::Deliver(which, copies) if !self.network.is_empty() => {
                let packet = self.network.remove(usize::from(which) % self.network.len());
                for _ in 0..[1, 1, 1, 1, 1, 1, 0, 2][usize::from(copies % 8)] {
                    self.deliver(&packet);
                }
                if copies > 223 {
                    self.network.push(packet);
                }
            }
            Step::Sync(who) => self.sync(node(who)),
            Step::Crash(who) => self.nodes[node(who)].crash(),
            Step::Backup(who) => self.nodes[node(who)].backup(),
            Step::Restore(who) => {
                self.ids_minted += 1;
                self.has_lost |= self.nodes[node(who)].restore(self.ids_minted);
            }
            Step::Meet(left, right) => self.meet(node(left), node(right)),
            Step::Wait(number) => self.now_ms += 10 * u64::from(number % 16),
            Step::Deliver(..) => {}
        }
        self.check();
    }

    fn receive(&self, units: u64) -> Operation {
        let (sku, location) = (self.place.sku.clone(), self.place.location.clone());
        Operation::Receive { sku, location, units: Quantity::new(units).unwrap() }
    }

    fn sale(&self, units: u64, policy: OversellPolicy) -> Operation {
        let (sku, location) = (self.place.sku.clone(), self.place.location.clone());
        Operation::Sell { sku, location, units: Quantity::new(units).unwrap(), policy }
    }

    fn request(&mut self, index: usize, operation: Operation) {
        self.nodes[index].apply(&vec![operation].into(), self.now_ms, &self.place);
    }

    fn resolve(&mut self, index: usize, which: u8, how: u8) {
        let holds: Vec<HoldId> = self.nodes[index].books.holds().map(|hold| hold.id).collect();
        if holds.is_empty() {
            return;
        }
        let id = holds[usize::from(which) % holds.len()];
        self.request(
            index,
            match how {
                0 => Operation::CommitHold { id, units: None },
                1 => Operation::CommitHold { id, units: Quantity::new(1 + u64::from(which % 4)).ok() },
                2 => Operation::ReleaseHold { id },
                _ => Operation::ExpireHold { id },
            },
        );
    }

    /// Rule O4: under one name, one of two contents is done, once.
    fn order(&mut self, index: usize, number: u8) {
        let reference = Reference::new(&format!("order-{}", number % 4)).unwrap();
        let operations = vec![self.sale(1 + u64::from(number / 128), OversellPolicy::Refuse)];
        let request = Request { operations, reference: Some(reference.clone()), may_backorder: true };
        let known = self.nodes[index].books.remembered(&reference).cloned();
        let before = self.nodes[index].table.fingerprint();
        let done = self.nodes[index].apply(&request, self.now_ms, &self.place);
        if let Some(known) = known {
            assert_eq!(before, self.nodes[index].table.fingerprint(), "{reference} was done twice");
            assert!(done.is_none_or(|outcomes| outcomes == known.outcomes()));
        }
    }

    fn ask(&mut self, index: usize, peer: usize, needed: u64) {
        if index != peer {
            let (sku, location) = (self.place.sku.clone(), self.place.location.clone());
            let ask = Ask { sku, location, needed, rights: 0, per_hour: 0 };
            let bytes = Message::Ask(ask.clone()).encode().unwrap()[4..].to_vec();
            let (from, to) = ((index, self.nodes[index].id), (peer, self.nodes[peer].id));
            self.network.push(Packet { from, to, ask, bytes });
        }
    }

    fn deliver(&mut self, packet: &Packet) {
        match Message::decode(&packet.bytes).unwrap() {
            Message::Ask(ask) => self.answer(packet, &ask),
            Message::Granted(granted) => self.take_grant(packet, &granted),
            other => panic!("{other:?}"),
        }
    }

    /// Rule B3: the answer leaves once the grant is durable.
    fn answer(&mut self, packet: &Packet, ask: &Ask) {
        let (index, own) = packet.to;
        let (mut units, mut sequence) = (0, 0);
        if own == self.nodes[index].id {
            let (sku, location) = (ask.sku.clone(), ask.location.clone());
            let grant = Operation::Grant { sku, location, to: packet.from.1, units: ask.needed };
            let done = self.nodes[index].apply(&vec![grant].into(), self.now_ms, &self.place);
            match done.as_deref() {
                Some([Outcome::Granted { units: given, sequence: number }]) => (units, sequence) = (*given, *number),
                other => panic!("{other:?}"),
            }
        }
        let (shard, products) = (node::SHARD, self.nodes[index].shown(&self.place));
        let granted = Granted { units, sequence, shard, products };
        let bytes = Message::Granted(granted).encode().unwrap()[4..].to_vec();
        self.nodes[index].answers.push((packet.from.0, packet.from.1, ask.clone(), bytes));
    }

    /// Rule B5.
    fn take_grant(&mut self, packet: &Packet, granted: &Granted) {
        let (index, giver) = (packet.to.0, packet.from.1);
        let own = self.nodes[index].id;
        let checked = check_granted(granted, &packet.ask, (giver, own), node::shard_count());
        if packet.to.1 != own {
            assert!(granted.units == 0 || checked.is_err(), "a new id takes what the old one was granted");
            return;
        }
        checked.unwrap();
        let claim = (granted.units > 0).then_some((giver, granted.sequence));
        self.nodes[index].take(&granted.products, claim);
    }

    fn sync(&mut self, index: usize) {
        let own = self.nodes[index].id;
        for ack in self.nodes[index].sync() {
            self.told.acknowledge(&ack);
        }
        for (to, id, ask, bytes) in std::mem::take(&mut self.nodes[index].answers) {
            self.network.push(Packet { from: (index, own), to: (to, id), ask, bytes });
        }
    }

    /// Both get what they lack of each other.
    fn meet(&mut self, left: usize, right: usize) {
        for (from, to) in [(left, right), (right, left)] {
            self.sync(from);
            let chunk = self.nodes[from].lacking(self.nodes[to].table.version());
            self.nodes[to].take(&chunk.products, None);
            self.nodes[to].table.claim(&chunk.version);
        }
    }

    fn check(&self) {
        let (available, excess) = (self.told.available(), self.told.excess);
        assert!(available >= -excess, "{available} units are left, {excess} were taken beyond rights");
        self.nodes.iter().for_each(|node| node.check(&self.place));
    }

    fn finish(&mut self) {
        for _ in 0..2 {
            for (left, right) in [(0, 1), (1, 2), (0, 2)] {
                self.meet(left, right);
            }
        }
        self.check();
        let Place { sku, location } = &self.place;
        for node in &self.nodes {
            assert_eq!(node.table.fingerprint(), self.nodes[0].table.fingerprint());
            assert_eq!(node.table.version(), self.nodes[0].table.version());
            let available = node.product(&self.place).map_or(0, |product| product.available_at(location));
            assert!(self.has_lost || available == self.told.available(), "{available} of {sku} at {location}");
        }
    }
}
