//! A shard: the unit of locking, of version vectors, of reconciliation and of verification.

use std::ops::Bound;
use std::sync::Arc;

use crate::delta::{Products, bytes_max};
use crate::fingerprint::Fingerprint;
use crate::hlc::Stamp;
use crate::id::{ReplicaId, Sku};
use crate::limits::CHUNK_PRODUCTS_MAX;
use crate::product::{KeyedProduct, Product};
use crate::product_map::ProductMap;
use crate::version::VersionVector;

/// The state of one shard: its products, the version vector of the writes that they contain, and the fingerprint.
#[derive(Clone, Debug)]
pub struct Shard {
    products: ProductMap,
    version: VersionVector,
    fingerprint: Fingerprint,
    slots: u64,
}

/// What a merge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// The products that changed, in SKU order.
    pub changed: Vec<Sku>,
    /// Number of slots that changed.
    pub slots_changed: u64,
    /// Slots that changed although the version vector said that their write was contained here: each is proof that
    /// this shard had lost something, or that a replica wrote two histories (rule F4).
    pub slots_repaired: u64,
    /// The highest stamp that came in and won.
    pub stamp_max: Stamp,
}

/// A part of a shard's delta, read under one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The shard's version vector at the time of reading.
    pub version: VersionVector,
    /// The slots that the reader lacks.
    pub products: Products,
    /// Where to go on, if this is not the end.
    pub next: Option<Sku>,
}

impl Shard {
    /// An empty shard. `index_seed` should be random where strangers choose SKUs; nothing that can be observed
    /// depends on it.
    pub fn new(index_seed: u64) -> Self {
        Self {
            products: ProductMap::new(index_seed),
            version: VersionVector::new(),
            fingerprint: Fingerprint::EMPTY,
            slots: 0,
        }
    }

    /// The writes that are contained or superseded here.
    pub fn version(&self) -> &VersionVector {
        &self.version
    }

    /// The sum of the hashes of all slots.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Number of slots.
    pub fn slots(&self) -> u64 {
        self.slots
    }

    /// Number of products.
    pub fn products(&self) -> usize {
        self.products.len()
    }

    /// The product of this SKU.
    pub fn get(&self, sku: &str) -> Option<&Arc<KeyedProduct>> {
        self.products.get(sku)
    }

    /// The products from `from` on, in SKU order.
    pub fn range(&self, from: Bound<&str>) -> impl Iterator<Item = &Arc<KeyedProduct>> {
        self.products.range(from)
    }

    /// Joins slots into the shard (rule M1). The version vector stays: what a delta lets a replica claim is decided by
    /// [`Shard::claim`] and [`Shard::claim_range`].
    pub fn merge(&mut self, products: &[(Sku, Product)]) -> Merged {
        let mut merged = Merged::default();
        for (sku, incoming) in products {
            self.merge_product(sku, incoming, &mut merged);
        }
        merged
    }

    fn merge_product(&mut self, sku: &Sku, incoming: &Product, merged: &mut Merged) {
        if incoming.is_empty() {
            return;
        }
        let Some(product) = self.products.get_or_insert(sku) else { return };
        let (mut changed, mut created) = (0_u64, 0_u64);
        let mut fingerprint = self.fingerprint;
        let version = &self.version;
        product.join(incoming, sku.as_str(), &mut |change| {
            changed += 1;
            match change.hash_before {
                Some(before) => fingerprint = fingerprint.minus(before),
                None => created += 1,
            }
            fingerprint = fingerprint.plus(change.after.hash(sku.as_str()));
            if version.covers(change.dot) {
                merged.slots_repaired += 1;
            }
            merged.stamp_max = merged.stamp_max.max(change.after.stamp().unwrap_or_default());
        });
        self.fingerprint = fingerprint;
        self.slots += created;
        merged.slots_changed += changed;
        if changed > 0 {
            merged.changed.push(sku.clone());
        }
    }

    /// Claims what `version` claims (rule M2): only after a delta against this shard's vector arrived whole, or
    /// together with a state of the same fingerprint. Returns whether anything changed.
    pub fn claim(&mut self, version: &VersionVector) -> bool {
        self.version.join(version)
    }

    /// Claims the writes `from..=to` of one replica (rule M3), if they join on to what is claimed already; false means
    /// a gap: nothing was claimed.
    pub fn claim_range(&mut self, replica: ReplicaId, from: u64, to: u64) -> bool {
        if from > self.version.get(replica).saturating_add(1) {
            return false;
        }
        self.version.advance(replica, to);
        true
    }

    /// Forgets all claims, and keeps the slots: for a shard whose stored rows were damaged. It then asks its peers for
    /// everything (rule D5).
    pub fn disclaim(&mut self) {
        self.version = VersionVector::new();
    }

    /// Reads the slots whose dots `covered` does not cover, from SKU `from` on, until they would exceed
    /// `bytes_target` bytes (rule M4). With an empty vector that is the whole state.
    pub fn extract(&self, covered: &VersionVector, from: Bound<&str>, bytes_target: usize) -> Chunk {
        let mut chunk = Chunk { version: self.version.clone(), products: Vec::new(), next: None };
        let mut bytes = 0;
        for product in self.products.range(from) {
            if product.slots().all(|slot| covered.covers(slot.dot())) {
                continue;
            }
            let sku = &product.sku;
            let lacking = product.filtered(&mut |slot| !covered.covers(slot.dot()));
            bytes += bytes_max(sku, &lacking);
            let full = bytes > bytes_target || chunk.products.len() >= CHUNK_PRODUCTS_MAX;
            // A chunk is never closed empty: a product alone fits a frame unless several replicas, cut off from each
            // other, opened thousands of locations of it each.
            if full && !chunk.products.is_empty() {
                chunk.next = Some(sku.clone());
                break;
            }
            chunk.products.push((sku.clone(), lacking));
        }
        chunk
    }

    /// Number of slots whose dots the version vector does not cover: those that came by pushes with a gap before them.
    /// Costs a scan.
    pub fn slots_unclaimed(&self) -> u64 {
        let slots = self.products.range(Bound::Unbounded).flat_map(|product| product.slots());
        slots.filter(|slot| !self.version.covers(slot.dot())).fold(0, |count, _| count + 1)
    }

    /// The fingerprint computed anew from every slot. Costs a scan.
    pub fn fingerprint_recomputed(&self) -> Fingerprint {
        let mut sum = Fingerprint::EMPTY;
        for product in self.products.range(Bound::Unbounded) {
            for slot in product.slots() {
                sum = sum.plus(slot.hash(product.sku.as_str()));
            }
        }
        sum
    }
}
