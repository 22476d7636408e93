//! Queries: products in SKU order, merged over the shards with bounded memory.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use stockmesh_proto::product::KeyedProduct;
use stockmesh_proto::{ShardIndex, Sku};

use crate::limits::PAGE_PRODUCTS;
use crate::table::Table;
use crate::view::ProductView;

/// Selects products. Made by [`Store::query`](crate::Store::query); without a condition it selects all.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
/// store.batch().receive("MUG-01", 3)?.receive("MUG-02", 30)?.receive("PLATE-07", 4)?.commit().await?;
///
/// let scarce: Vec<String> =
///     store.query().prefix("MUG").available_below(10).iter().map(|product| product.sku().to_string()).collect();
/// assert_eq!(scarce, ["MUG-01"]);
/// assert_eq!(store.query().iter().count(), 3);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Query {
    table: Arc<Table>,
    prefix: String,
    available_below: Option<i128>,
}

impl Query {
    pub(crate) fn new(table: Arc<Table>) -> Self {
        Self { table, prefix: String::new(), available_below: None }
    }

    /// Only products whose SKU starts with `prefix`, byte by byte. Found without a scan.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// Only products of which fewer than `units` are available, at all locations together. Costs a scan of those that
    /// the prefix leaves.
    #[must_use]
    pub fn available_below(mut self, units: i128) -> Self {
        self.available_below = Some(units);
        self
    }

    /// The products in SKU order. Each is a consistent view; products that change meanwhile may show either state.
    /// Memory is bounded by 32 products per shard; no lock is held between two steps.
    pub fn iter(&self) -> Products {
        Products {
            pages: self.table.count().indexes().map(|shard| Page::start(shard, &self.prefix)).collect(),
            heads: BinaryHeap::new(),
            started: false,
            query: self.clone(),
        }
    }
}

impl IntoIterator for &Query {
    type Item = ProductView;
    type IntoIter = Products;
    fn into_iter(self) -> Products {
        self.iter()
    }
}

/// The products of a query, in SKU order.
#[derive(Debug)]
pub struct Products {
    query: Query,
    pages: Vec<Page>,
    /// The first unread SKU of each shard that has one.
    heads: BinaryHeap<Reverse<(Sku, usize)>>,
    started: bool,
}

/// The part of one shard that was read ahead.
#[derive(Debug)]
struct Page {
    shard: ShardIndex,
    products: VecDeque<Arc<KeyedProduct>>,
    next: Bound<String>,
    is_last: bool,
}

impl Page {
    fn start(shard: ShardIndex, prefix: &str) -> Self {
        Self { shard, products: VecDeque::new(), next: Bound::Included(prefix.to_owned()), is_last: false }
    }

    /// The first unread product, after reading a page if there is none.
    fn head(&mut self, query: &Query) -> Option<&Sku> {
        if self.products.is_empty() && !self.is_last {
            self.read(query);
        }
        self.products.front().map(|product| &product.sku)
    }

    fn read(&mut self, query: &Query) {
        let from = self.next.as_ref().map(String::as_str);
        let products = query.table.read(self.shard, |shard| {
            let within = shard.range(from).take_while(|product| product.sku.as_str().starts_with(&query.prefix));
            let matching = within
                .filter(|product| query.available_below.is_none_or(|units| product.on_hand() - product.held() < units));
            matching.take(PAGE_PRODUCTS).map(Arc::clone).collect()
        });
        self.products = products.unwrap_or_default();
        self.is_last = self.products.len() < PAGE_PRODUCTS;
        if let Some(product) = self.products.back() {
            self.next = Bound::Excluded(product.sku.as_str().to_owned());
        }
    }
}

impl Iterator for Products {
    type Item = ProductView;

    fn next(&mut self) -> Option<ProductView> {
        if !self.started {
            self.started = true;
            for (index, page) in self.pages.iter_mut().enumerate() {
                if let Some(sku) = page.head(&self.query) {
                    self.heads.push(Reverse((sku.clone(), index)));
                }
            }
        }
        let Reverse((_, index)) = self.heads.pop()?;
        let page = self.pages.get_mut(index)?;
        let product = page.products.pop_front()?;
        if let Some(next) = page.head(&self.query) {
            self.heads.push(Reverse((next.clone(), index)));
        }
        Some(ProductView::new(product))
    }
}
