//! Typed scripts over three replicas, run twice: by this project's core, with deltas, version vectors and claims, and by
//! the PN-counter and the last-writer-wins register of the crate `crdts`, which exchange whole states. Both must read the
//! same everywhere at any time.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arbitrary::{Arbitrary, Result, Unstructured};
use crdts::{CmRDT, CvRDT, LWWReg, PNCounter};
use stockmesh_proto::hlc::Clock;
use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::{Books, Operation, OversellPolicy, Reader, Writer};
use stockmesh_proto::product::{KeyedProduct, Product};
use stockmesh_proto::{
    Currency, Location, Price, Quantity, ReplicaId, Shard, ShardCount, ShardIndex, Sku, VersionVector,
};

use crate::input::SKUS;

const REPLICAS: usize = 3;
const STEPS_MAX: usize = 128;

/// One step of a script. The first number says at which replica, the second which product or which other replica.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Step {
    /// Units in or out.
    Count(u8, u8, i8),
    /// What was counted on the shelf.
    Stocktake(u8, u8, i8),
    /// Units, and the wall clock there.
    Price(u8, u8, u8, u8),
    /// A whole delta, which may be claimed.
    Exchange(u8, u8),
    /// A delta of which only some products arrive: nothing may be claimed.
    Torn(u8, u8, u8),
    /// All that the other one has, whatever is known.
    Copy(u8, u8),
}

type Marker = (u64, u64);

/// What the other crate keeps of one product. Prices are units of one currency.
#[derive(Clone, Debug, Default)]
struct Plain {
    stock: PNCounter<u64>,
    price: Option<LWWReg<u64, Marker>>,
}

impl Plain {
    fn merge(&mut self, other: &Self) {
        self.stock.merge(other.stock.clone());
        match (&mut self.price, &other.price) {
            (Some(own), Some(other)) => {
                assert_eq!(own.validate_merge(other), Ok(()), "two values under one stamp");
                own.merge(other.clone());
            }
            (own @ None, Some(other)) => *own = Some(other.clone()),
            (_, None) => {}
        }
    }
}

struct Node {
    id: ReplicaId,
    table: Shard,
    clock: Clock,
    plain: BTreeMap<Sku, Plain>,
}

impl Reader for Node {
    fn product(&self, sku: &Sku) -> Option<Arc<KeyedProduct>> {
        self.table.get(sku.as_str()).cloned()
    }

    fn sequence(&self, _: ShardIndex, replica: ReplicaId) -> u64 {
        self.table.version().get(replica)
    }
}

impl Node {
    fn new(bits: u64) -> Self {
        let id = ReplicaId::from_random(bits);
        Self { id, table: Shard::new(bits), clock: Clock::default(), plain: BTreeMap::new() }
    }

    fn on_hand(&self, sku: &Sku) -> i128 {
        self.table.get(sku.as_str()).map_or(0, |keyed| keyed.product.on_hand())
    }

    /// Does an operation, and returns whether it was not refused.
    fn apply(&mut self, operation: Operation, now_ms: u64) -> bool {
        let writer = Writer { own: self.id, shards: ShardCount::new(1).unwrap(), drift_ms_max: u64::MAX };
        let mut clock = self.clock.clone();
        let evaluated = writer.evaluate(&vec![operation].into(), &*self, &Books::default(), &mut clock, now_ms);
        let Ok(evaluation) = evaluated else { return false };
        self.clock = clock;
        for writes in evaluation.shards.values() {
            self.table.merge(&writes.clone().into_products());
            assert!(self.table.claim_range(self.id, writes.from, writes.to), "own writes leave no gap");
        }
        true
    }

    fn count(&mut self, sku: Sku, units: i64) {
        let own = self.id.bits();
        let location = Location::new("x").unwrap();
        let operation = match u64::try_from(units).map(Quantity::new) {
            Ok(Ok(units)) => Operation::Receive { sku: sku.clone(), location, units },
            Ok(Err(_)) => return,
            Err(_) if units % 2 == 0 => {
                Operation::Adjust { sku: sku.clone(), location, units, reason: Reason::Damaged }
            }
            Err(_) => {
                let units = Quantity::new(units.unsigned_abs()).unwrap();
                Operation::Sell { sku: sku.clone(), location, units, policy: OversellPolicy::Backorder }
            }
        };
        assert!(self.apply(operation, 0), "physical facts and backorders are never refused");
        self.count_plain(&sku, own, units);
    }

    fn count_plain(&mut self, sku: &Sku, own: u64, units: i64) {
        let stock = &mut self.plain.entry(sku.clone()).or_default().stock;
        let operation = if units > 0 {
            stock.inc_many(own, units.unsigned_abs())
        } else {
            stock.dec_many(own, units.unsigned_abs())
        };
        stock.apply(operation);
    }

    fn stocktake(&mut self, sku: Sku, counted: u64) {
        let (own, difference) = (self.id.bits(), i128::from(counted) - self.on_hand(&sku));
        let location = Location::new("x").unwrap();
        assert!(self.apply(Operation::Stocktake { sku: sku.clone(), location, counted }, 0));
        if difference != 0 {
            self.count_plain(&sku, own, i64::try_from(difference).unwrap());
        }
    }

    fn price(&mut self, sku: Sku, units: u64, now_ms: u64) {
        let price = Price::from_parts(units, 0, Currency::EUR).unwrap();
        assert!(self.apply(Operation::SetPrice { sku: sku.clone(), price }, now_ms));
        let register = self.table.get(sku.as_str()).unwrap().product.price().unwrap();
        assert_eq!((register.value, register.dot.replica), (price, self.id), "an own price wins at home");
        let marker = (register.stamp.bits(), self.id.bits());
        let plain = &mut self.plain.entry(sku).or_default().price;
        match plain {
            Some(plain) => plain.update(units, marker),
            None => *plain = Some(LWWReg { val: units, marker }),
        }
    }

    /// What it would tell who knows so much.
    fn lacking(&self, version: &VersionVector) -> (Vec<(Sku, Product)>, VersionVector) {
        let chunk = self.table.extract(version, Bound::Unbounded, usize::MAX);
        assert!(chunk.next.is_none(), "no limit was set");
        (chunk.products, chunk.version)
    }

    fn merge(&mut self, products: &[(Sku, Product)]) {
        let merged = self.table.merge(products);
        self.clock.observe(merged.stamp_max);
    }

    /// Both read the same.
    fn check(&self) {
        for sku in SKUS.map(|sku| Sku::new(sku).unwrap()) {
            let plain = self.plain.get(&sku).cloned().unwrap_or_default();
            assert_eq!(plain.stock.read(), self.on_hand(&sku).into(), "{sku} at {}", self.id);
            let price = self.table.get(sku.as_str()).and_then(|keyed| keyed.product.price().copied());
            let known = price.map(|register| {
                assert_eq!(register.value.currency(), Currency::EUR);
                (register.value, (register.stamp.bits(), register.dot.replica.bits()))
            });
            let wanted =
                plain.price.map(|LWWReg { val, marker }| (Price::from_parts(val, 0, Currency::EUR).unwrap(), marker));
            assert_eq!(known, wanted, "the price of {sku} at {}", self.id);
        }
    }
}

/// Two different replicas.
fn pair(nodes: &mut [Node], to: usize, from: usize) -> Option<(&mut Node, &mut Node)> {
    let [to, from] = nodes.get_disjoint_mut([to % REPLICAS, from % REPLICAS]).ok()?;
    Some((to, from))
}

/// A delta that arrives whole.
fn exchange(to: &mut Node, from: &Node, known: &VersionVector) {
    let (products, version) = from.lacking(known);
    to.merge(&products);
    to.table.claim(&version);
    for (sku, plain) in &from.plain {
        to.plain.entry(sku.clone()).or_default().merge(plain);
    }
}

fn take(nodes: &mut [Node], step: Step) {
    let name = |number: u8| Sku::new(SKUS[usize::from(number) % SKUS.len()]).unwrap();
    let at = |who: u8| usize::from(who) % REPLICAS;
    match step {
        Step::Count(who, sku, units) => nodes[at(who)].count(name(sku), i64::from(units)),
        Step::Stocktake(who, sku, counted) => nodes[at(who)].stocktake(name(sku), u64::from(counted.unsigned_abs())),
        Step::Price(who, sku, units, now) => nodes[at(who)].price(name(sku), u64::from(units), u64::from(now)),
        Step::Exchange(to, from) => {
            if let Some((to, from)) = pair(nodes, at(to), at(from)) {
                let known = to.table.version().clone();
                exchange(to, from, &known);
            }
        }
        Step::Copy(to, from) => {
            if let Some((to, from)) = pair(nodes, at(to), at(from)) {
                exchange(to, from, &VersionVector::new());
            }
        }
        Step::Torn(to, from, mask) => {
            let Some((to, from)) = pair(nodes, at(to), at(from)) else { return };
            let (products, _) = from.lacking(to.table.version());
            let known = to.table.version().clone();
            let arrives =
                |sku: &Sku| SKUS.iter().position(|name| *name == sku.as_str()).is_some_and(|bit| mask >> bit & 1 == 1);
            let torn: Vec<_> = products.into_iter().filter(|(sku, _)| arrives(sku)).collect();
            to.merge(&torn);
            assert_eq!(*to.table.version(), known, "nothing was claimed");
            for (sku, plain) in from.plain.iter().filter(|(sku, _)| arrives(sku)) {
                to.plain.entry(sku.clone()).or_default().merge(plain);
            }
        }
    }
}

/// Runs one script, and then lets all meet.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let mut nodes: Vec<Node> = (1..=REPLICAS as u64).map(Node::new).collect();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let Result::Ok(step) = Step::arbitrary(&mut input) else { break };
        take(&mut nodes, step);
        nodes.iter().for_each(Node::check);
    }
    for _ in 0..2 {
        for (to, from) in [(0, 1), (1, 2), (2, 0), (0, 2), (1, 0), (2, 1)] {
            take(&mut nodes, Step::Exchange(to, from));
        }
    }
    nodes.iter().for_each(Node::check);
    let state = |node: &Node| (node.table.fingerprint(), node.table.version().clone());
    assert!(nodes.windows(2).all(|pair| state(&pair[0]) == state(&pair[1])), "all met, and differ");
}
