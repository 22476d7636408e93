//! Deltas: parts of a shard's state, themselves states. Merging is the only way in.

use crate::id::{ShardIndex, Sku};
use crate::product::{GrantSlot, InheritanceSlot, Product, StockSlot};

/// Products with some of their slots, in SKU order, all of one shard.
pub type Products = Vec<(Sku, Product)>;

/// A part of one shard's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardDelta {
    /// The shard.
    pub shard: ShardIndex,
    /// The products, in strict SKU order, each with the slots that the delta holds.
    pub products: Products,
}

/// Number of slots in a list of products.
pub fn slot_count(products: &[(Sku, Product)]) -> usize {
    products.iter().map(|(_, product)| product.slot_count()).sum()
}

/// Two numbers of at most 5 bytes and five of at most 9, and a header.
const STOCK_BYTES: usize = 56;
/// Three numbers of at most 5 bytes and two of at most 9, and a header.
const GRANT_BYTES: usize = 34;
/// Three numbers of at most 5 bytes and five of at most 9, a flag, a header, and the header of the list.
const INHERITANCE_BYTES: usize = 68;
const REGISTER_BYTES: usize = 40;
const NAME_BYTES: usize = 2 + 9;

/// Most bytes that a product can take on the wire: used to close chunks, so that each fits a frame.
pub fn bytes_max(sku: &Sku, product: &Product) -> usize {
    let stock = product.stock().iter().map(stock_bytes_max);
    let grants = product.grants().iter().map(grant_bytes_max);
    let inheritances: usize = product.inheritances().iter().map(inheritance_bytes_max).sum();
    let slots = stock.sum::<usize>() + grants.sum::<usize>() + inheritances;
    sku.as_str().len() + NAME_BYTES + 2 * REGISTER_BYTES + slots
}

/// The same of the join of two products, without building it.
pub fn bytes_max_joined(sku: &Sku, known: &Product, incoming: &Product) -> usize {
    let stock = incoming.stock().iter().filter(|slot| !known.has_stock(slot)).map(stock_bytes_max);
    let grants = incoming.grants().iter().filter(|slot| !known.has_grant(slot)).map(grant_bytes_max);
    let inheritances = incoming.inheritances().iter().filter(|slot| !known.has_inheritance(slot));
    let inheritances: usize = inheritances.map(inheritance_bytes_max).sum();
    bytes_max(sku, known) + stock.sum::<usize>() + grants.sum::<usize>() + inheritances
}

fn stock_bytes_max(slot: &StockSlot) -> usize {
    STOCK_BYTES + NAME_BYTES + slot.location.as_str().len()
}

fn grant_bytes_max(slot: &GrantSlot) -> usize {
    GRANT_BYTES + 2 * NAME_BYTES + slot.location.as_str().len()
}

fn inheritance_bytes_max(slot: &InheritanceSlot) -> usize {
    INHERITANCE_BYTES + 2 * NAME_BYTES + slot.location.as_str().len()
}
