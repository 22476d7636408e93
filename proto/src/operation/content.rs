//! The hash of a request's content, by which a retry is told from another request of the same reference (rule O4).
//!
//! It is stored, so its bytes are as frozen as those of the wire.

use xxhash_rust::xxh3::Xxh3Default;

use super::{Operation, OversellPolicy};
use crate::hold::HoldId;
use crate::id::{Location, Sku};

struct Content(Xxh3Default);

impl Content {
    fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        // All names are far below 2^32 bytes, so the length cannot be cut.
        self.number(u64::try_from(text.len()).unwrap_or(u64::MAX));
        self.0.update(text.as_bytes());
        self
    }

    fn begin(&mut self, tag: u64, sku: &Sku, location: Option<&Location>) -> &mut Self {
        self.number(tag).text(sku.as_str()).text(location.map(Location::as_str).unwrap_or_default())
    }

    fn hold(&mut self, tag: u64, id: &HoldId) -> &mut Self {
        self.number(tag).number(id.replica.bits()).number(u64::from(id.shard.0)).number(id.sequence)
    }

    fn operation(&mut self, operation: &Operation) {
        match operation {
            Operation::Receive { sku, location, units } => self.begin(1, sku, Some(location)).number(units.get()),
            Operation::Adjust { sku, location, units, reason } => self
                .begin(2, sku, Some(location))
                .number(u64::from(*units < 0))
                .number(units.unsigned_abs())
                .text(reason.label()),
            Operation::Stocktake { sku, location, counted } => self.begin(3, sku, Some(location)).number(*counted),
            Operation::Sell { sku, location, units, policy } => self
                .begin(4, sku, Some(location))
                .number(units.get())
                .number(u64::from(*policy == OversellPolicy::Backorder)),
            Operation::Hold { sku, location, units, ttl_ms } => {
                self.begin(5, sku, Some(location)).number(units.get()).number(*ttl_ms)
            }
            Operation::CommitHold { id, units } => self.hold(6, id).number(units.map_or(0, |units| units.get())),
            Operation::ReleaseHold { id } => self.hold(7, id),
            Operation::ExpireHold { id } => self.hold(8, id),
            Operation::Transfer { sku, from, to, units } => {
                self.begin(9, sku, Some(from)).text(to.as_str()).number(units.get())
            }
            Operation::Grant { sku, location, to, units } => {
                self.begin(10, sku, Some(location)).number(to.bits()).number(*units)
            }
            Operation::Inherit { sku, location, from } => self.begin(13, sku, Some(location)).number(from.bits()),
            Operation::Reapply { sku, location, from } => self.begin(14, sku, Some(location)).number(from.bits()),
            Operation::SetPrice { sku, price } => self
                .begin(11, sku, None)
                .number(price.units())
                .number(u64::from(price.scale()))
                .text(price.currency().code()),
            Operation::SetListed { sku, listed } => self.begin(12, sku, None).number(u64::from(*listed)),
        };
    }
}

/// XXH3-128, seed 0, of the operations' bytes. Collisions of what callers choose on purpose are their own loss: a
/// reference names their own request.
pub(super) fn hash(operations: &[Operation]) -> u128 {
    let mut content = Content(Xxh3Default::new());
    operations.iter().for_each(|operation| content.operation(operation));
    content.0.digest128()
}
