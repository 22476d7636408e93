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
    /// Units held for somebody.
    pub held: i128,
    /// Units by which replicas are below what they may sell: what was lost or backordered beyond it, and not paid back by
    /// receipts yet. While a write of another node is still on its way this may show more for a moment.
    pub oversold: i128,
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
/// mug.at("shop")?.adjust(-2, Reason::Lost).await?;
///
/// let view = store.get("MUG-01")?;
/// assert_eq!((view.on_hand(), view.held(), view.available(), view.oversold()), (10, 0, 10, 2));
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

    pub(crate) fn product(&self) -> &Arc<KeyedProduct> {
        &self.product
    }

    /// The product's key.
    pub fn sku(&self) -> &Sku {
        &self.product.sku
    }

    /// Units on hand at all locations. Below zero if more went out than came in.
    pub fn on_hand(&self) -> i128 {
        self.product.on_hand()
    }

    /// Units held at all locations.
    pub fn held(&self) -> i128 {
        self.product.held()
    }

    /// Units on hand that are not held, at all locations.
    pub fn available(&self) -> i128 {
        self.on_hand() - self.held()
    }

    /// Units by which replicas are below what they may sell, added up over all locations, see
    /// [`StockView::oversold`]. Costs a look at each slot.
    pub fn oversold(&self) -> i128 {
        self.product.oversold()
    }

    /// How many units each replica may sell at a location without asking, in the order of their ids; below zero what it
    /// must be paid back first. The sum is what is available there (Balegas et al. 2015).
    pub fn rights_at(&self, location: &str) -> Vec<(ReplicaId, i128)> {
        Location::new(location)
            .map(|location| self.product.rights_at(&location).into_iter().collect())
            .unwrap_or_default()
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
        for (location, _, counters) in self.product.counted() {
            stock.entry(location).or_default().add(counters);
        }
        let with_oversold = |(location, stock): (&Location, StockView)| {
            let oversold = self.product.oversold_at(location);
            (location.clone(), StockView { oversold, ..stock })
        };
        stock.into_iter().map(with_oversold).collect()
    }

    /// Stock by the replica that counted it, in the order of their ids: each replica's part of the sums, which alone
    /// may be below zero. Of a retired replica it is what was taken over, and nothing held. What it may sell is another figure, see [`ProductView::rights_at`].
    pub fn by_replica(&self) -> Vec<(ReplicaId, StockView)> {
        let mut stock: BTreeMap<ReplicaId, StockView> = BTreeMap::new();
        for (_, replica, counters) in self.product.counted() {
            stock.entry(replica).or_default().add(counters);
        }
        stock.into_iter().collect()
    }
}
