//! Requests made from the fuzzer's bytes, about what there is more often than not.

use arbitrary::{Arbitrary, Result, Unstructured};
use stockmesh_proto::hold::HoldId;
use stockmesh_proto::limits::QUANTITY_MAX;
use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::{Books, Operation, OversellPolicy, Request};
use stockmesh_proto::{Location, Quantity, Reference, ReplicaId, Shard, ShardIndex, Sku};

use crate::input::{location, number, price, replica, sku as one_of_few};

const OPERATIONS_MAX: u8 = 8;
/// Beyond so many, the products that a request wrote are kept in another way.
const MANY: u8 = 40;

/// One of few products mostly, so that slots meet; else one of many.
pub(super) fn sku(input: &mut Unstructured<'_>) -> Result<Sku> {
    let byte = u8::arbitrary(input)?;
    if byte < 192 { one_of_few(input) } else { Ok(numbered(byte)) }
}

fn numbered(number: u8) -> Sku {
    Sku::new(&format!("P-{number}")).unwrap()
}

fn units(input: &mut Unstructured<'_>) -> Result<Quantity> {
    Ok(Quantity::new((number(input)? % (QUANTITY_MAX + 1)).max(1)).unwrap())
}

fn signed(input: &mut Unstructured<'_>) -> Result<i64> {
    let units = i64::from_ne_bytes(number(input)?.to_ne_bytes());
    Ok(if bool::arbitrary(input)? { units } else { units.saturating_neg() })
}

/// A hold that the books know mostly.
fn hold(books: &Books, own: ReplicaId, input: &mut Unstructured<'_>) -> Result<HoldId> {
    let which = u8::arbitrary(input)?;
    let known: Vec<HoldId> = books.holds().map(|hold| hold.id).collect();
    if which < 224 && !known.is_empty() {
        return Ok(known[usize::from(which) % known.len()]);
    }
    let replica = if which % 2 == 0 { own } else { replica(input)? };
    Ok(HoldId { replica, shard: ShardIndex(u16::from(which % 4 / 3)), sequence: number(input)? })
}

/// A number as it is, or as a part of what is held: by chance it hardly ever is one.
fn part_of_hold(books: &Books, id: HoldId, units: Quantity) -> Quantity {
    let held = books.hold(id).map_or(0, |hold| hold.units);
    let part = Quantity::new(1 + units.get() % held.max(1)).unwrap();
    if units.get().is_multiple_of(4) || held == 0 { units } else { part }
}

/// Whoever may be inherited from: those that the product names mostly.
fn other(table: &Shard, sku: &Sku, input: &mut Unstructured<'_>) -> Result<ReplicaId> {
    let which = usize::from(u8::arbitrary(input)?);
    let named = table.get(sku.as_str()).map(|keyed| {
        let stock = keyed.product.stock().iter().map(|slot| slot.replica);
        stock.chain(keyed.product.inheritances().iter().map(|slot| slot.from)).collect::<Vec<_>>()
    });
    match named.filter(|named| which < 224 && !named.is_empty()) {
        Some(named) => Ok(named[which % named.len()]),
        None => replica(input),
    }
}

fn operation(books: &Books, table: &Shard, own: ReplicaId, input: &mut Unstructured<'_>) -> Result<Operation> {
    let (kind, sku) = (u8::arbitrary(input)? % 18, sku(input)?);
    let reasons = [Reason::Sold, Reason::Returned, Reason::Damaged, Reason::Lost, Reason::Found, Reason::Correction];
    let (place, sell_policy) = (location(input)?, [OversellPolicy::Refuse, OversellPolicy::Backorder]);
    Ok(match kind {
        0..3 => Operation::Receive { sku, location: place, units: units(input)? },
        3 => Operation::Adjust { sku, location: place, units: signed(input)?, reason: *input.choose(&reasons)? },
        4 => Operation::Stocktake { sku, location: place, counted: number(input)? },
        5 | 6 => Operation::Sell { sku, location: place, units: units(input)?, policy: *input.choose(&sell_policy)? },
        7 | 8 => Operation::Hold { sku, location: place, units: units(input)?, ttl_ms: number(input)? },
        9 => {
            let units = if bool::arbitrary(input)? { Some(units(input)?) } else { None };
            let id = hold(books, own, input)?;
            Operation::CommitHold { id, units: units.map(|units| part_of_hold(books, id, units)) }
        }
        10 => Operation::ReleaseHold { id: hold(books, own, input)? },
        11 => Operation::ExpireHold { id: hold(books, own, input)? },
        12 => Operation::Transfer { sku, from: place, to: location(input)?, units: units(input)? },
        13 => Operation::Grant { sku, location: place, to: replica(input)?, units: number(input)? },
        14 => Operation::Inherit { from: other(table, &sku, input)?, sku, location: place },
        15 => Operation::Reapply { from: other(table, &sku, input)?, sku, location: place },
        16 => Operation::SetPrice { sku, price: price(input)? },
        _ => Operation::SetListed { sku, listed: bool::arbitrary(input)? },
    })
}

pub(super) fn request(books: &Books, table: &Shard, own: ReplicaId, input: &mut Unstructured<'_>) -> Result<Request> {
    let bits = u8::arbitrary(input)?;
    let count = 1 + bits % OPERATIONS_MAX;
    let mut operations = (0..count).map(|_| operation(books, table, own, input)).collect::<Result<Vec<_>>>()?;
    if bits > 250 {
        let listed = |number: u8| Operation::SetListed { sku: numbered(number), listed: number.is_multiple_of(2) };
        operations.extend((0..MANY).map(listed));
    }
    let reference = match bits / 16 {
        number @ 0..6 => Some(Reference::new(&format!("order-{number}")).unwrap()),
        _ => None,
    };
    Ok(Request { operations, reference, may_backorder: bits % 16 < 12 })
}

/// Where an operation takes units.
pub(super) fn places(operation: &Operation) -> Vec<(&Sku, &Location)> {
    match operation {
        Operation::Sell { sku, location, .. }
        | Operation::Hold { sku, location, .. }
        | Operation::Grant { sku, location, .. }
        | Operation::Transfer { sku, from: location, .. } => vec![(sku, location)],
        _ => Vec::new(),
    }
}
