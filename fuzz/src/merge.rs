//! Typed deltas, merged in two orders, groupings and encodings: one state, one fingerprint.

use std::collections::BTreeMap;
use std::ops::Bound;

use arbitrary::{Arbitrary, Result, Unstructured};
use stockmesh_proto::check::shows_retirement;
use stockmesh_proto::delta::{Products, bytes_max, bytes_max_joined, slot_count};
use stockmesh_proto::product::Product;
use stockmesh_proto::wire::{Message, Part};
use stockmesh_proto::{Shard, ShardIndex, Sku, VersionVector};

use crate::input::{products, version};

#[derive(Debug)]
struct Input {
    deltas: Vec<Products>,
    claims: Vec<VersionVector>,
    /// Ranges of deltas that are joined first and then merged as one, encoded or not.
    groups: Vec<(usize, usize, bool)>,
    seed: u64,
}

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let count = 1 + usize::from(u8::arbitrary(input)? % 6);
        let deltas = (0..count).map(|_| products(input)).collect::<Result<Vec<_>>>()?;
        let claims = (0..count).map(|_| version(input)).collect::<Result<Vec<_>>>()?;
        let mut groups = Vec::new();
        for _ in 0..u8::arbitrary(input)? % 8 {
            let (from, to) = (usize::arbitrary(input)? % count, usize::arbitrary(input)? % count);
            groups.push((from.min(to), from.max(to), bool::arbitrary(input)?));
        }
        Ok(Self { deltas, claims, groups, seed: u64::arbitrary(input)? })
    }
}

/// Runs one input.
pub fn run(data: &[u8]) {
    let Ok(input) = Input::arbitrary(&mut Unstructured::new(data)) else { return };
    let (mut one, mut two) = (Shard::new(0), Shard::new(input.seed));
    for (delta, claim) in input.deltas.iter().zip(&input.claims) {
        merge(&mut one, delta);
        one.claim(claim);
        for (replica, sequence) in claim.iter() {
            assert!(one.claim_range(replica, 1, sequence), "what is claimed joins on");
        }
        assert!(one.version().dominates(claim) && one.version().is_empty() == one.version().iter().next().is_none());
    }
    for (from, to, encoded) in &input.groups {
        let mut group = BTreeMap::<Sku, Product>::new();
        for (sku, product) in input.deltas[*from..=*to].iter().flatten() {
            group.entry(sku.clone()).or_default().absorb(product);
        }
        let group: Products = group.into_iter().collect();
        merge(&mut two, &if *encoded { through_the_wire(group) } else { group });
    }
    for (delta, claim) in input.deltas.iter().zip(&input.claims).rev() {
        two.claim(claim);
        merge(&mut two, delta);
    }
    assert_eq!(everything(&one), everything(&two));
    assert_eq!((one.version(), one.fingerprint(), one.slots()), (two.version(), two.fingerprint(), two.slots()));
    // A whole copy is one more delta, and so is every part of it.
    let mut copy = Shard::new(1);
    let mut from = None::<Sku>;
    loop {
        let bound = from.as_ref().map_or(Bound::Unbounded, |sku| Bound::Included(sku.as_str()));
        let chunk = one.extract(&VersionVector::new(), bound, 100);
        merge(&mut copy, &chunk.products);
        copy.claim(&chunk.version);
        match chunk.next {
            Some(next) => from = Some(next),
            None => break,
        }
    }
    assert_eq!((copy.version(), copy.fingerprint()), (one.version(), one.fingerprint()));
    // What the vector covers is left out of the delta for it, everything else is in it.
    let delta = one.extract(one.version(), Bound::Unbounded, usize::MAX).products;
    assert_eq!(u64::try_from(slot_count(&delta)).unwrap(), one.slots_unclaimed());
    // Without claims, everything is lacking.
    one.disclaim();
    assert_eq!(one.slots_unclaimed(), one.slots());
    assert_eq!(one.products(), everything(&one).len());
}

fn merge(shard: &mut Shard, delta: &Products) {
    for (sku, incoming) in delta {
        let known = shard.get(sku.as_str()).map(|keyed| keyed.product.clone()).unwrap_or_default();
        let joined = [(sku.clone(), joined(&known, incoming))];
        assert!(bytes_max(sku, &joined[0].1) <= bytes_max_joined(sku, &known, incoming), "an estimate is too low");
        for slot in incoming.stock() {
            assert!(joined[0].1.counters(&slot.location, slot.replica).dominates(slot.counters));
        }
        let named = incoming.inheritances().first().map(|slot| slot.from);
        assert!(named.is_none_or(|from| shows_retirement(from, delta)));
        // A frame with a head of less than this, and the three lists' own heads.
        assert!(encoded(joined.to_vec()).len() <= 64 + bytes_max(sku, &joined[0].1), "an estimate is too low");
    }
    let before = shard.fingerprint();
    let merged = shard.merge(delta);
    assert_eq!(shard.fingerprint(), shard.fingerprint_recomputed());
    assert_eq!(merged.slots_changed == 0, shard.fingerprint() == before);
    assert_eq!(shard.merge(delta).slots_changed, 0, "idempotent");
}

fn joined(left: &Product, right: &Product) -> Product {
    let mut joined = left.clone();
    joined.absorb(right);
    joined
}

fn encoded(products: Products) -> Vec<u8> {
    let part = Part { shard: ShardIndex(0), version: None, products, full: false, last: true };
    Message::Part(part).encode().unwrap()
}

fn through_the_wire(products: Products) -> Products {
    match Message::decode(&encoded(products)[4..]).unwrap() {
        Message::Part(part) => part.products,
        other => panic!("{other:?}"),
    }
}

fn everything(shard: &Shard) -> Products {
    shard.range(Bound::Unbounded).map(|product| (product.sku.clone(), Product::clone(product))).collect()
}
