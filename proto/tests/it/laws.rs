//! Laws of the lattices, and that order, duplication, grouping and encoding of deltas cannot matter.

use std::ops::Bound;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use stockmesh_proto::fingerprint::FingerprintTree;
use stockmesh_proto::hlc::Stamp;
use stockmesh_proto::product::Product;
use stockmesh_proto::register::Register;
use stockmesh_proto::wire::{BatchRecord, Message, Part, Push, PushShard, ShardRecord, SnapshotRecord};
use stockmesh_proto::{Fingerprint, Shard, ShardIndex, Sku, VersionVector};

use crate::support::generate::{counters, of_shard, price, product, products, register, shards_of, taken, version};
use crate::support::{config, replica_id, shard_count};

/// Checks the three laws of a join, and that it is the least upper bound of its order.
fn check_laws<T: Clone + PartialEq + std::fmt::Debug>(join: impl Fn(&T, &T) -> T, one: &T, two: &T, three: &T) {
    assert_eq!(join(one, two), join(two, one), "commutative");
    assert_eq!(join(&join(one, two), three), join(one, &join(two, three)), "associative");
    assert_eq!(join(one, one), *one, "idempotent");
    let both = join(one, two);
    assert_eq!(join(&both, one), both, "inflationary");
}

fn join_products(left: &Product, right: &Product) -> Product {
    let mut joined = left.clone();
    joined.absorb(right);
    joined
}

fn winner<T: Ord + Clone + Copy>(left: &Register<T>, right: &Register<T>) -> Register<T> {
    if right.wins_over(left) { *right } else { *left }
}

/// What of a shard can be observed.
type Observed = (Vec<(Sku, Product)>, VersionVector, Fingerprint, u64);

fn observed(shard: &Shard) -> Observed {
    assert_eq!(shard.fingerprint(), shard.fingerprint_recomputed(), "kept up step by step = computed anew");
    let products = shard.range(Bound::Unbounded).map(|product| (product.sku.clone(), Product::clone(product)));
    (products.collect(), shard.version().clone(), shard.fingerprint(), shard.slots())
}

/// Joins one whole shard into another: everything of it, and its claims.
fn join_shards(left: &Shard, right: &Shard) -> Shard {
    let mut joined = left.clone();
    joined.merge(&right.extract(&VersionVector::new(), Bound::Unbounded, usize::MAX).products);
    joined.claim(right.version());
    joined
}

fn shard_of(products: &[(Sku, Product)], version: &VersionVector) -> Shard {
    let mut shard = Shard::new(7);
    shard.merge(products);
    shard.claim(version);
    shard
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn counters_and_vectors_obey_the_laws(
        (one, two, three) in (counters(), counters(), counters()),
        taken in (taken(), taken(), taken()),
        (left, middle, right) in (version(), version(), version()),
    ) {
        check_laws(|left, right| left.join(*right), &one, &two, &three);
        check_laws(|left, right| left.join(*right), &taken.0, &taken.1, &taken.2);
        prop_assert!(one.join(two).dominates(one) && one.join(two).dominates(two));
        let join = |left: &VersionVector, right: &VersionVector| {
            let mut joined = left.clone();
            let changed = joined.join(right);
            assert_eq!(changed, joined != *left);
            assert!(joined.dominates(left) && joined.dominates(right));
            joined
        };
        check_laws(join, &left, &middle, &right);
    }

    /// Equal stamps, equal replicas and differing values are likely here, and must not split replicas (rule L3).
    #[test]
    fn registers_obey_the_laws(
        (one, two, three) in (register(price()), register(price()), register(price())),
        (left, middle, right) in (register(any::<bool>()), register(any::<bool>()), register(any::<bool>())),
    ) {
        check_laws(winner, &one, &two, &three);
        check_laws(winner, &left, &middle, &right);
        prop_assert!(one == two || one.wins_over(&two) != two.wins_over(&one), "the order is total");
    }

    #[test]
    fn registers_of_equal_stamp_and_replica_obey_the_laws(values in vec((price(), 1_u64..3), 3)) {
        let write = |(value, sequence): (_, u64)| {
            let dot = stockmesh_proto::id::Dot { replica: replica_id(1), sequence };
            Register { value, stamp: Stamp::from_bits(5), dot }
        };
        let [one, two, three] = [write(values[0]), write(values[1]), write(values[2])];
        check_laws(winner, &one, &two, &three);
        let joined = join_products(&Product::of_price(one), &Product::of_price(two));
        prop_assert_eq!(joined.price().copied(), Some(winner(&two, &one)));
        prop_assert!(one == two || one.wins_over(&two) != two.wins_over(&one), "the order is total");
    }

    /// What is read of a product does not depend on the order in which its slots came: rights sum to what is available, and
    /// where nobody was retired, plain sums over the slots are the sums.
    #[test]
    fn rights_sum_to_what_is_available_of_any_product(one in product(), two in product()) {
        let joined = join_products(&one, &two);
        prop_assert_eq!(join_products(&two, &one).oversold(), joined.oversold());
        let mut all = 0;
        for location in joined.locations() {
            let rights = joined.rights_at(location);
            let available = joined.available_at(location);
            prop_assert_eq!(rights.values().sum::<i128>(), available);
            prop_assert_eq!(joined.on_hand_at(location) - joined.held_at(location), available);
            for (replica, units) in rights {
                prop_assert_eq!(joined.rights(location, replica), units);
                let legacy = joined.legacy(location, replica);
                prop_assert!(legacy.rights >= units && i128::from(legacy.held) <= legacy.rights.max(0));
            }
            all += available;
        }
        prop_assert_eq!(joined.on_hand() - joined.held(), all);
        let plain: i128 = joined.stock().iter().map(|slot| slot.counters.on_hand()).sum();
        prop_assert!(!joined.inheritances().is_empty() || joined.on_hand() == plain);
    }

    #[test]
    fn products_obey_the_laws((one, two, three) in (product(), product(), product())) {
        check_laws(join_products, &one, &two, &three);
    }

    /// Products, claims and fingerprint together.
    #[test]
    fn whole_shards_obey_the_laws(states in vec((products(), version()), 3)) {
        let shards: Vec<Shard> = states.iter().map(|(products, version)| shard_of(products, version)).collect();
        let [one, two, three] = [&shards[0], &shards[1], &shards[2]];
        prop_assert_eq!(observed(&join_shards(one, two)), observed(&join_shards(two, one)));
        let left = join_shards(&join_shards(one, two), three);
        prop_assert_eq!(observed(&left), observed(&join_shards(one, &join_shards(two, three))));
        prop_assert_eq!(observed(&join_shards(one, one)), observed(one));
        prop_assert_eq!(observed(&join_shards(&left, two)), observed(&left));
    }

    /// A merge reports what it did: exactly the products that changed, and how many slots.
    #[test]
    fn a_merge_reports_what_changed(before in products(), claims in version(), delta in products()) {
        let mut shard = shard_of(&before, &claims);
        let old = shard.clone();
        let merged = shard.merge(&delta);
        let changed: Vec<Sku> = observed(&shard).0.into_iter()
            .filter(|(sku, product)| old.get(sku.as_str()).is_none_or(|old| old.product != *product))
            .map(|(sku, _)| sku)
            .collect();
        prop_assert_eq!(&merged.changed, &changed);
        prop_assert_eq!(merged.slots_changed == 0, changed.is_empty());
        prop_assert!(merged.slots_repaired <= merged.slots_changed);
        prop_assert_eq!(shard.version(), &claims, "a merge claims nothing");
        let again = shard.merge(&delta);
        prop_assert_eq!((again.slots_changed, again.changed.len()), (0, 0));
    }
}

/// Sends products through one of the encodings that deltas travel in.
fn through(encoding: usize, shard: ShardIndex, products: Vec<(Sku, Product)>) -> Vec<(Sku, Product)> {
    let (version, fingerprint) = (VersionVector::new(), Fingerprint::EMPTY);
    match encoding {
        0 => products,
        1 => {
            let part = Part { shard, version: None, products, full: false, last: true };
            match Message::decode(&Message::Part(part).encode().unwrap()[4..]).unwrap() {
                Message::Part(part) => part.products,
                other => panic!("{other:?}"),
            }
        }
        2 => {
            let part = PushShard { shard, from: 1, to: 1, products };
            let push = Push { origin: replica_id(1), told: Vec::new(), shards: vec![part] };
            match Message::decode(&Message::Push(push).encode().unwrap()[4..]).unwrap() {
                Message::Push(mut push) => push.shards.remove(0).products,
                other => panic!("{other:?}"),
            }
        }
        3 => {
            let record = ShardRecord { shard, products, version, fingerprint };
            let batch = BatchRecord { number: 1, clock: Stamp::default(), shards: vec![record] };
            BatchRecord::decode(&batch.encode().unwrap()).unwrap().shards.remove(0).products
        }
        _ => {
            let record = SnapshotRecord { shard, batch: 1, products, version, fingerprint };
            SnapshotRecord::decode(&record.encode().unwrap()).unwrap().products
        }
    }
}

/// Joins the picked deltas into one, before they are merged.
fn regrouped(deltas: &[Vec<(Sku, Product)>]) -> Vec<(Sku, Product)> {
    let mut group = std::collections::BTreeMap::<Sku, Product>::new();
    for (sku, product) in deltas.iter().flatten() {
        group.entry(sku.clone()).or_default().absorb(product);
    }
    group.into_iter().collect()
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn order_copies_groups_and_encodings_of_deltas_do_not_matter(
        deltas in vec(products(), 1..6),
        schedule in vec((any::<Index>(), any::<Index>(), 0_usize..5), 0..12),
        seeds in (any::<u64>(), any::<u64>()),
    ) {
        let shard = ShardIndex(0);
        let mut one = Shard::new(seeds.0);
        for delta in &deltas {
            one.merge(delta);
        }
        let mut two = Shard::new(seeds.1);
        for (from, to, encoding) in &schedule {
            let (from, to) = (from.index(deltas.len()), to.index(deltas.len()));
            let group = regrouped(&deltas[from.min(to)..=from.max(to)]);
            two.merge(&through(*encoding, shard, group));
        }
        // What the schedule left out comes last, in reverse.
        for (number, delta) in deltas.iter().enumerate().rev() {
            two.merge(&through(number % 5, shard, delta.clone()));
        }
        prop_assert_eq!(observed(&one), observed(&two));
    }

    /// The fingerprint tells states apart: different products, different sums.
    #[test]
    fn different_states_have_different_fingerprints(left in products(), right in products()) {
        let (one, two) = (shard_of(&left, &VersionVector::new()), shard_of(&right, &VersionVector::new()));
        prop_assert_eq!(left == right, one.fingerprint() == two.fingerprint());
    }

    #[test]
    fn the_tree_holds_the_sums_over_the_shards(deltas in vec(products(), 1..5), bits in 0_u32..7) {
        let count = shard_count(1 << bits);
        let mut tree = FingerprintTree::new(count);
        let mut shards: Vec<Shard> = count.indexes().map(|_| Shard::new(0)).collect();
        let mut whole = Shard::new(1);
        for delta in &deltas {
            whole.merge(delta);
            for shard in shards_of(delta, count) {
                shards[shard.as_usize()].merge(&of_shard(delta, count, shard));
                tree.set(shard, shards[shard.as_usize()].fingerprint());
            }
        }
        let sum = |shards: &[Shard]| {
            shards.iter().fold(Fingerprint::EMPTY, |sum, shard| sum.plus(shard.fingerprint_recomputed()))
        };
        prop_assert_eq!(tree.root(), sum(&shards));
        prop_assert_eq!(tree.root(), whole.fingerprint(), "the root does not depend on the number of shards");
        prop_assert_eq!(tree.groups().len(), FingerprintTree::group_count(count));
        for (group, shards) in tree.groups().iter().zip(shards.chunks(16)) {
            prop_assert_eq!(*group, sum(shards));
        }
        for shard in count.indexes() {
            prop_assert_eq!(tree.leaf(shard), shards[shard.as_usize()].fingerprint());
        }
    }
}
