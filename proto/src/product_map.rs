//! The products of one shard: looked up by hash, walked in SKU order, never removed.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::id::Sku;
use crate::product::{KeyedProduct, Product};

/// Products by SKU. A product is behind an `Arc` so that a reader takes a consistent view of it for the price of a
/// reference count; a writer copies it only while such a view is alive.
///
/// The hash index is seeded by the caller, so that chosen SKUs cannot make it slow. Nothing that can be observed
/// depends on the seed: walks go by the ordered index alone.
#[derive(Clone, Debug)]
pub(crate) struct ProductMap {
    index: HashTable<u32>,
    entries: Vec<Arc<KeyedProduct>>,
    order: BTreeMap<Sku, u32>,
    index_seed: u64,
}

impl ProductMap {
    pub(crate) fn new(index_seed: u64) -> Self {
        Self { index: HashTable::new(), entries: Vec::new(), order: BTreeMap::new(), index_seed }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn get(&self, sku: &str) -> Option<&Arc<KeyedProduct>> {
        self.entries.get(self.position(sku)?)
    }

    /// The product, made if it is missing; `None` only if 2^32 products are reached.
    pub(crate) fn get_or_insert(&mut self, sku: &Sku) -> Option<&mut Product> {
        let position = match self.position(sku.as_str()) {
            Some(position) => position,
            None => self.insert_empty(sku)?,
        };
        // A copy is made only while a reader holds a view of this product.
        self.entries.get_mut(position).map(|entry| &mut Arc::make_mut(entry).product)
    }

    /// The products from `from` on, in SKU order.
    pub(crate) fn range(&self, from: Bound<&str>) -> impl Iterator<Item = &Arc<KeyedProduct>> {
        self.order
            .range::<str, _>((from, Bound::Unbounded))
            .filter_map(|(_, number)| self.entries.get(usize::try_from(*number).ok()?))
    }

    fn insert_empty(&mut self, sku: &Sku) -> Option<usize> {
        let position = self.entries.len();
        let number = u32::try_from(position).ok()?;
        let Self { index, entries, order, index_seed } = self;
        entries.push(Arc::new(KeyedProduct { sku: sku.clone(), product: Product::default() }));
        order.insert(sku.clone(), number);
        let hash = hash_of(*index_seed, sku.as_str());
        index.insert_unique(hash, number, |number| {
            let entry = usize::try_from(*number).ok().and_then(|position| entries.get(position));
            entry.map_or(0, |entry| hash_of(*index_seed, entry.sku.as_str()))
        });
        Some(position)
    }

    fn position(&self, sku: &str) -> Option<usize> {
        let same = |number: &u32| {
            let entry = usize::try_from(*number).ok().and_then(|position| self.entries.get(position));
            entry.is_some_and(|entry| entry.sku.as_str() == sku)
        };
        let number = self.index.find(hash_of(self.index_seed, sku), same)?;
        usize::try_from(*number).ok()
    }
}

fn hash_of(seed: u64, sku: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(sku.as_bytes(), seed)
}
