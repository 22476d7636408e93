//! How far peers may fill a shard: what is stored must stay readable.

use metrics::counter;
use stockmesh_proto::limits::{GRANT_SLOTS_MAX, REPLICAS_MAX, STOCK_SLOTS_MAX};
use stockmesh_proto::product::Product;
use stockmesh_proto::{Shard, Sku, VersionVector};
use tracing::error;

/// Replicas that claims of peers may bring a version vector to: half of what is read, so that own writes always find
/// room, and no peer makes a node's vectors unreadable with made-up replicas.
const VERSION_ENTRIES_CLAIMED_MAX: usize = REPLICAS_MAX / 2;

/// Whether a version vector may be joined with what a peer claims; if not, it is counted and reported.
pub(super) fn has_room(version: &VersionVector, claimed: &VersionVector) -> bool {
    if version.len() + claimed.len() <= VERSION_ENTRIES_CLAIMED_MAX {
        return true;
    }
    let new = claimed.iter().filter(|(replica, _)| version.get(*replica) == 0).count();
    let has_room = new == 0 || version.len() + new <= VERSION_ENTRIES_CLAIMED_MAX;
    if !has_room {
        counter!("stockmesh_claims_refused_total").increment(1);
        error!(replicas = version.len(), "a claim was not taken: the version vector would name too many replicas");
    }
    has_room
}

/// Whether no product would have more slots than can be read. Replicas that keep to their own limit never come near;
/// only a peer that makes slots up does.
pub(super) fn has_room_for(state: &Shard, products: &[(Sku, Product)]) -> bool {
    products.iter().all(|(sku, incoming)| {
        let Some(known) = state.get(sku.as_str()) else { return true };
        let (stock, grants) = (known.stock().len(), known.grants().len());
        if stock + incoming.stock().len() <= STOCK_SLOTS_MAX && grants + incoming.grants().len() <= GRANT_SLOTS_MAX {
            return true;
        }
        let mut joined = Product::clone(known);
        joined.absorb(incoming);
        joined.stock().len() <= STOCK_SLOTS_MAX && joined.grants().len() <= GRANT_SLOTS_MAX
    })
}
