//! Generators. Names and numbers come from small sets, so that slots meet; extremes are among them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use stockmesh_proto::counter::Counters;
use stockmesh_proto::hlc::Stamp;
use stockmesh_proto::id::Dot;
use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::Operation;
use stockmesh_proto::product::{GrantSlot, InheritanceSlot, Product, StockSlot, Taken};
use stockmesh_proto::register::Register;
use stockmesh_proto::{Currency, Location, Price, ReplicaId, ShardCount, ShardIndex, Sku, VersionVector};

use super::{location, replica_id, sku};

pub(crate) fn any_replica() -> impl Strategy<Value = ReplicaId> {
    prop_oneof![4 => 1_u64..=4, 1 => Just(u64::MAX), 1 => any::<u64>()].prop_map(replica_id)
}

pub(crate) fn any_location() -> impl Strategy<Value = Location> {
    prop_oneof![4 => "[ab]", 1 => Just("ü".repeat(32)), 1 => "[a-z]{1,64}"].prop_map(|name| location(&name))
}

pub(crate) fn any_sku() -> impl Strategy<Value = Sku> {
    prop_oneof![8 => "[A-F]", 1 => Just("€".repeat(42)), 1 => "[A-Z]{1,128}"].prop_map(|name| sku(&name))
}

/// Small numbers, which meet, and the edges of each length on the wire.
pub(crate) fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0_u64..6,
        1 => prop::sample::select(vec![127, 128, 255, 256, 65_535, 65_536, u64::from(u32::MAX), 1 << 32, u64::MAX]),
        1 => any::<u64>(),
    ]
}

pub(crate) fn sequence() -> impl Strategy<Value = u64> {
    number().prop_map(|number| number.max(1))
}

pub(crate) fn counters() -> impl Strategy<Value = Counters> {
    (number(), number(), number(), number()).prop_map(|(added, removed, one, other)| Counters {
        added,
        removed,
        held: one.max(other),
        released: one.min(other),
    })
}

pub(crate) fn dot() -> impl Strategy<Value = Dot> {
    (any_replica(), sequence()).prop_map(|(replica, sequence)| Dot { replica, sequence })
}

pub(crate) fn stamp() -> impl Strategy<Value = Stamp> {
    prop_oneof![4 => 0_u64..3, 1 => any::<u64>()].prop_map(Stamp::from_bits)
}

pub(crate) fn price() -> impl Strategy<Value = Price> {
    let units = prop_oneof![4 => 0_u64..3, 1 => 0..=1_000_000_000_000_000_000_u64];
    let currency = prop::sample::select(vec![Currency::EUR, Currency::USD, Currency::JPY]);
    (units, 0_u8..=9, currency).prop_map(|(units, scale, currency)| Price::from_parts(units, scale, currency).unwrap())
}

pub(crate) fn register<T: std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Register<T>> {
    (value, stamp(), dot()).prop_map(|(value, stamp, dot)| Register { value, stamp, dot })
}

pub(crate) fn taken() -> impl Strategy<Value = Taken> {
    (number(), number(), number(), number(), any::<bool>()).prop_map(|(added, removed, rights, owed, is_heir)| Taken {
        added,
        removed,
        rights,
        owed,
        is_heir,
    })
}

fn inheritance() -> impl Strategy<Value = InheritanceSlot> {
    (any_location(), any_replica(), any_replica(), sequence(), taken())
        .prop_map(|(location, from, to, sequence, taken)| InheritanceSlot { location, from, to, sequence, taken })
}

/// Any product, whether or not honest replicas could make it.
pub(crate) fn product() -> impl Strategy<Value = Product> {
    let stock = vec((any_location(), any_replica(), sequence(), counters()), 0..4);
    let grants = vec((any_location(), any_replica(), any_replica(), sequence(), number()), 0..3);
    // Few products have inheritances; those that do have several of the same location.
    let inheritances = prop_oneof![2 => Just(Vec::new()), 1 => vec(inheritance(), 0..4)];
    let registers = (option::of(register(price())), option::of(register(any::<bool>())));
    (stock, grants, registers, inheritances).prop_map(|(stock, grants, (price, listed), inheritances)| {
        let stock: BTreeMap<_, _> = stock
            .into_iter()
            .map(|(location, replica, sequence, counters)| {
                ((location.clone(), replica), StockSlot { location, replica, sequence, counters })
            })
            .collect();
        let grants: BTreeMap<_, _> = grants
            .into_iter()
            .map(|(location, from, to, sequence, units)| {
                ((location.clone(), from, to), GrantSlot { location, from, to, sequence, units })
            })
            .collect();
        let inheritances: BTreeMap<_, _> = inheritances
            .into_iter()
            .filter(|slot| slot.from != slot.to)
            .map(|slot| ((slot.location.clone(), slot.from, slot.to), slot))
            .collect();
        let (stock, grants) = (stock.into_values().collect(), grants.into_values().collect());
        let product = Product::from_slots(stock, grants, price, listed).unwrap();
        product.with_inheritances(inheritances.into_values().collect()).unwrap()
    })
}

/// A delta: products in SKU order, none empty.
pub(crate) fn products() -> impl Strategy<Value = Vec<(Sku, Product)>> {
    prop::collection::btree_map(any_sku(), product(), 0..5)
        .prop_map(|products| products.into_iter().filter(|(_, product)| !product.is_empty()).collect())
}

pub(crate) fn version() -> impl Strategy<Value = VersionVector> {
    vec((any_replica(), sequence()), 0..5).prop_map(|entries| entries.into_iter().collect())
}

/// SKUs that spread over four shards, two of them in one.
pub(crate) const SKUS: [&str; 6] = ["A", "B", "C", "D", "E", "F"];
const LOCATIONS: [&str; 2] = ["x", "y"];

pub(crate) fn operation() -> impl Strategy<Value = Operation> {
    let sku = prop::sample::select(&SKUS[..]).prop_map(sku);
    let location = prop::sample::select(&LOCATIONS[..]).prop_map(location);
    (sku, location, 0_u8..6, 0_u64..50, any::<bool>()).prop_map(|(sku, location, kind, amount, flag)| match kind {
        0 | 1 => {
            let units = i64::try_from(amount).unwrap();
            Operation::Adjust { sku, location, units: if flag { units } else { -units }, reason: Reason::Correction }
        }
        2 => Operation::Stocktake { sku, location, counted: amount },
        3 | 4 => Operation::SetPrice { sku, price: super::euros(amount) },
        _ => Operation::SetListed { sku, listed: flag },
    })
}

pub(crate) fn operations() -> impl Strategy<Value = Vec<Operation>> {
    vec(operation(), 1..4)
}

/// The products of a list that lie in one shard.
pub(crate) fn of_shard(products: &[(Sku, Product)], count: ShardCount, shard: ShardIndex) -> Vec<(Sku, Product)> {
    products.iter().filter(|(sku, _)| count.shard_of(sku) == shard).cloned().collect()
}

/// The shards that products of a list lie in.
pub(crate) fn shards_of(products: &[(Sku, Product)], count: ShardCount) -> BTreeSet<ShardIndex> {
    products.iter().map(|(sku, _)| count.shard_of(sku)).collect()
}
