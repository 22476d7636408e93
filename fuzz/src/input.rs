//! Typed inputs that the targets share, made from the fuzzer's bytes. Names come from small sets, so that slots meet.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Result, Unstructured};
use stockmesh_proto::counter::Counters;
use stockmesh_proto::delta::Products;
use stockmesh_proto::hlc::Stamp;
use stockmesh_proto::id::Dot;
use stockmesh_proto::product::{GrantSlot, InheritanceSlot, Product, StockSlot, Taken};
use stockmesh_proto::register::Register;
use stockmesh_proto::{Currency, Location, Price, ReplicaId, Sku, VersionVector};

/// Small numbers mostly, any number at times.
pub(crate) fn number(input: &mut Unstructured<'_>) -> Result<u64> {
    let byte = u8::arbitrary(input)?;
    if byte < 224 { Ok(u64::from(byte % 8)) } else { u64::arbitrary(input) }
}

pub(crate) fn replica(input: &mut Unstructured<'_>) -> Result<ReplicaId> {
    Ok(ReplicaId::from_random(number(input)?))
}

pub(crate) fn location(input: &mut Unstructured<'_>) -> Result<Location> {
    Ok(Location::new(input.choose(&["x", "y", "a place with a name that is not short"])?).unwrap())
}

/// The names of products: they spread over the four shards of the session target.
pub(crate) const SKUS: [&str; 8] = ["A", "B", "C", "D", "E", "F", "a name that is longer than a small string", "ü"];

pub(crate) fn sku(input: &mut Unstructured<'_>) -> Result<Sku> {
    Ok(Sku::new(input.choose(&SKUS)?).unwrap())
}

fn dot(input: &mut Unstructured<'_>) -> Result<Dot> {
    Ok(Dot { replica: replica(input)?, sequence: number(input)?.max(1) })
}

fn counters(input: &mut Unstructured<'_>) -> Result<Counters> {
    let (added, removed, one, other) = (number(input)?, number(input)?, number(input)?, number(input)?);
    Ok(Counters { added, removed, held: one.max(other), released: one.min(other) })
}

fn register<T>(input: &mut Unstructured<'_>, value: T) -> Result<Register<T>> {
    Ok(Register { value, stamp: Stamp::from_bits(number(input)?), dot: dot(input)? })
}

pub(crate) fn price(input: &mut Unstructured<'_>) -> Result<Price> {
    let units = number(input)? % 1_000_000_000_000_000_001;
    let currency = *input.choose(&[Currency::EUR, Currency::USD, Currency::JPY])?;
    Ok(Price::from_parts(units, u8::arbitrary(input)? % 10, currency).unwrap())
}

pub(crate) fn version(input: &mut Unstructured<'_>) -> Result<VersionVector> {
    let count = u8::arbitrary(input)? % 5;
    (0..count).map(|_| Ok((replica(input)?, number(input)?.max(1)))).collect()
}

/// Any slots of a product, whether or not honest replicas could make them.
pub(crate) fn product(input: &mut Unstructured<'_>) -> Result<Product> {
    let mut product = Product::default();
    let few = u8::arbitrary(input)?;
    // Now and then many, which are joined in another way.
    for _ in 0..(if few < 240 { few % 4 } else { few % 32 }) {
        let (location, replica) = (location(input)?, replica(input)?);
        let (sequence, counters) = (number(input)?.max(1), counters(input)?);
        product.absorb(&Product::of_stock(StockSlot { location, replica, sequence, counters }));
    }
    for _ in 0..u8::arbitrary(input)? % 3 {
        let (location, from, to) = (location(input)?, replica(input)?, replica(input)?);
        let grant = GrantSlot { location, from, to, sequence: number(input)?.max(1), units: number(input)? };
        product.absorb(&Product::from_slots(Vec::new(), vec![grant], None, None).unwrap());
    }
    for _ in 0..u8::arbitrary(input)? % 3 {
        let (location, from, to, sequence) =
            (location(input)?, replica(input)?, replica(input)?, number(input)?.max(1));
        let (added, removed, rights, owed) = (number(input)?, number(input)?, number(input)?, number(input)?);
        let taken = Taken { added, removed, rights, owed, is_heir: bool::arbitrary(input)? };
        if from != to {
            product.absorb(&Product::of_inheritance(InheritanceSlot { location, from, to, sequence, taken }));
        }
    }
    if bool::arbitrary(input)? {
        let price = price(input)?;
        product.absorb(&Product::of_price(register(input, price)?));
    }
    if bool::arbitrary(input)? {
        let listed = bool::arbitrary(input)?;
        product.absorb(&Product::of_listed(register(input, listed)?));
    }
    Ok(product)
}

/// A delta: products in SKU order, none empty.
pub(crate) fn products(input: &mut Unstructured<'_>) -> Result<Products> {
    let mut products = BTreeMap::<Sku, Product>::new();
    for _ in 0..u8::arbitrary(input)? % 5 {
        products.entry(sku(input)?).or_default().absorb(&product(input)?);
    }
    Ok(products.into_iter().filter(|(_, product)| !product.is_empty()).collect())
}
