//! The products of one shard: looked up by hash, walked in SKU order, never removed.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::id::Sku;
use crate::product::Product;

/// Products by SKU. A product is behind an `Arc` so that a reader takes a consistent view of it for the price of a
/// reference count; a writer copies it only while such a view is alive.
///
/// The hash index is seeded by the caller, so that chosen SKUs cannot make it slow. Nothing that can be observed
/// depends on the seed: walks go by the ordered index alone.
#[derive(Clone, Debug)]
pub(crate) struct ProductMap {
    index: HashTable<u32>,
    entries: Vec<(Sku, Arc<Product>)>,
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

    pub(crate) fn get(&self, sku: &str) -> Option<&Arc<Product>> {
        let position = self.position(sku)?;
        self.entries.get(position).map(|(_, product)| product)
    }

    /// The product, made if it is missing; `None` only if 2^32 products are reached.
    pub(crate) fn get_or_insert(&mut self, sku: &Sku) -> Option<&mut Arc<Product>> {
        let position = match self.position(sku.as_str()) {
            Some(position) => position,
            None => self.insert_empty(sku)?,
        };
        self.entries.get_mut(position).map(|(_, product)| product)
    }

    /// The products from `from` on, in SKU order.
    pub(crate) fn range(&self, from: Bound<&str>) -> impl Iterator<Item = (&Sku, &Arc<Product>)> {
        self.order
            .range::<str, _>((from, Bound::Unbounded))
            .filter_map(|(sku, number)| Some((sku, &self.entries.get(usize::try_from(*number).ok()?)?.1)))
    }

    fn insert_empty(&mut self, sku: &Sku) -> Option<usize> {
        let position = self.entries.len();
        let number = u32::try_from(position).ok()?;
        let Self { index, entries, order, index_seed } = self;
        entries.push((sku.clone(), Arc::default()));
        order.insert(sku.clone(), number);
        let hash = hash_of(*index_seed, sku.as_str());
        index.insert_unique(hash, number, |number| {
            let entry = usize::try_from(*number).ok().and_then(|position| entries.get(position));
            entry.map_or(0, |(sku, _)| hash_of(*index_seed, sku.as_str()))
        });
        Some(position)
    }

    fn position(&self, sku: &str) -> Option<usize> {
        let same = |number: &u32| {
            let entry = usize::try_from(*number).ok().and_then(|position| self.entries.get(position));
            entry.is_some_and(|(candidate, _)| candidate.as_str() == sku)
        };
        let number = self.index.find(hash_of(self.index_seed, sku), same)?;
        usize::try_from(*number).ok()
    }
}

fn hash_of(seed: u64, sku: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(sku.as_bytes(), seed)
}
