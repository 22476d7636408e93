//! What a reader sees of a product: a consistent view, taken at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use stockmesh_proto::counter::Counters;
use stockmesh_proto::product::KeyedProduct;
use stockmesh_proto::{Location, Price, ReplicaId, Sku};

/// Units on hand and held, of a location or of a replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StockView {
    /// Units on hand: what came in less what went out. Below zero if more went out than came in.
    pub on_hand: i128,
    /// Units held for somebody. Always 0 so far: nothing holds units yet.
    pub held: i128,
}

impl StockView {
    /// Units on hand that are not held.
    pub fn available(&self) -> i128 {
        self.on_hand - self.held
    }

    fn add(&mut self, counters: Counters) {
        self.on_hand += counters.on_hand();
        self.held += counters.units_held();
    }
}

/// A product as this node knew it when the view was taken. It costs a reference count, and never changes. Sums are
/// computed at each call, over one entry for each replica and location that ever counted the product.
///
/// ```
/// use stockmesh::Reason;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
/// let mug = store.product("MUG-01")?;
/// mug.receive(12).await?;
/// mug.at("shop")?.adjust(-2, Reason::Sold).await?;
///
/// let view = store.get("MUG-01")?;
/// assert_eq!((view.on_hand(), view.held(), view.available()), (10, 0, 10));
/// assert_eq!((view.price(), view.listed()), (None, None));
/// let by_location: Vec<_> = view.by_location().into_iter().map(|(place, stock)| (place.to_string(),
/// stock.on_hand)).collect(); assert_eq!(by_location, [("berlin".to_string(), 12), ("shop".to_string(), -2)]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductView {
    product: Arc<KeyedProduct>,
}

impl ProductView {
    pub(crate) fn new(product: Arc<KeyedProduct>) -> Self {
        Self { product }
    }

    /// The product's key.
    pub fn sku(&self) -> &Sku {
        &self.product.sku
    }

    /// Units on hand at all locations. Below zero if more went out than came in.
    pub fn on_hand(&self) -> i128 {
        self.product.on_hand()
    }

    /// Units held at all locations. Always 0 so far: nothing holds units yet.
    pub fn held(&self) -> i128 {
        self.product.held()
    }

    /// Units on hand that are not held, at all locations.
    pub fn available(&self) -> i128 {
        self.on_hand() - self.held()
    }

    /// The price, if one was ever set.
    pub fn price(&self) -> Option<Price> {
        self.product.price().map(|register| register.value)
    }

    /// Whether the product is listed, if anybody ever said so.
    pub fn listed(&self) -> Option<bool> {
        self.product.listed().map(|register| register.value)
    }

    /// Stock by location, in the order of their names.
    pub fn by_location(&self) -> Vec<(Location, StockView)> {
        let mut stock: BTreeMap<&Location, StockView> = BTreeMap::new();
        for slot in self.product.stock() {
            stock.entry(&slot.location).or_default().add(slot.counters);
        }
        stock.into_iter().map(|(location, stock)| (location.clone(), stock)).collect()
    }

    /// Stock by the replica that counted it, in the order of their ids: each replica's part of the sums, which alone
    /// may be below zero.
    pub fn by_replica(&self) -> Vec<(ReplicaId, StockView)> {
        let mut stock: BTreeMap<ReplicaId, StockView> = BTreeMap::new();
        for slot in self.product.stock() {
            stock.entry(slot.replica).or_default().add(slot.counters);
        }
        stock.into_iter().collect()
    }
}
