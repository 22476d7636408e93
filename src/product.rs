//! Operations on one product.

use std::sync::Arc;
use std::time::Duration;

use stockmesh_proto::limits::QUANTITY_MAX;
pub use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::{Operation, Outcome, OversellPolicy, Request};
use stockmesh_proto::{InvalidInput, Location, Price, Quantity, Reference, Sku};

use crate::error::WriteError;
use crate::replica::Replica;
use crate::withdraw::{self, HoldUnits, Sell, Transfer};

/// Counts one adjustment, once it is durable.
pub(crate) fn count_reason(reason: Reason) {
    metrics::counter!("stockmesh_adjustments_total", "reason" => reason.label()).increment(1);
}

/// Checks a signed number of units: not zero, at most 10^12 either way.
pub(crate) fn check_adjustment(units: i64) -> Result<i64, InvalidInput> {
    let rule = "must be 1 to 10^12 units, in (above zero) or out (below zero)";
    Quantity::new(units.unsigned_abs()).map_err(|_| InvalidInput::new("quantity", units, rule))?;
    Ok(units)
}

/// Checks a number of units that were counted.
pub(crate) fn check_count(counted: u64) -> Result<u64, InvalidInput> {
    if counted > QUANTITY_MAX {
        return Err(InvalidInput::new("counted", counted, "must be at most 10^12 units"));
    }
    Ok(counted)
}

/// One product at one location, to operate on. Made by `Store::product`; costs nothing to keep.
///
/// Each operation returns once it is durable on this node's disk, which costs one sync, shared with all writes that
/// wait at the same time. Dropping the future does not undo it. If it fails, [`WriteError`] says whether nothing was
/// changed or whether only a reopen can tell.
///
/// ```
/// use stockmesh::Reason;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
/// let mug = store.product("MUG-01")?;
/// mug.receive(100).await?;
/// mug.adjust(-3, Reason::Damaged).await?;
/// let in_shop = mug.at("shop")?;
/// in_shop.receive(20).await?;
///
/// assert_eq!(mug.stocktake(95).await?, -2); // two of 97 are missing
/// assert_eq!(store.get("MUG-01")?.on_hand(), 115); // 95 and 20
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Product {
    replica: Arc<Replica>,
    sku: Sku,
    location: Location,
    reference: Option<Reference>,
}

impl Product {
    pub(crate) fn new(replica: Arc<Replica>, sku: Sku, location: Location) -> Self {
        Self { replica, sku, location, reference: None }
    }

    /// The same product at another location.
    ///
    /// # Errors
    /// If the location is not valid.
    pub fn at(&self, location: &str) -> Result<Self, InvalidInput> {
        Ok(Self { location: Location::new(location)?, ..self.clone() })
    }

    /// The product's key.
    pub fn sku(&self) -> &Sku {
        &self.sku
    }

    /// The same product, for one operation under the caller's own name for it: 1 to 128 bytes, such as an order and its
    /// line. A retry of the same operation under the same reference returns the first result and changes nothing, for as
    /// long as references are remembered (7 days unless the builder says otherwise), also over a restart of this node. A
    /// refused operation is not remembered, so that it can be tried again.
    ///
    /// # Errors
    /// If the reference is not valid. The operation itself is refused if the reference was used for another one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
    /// let mug = store.product("MUG-01")?;
    /// mug.receive(10).await?;
    /// mug.reference("order-123/1")?.sell(3).await?;
    /// mug.reference("order-123/1")?.sell(3).await?; // the retry of a caller that saw no answer
    /// assert_eq!(store.get("MUG-01")?.on_hand(), 7);
    /// assert!(mug.reference("order-123/1")?.sell(4).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn reference(&self, reference: &str) -> Result<Self, InvalidInput> {
        Ok(Self { reference: Some(Reference::new(reference)?), ..self.clone() })
    }

    /// Counts units in: 1 to 10^12. This node may sell them without asking anybody.
    ///
    /// # Errors
    /// See [`WriteError`]: refused means that nothing changed.
    pub async fn receive(&self, units: u64) -> Result<(), WriteError> {
        let units = Quantity::new(units)?;
        self.write(Operation::Receive { sku: self.sku.clone(), location: self.location.clone(), units }).await?;
        Ok(())
    }

    /// Sells units: 1 to 10^12. Never more than came in, over all nodes, whatever is cut off, crashes or comes twice.
    ///
    /// Done at once, for one sync, while this node has rights to sell: those it received, and those it was given. Else
    /// the nodes that have some are asked for them, for half a second unless [`Sell::deadline`] says otherwise. Dropping
    /// the future is safe: the sale may be done or not, and rights that come later stay here.
    ///
    /// # Errors
    /// [`WriteError::Insufficient`] if rights cannot be had, or the stock known here, less what others lack, does not
    /// cover the sale. Nothing was changed then.
    ///
    /// ```
    /// use stockmesh::WriteError;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
    /// let mug = store.product("MUG-01")?;
    /// mug.receive(2).await?;
    /// mug.sell(1).await?;
    /// match mug.sell(2).await {
    ///     Err(WriteError::Insufficient { here, .. }) => assert_eq!(here, 1),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn sell(&self, units: u64) -> Sell {
        let operation = withdraw::sell(self.sku.clone(), self.location.clone(), units, OversellPolicy::Refuse);
        Sell::new(Arc::clone(&self.replica), operation, self.reference.clone())
    }

    /// Sells with the rights at hand, or not at all: asks nobody.
    ///
    /// # Errors
    /// As [`Product::sell`].
    pub async fn try_sell(&self, units: u64) -> Result<(), WriteError> {
        self.sell(units).deadline(Duration::ZERO).await
    }

    /// Sets units aside for 1 ms to 30 days: they show as held at every node, and nobody else can have them. Rights are
    /// got as by [`Product::sell`].
    ///
    /// # Errors
    /// As [`Product::sell`], and if too many holds are active.
    pub fn hold(&self, units: u64, ttl: Duration) -> HoldUnits {
        let operation = withdraw::hold(self.sku.clone(), self.location.clone(), units, ttl);
        HoldUnits::new(Arc::clone(&self.replica), operation, self.reference.clone())
    }

    /// Moves units from one location to another, both counted by this node, in one step. Rights are got as by
    /// [`Product::sell`]. The handle's own location plays no part.
    ///
    /// # Errors
    /// As [`Product::sell`], and if both are the same.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
    /// let mug = store.product("MUG-01")?;
    /// mug.receive(10).await?;
    /// mug.transfer("berlin", "paris", 4).await?;
    /// mug.at("paris")?.sell(4).await?;
    /// assert_eq!(store.get("MUG-01")?.available(), 6);
    /// # Ok(())
    /// # }
    /// ```
    pub fn transfer(&self, from: &str, to: &str, units: u64) -> Transfer {
        let operation = withdraw::transfer(self.sku.clone(), from, to, units);
        Transfer::new(Arc::clone(&self.replica), operation, self.reference.clone())
    }

    /// Counts units in (above zero) or out (below zero), unconditionally: a physical fact. Stock may fall below zero, and
    /// so may what this node may sell; then it shows as oversold until it is paid back. Up to 10^12 units either way, not
    /// 0. To take out what was sold use [`Product::sell`], which cannot be oversold.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn adjust(&self, units: i64, reason: Reason) -> Result<(), WriteError> {
        let units = check_adjustment(units)?;
        let (sku, location) = (self.sku.clone(), self.location.clone());
        self.write(Operation::Adjust { sku, location, units, reason }).await?;
        count_reason(reason);
        Ok(())
    }

    /// Takes what was counted as the stock at this location: the difference to what this replica sees is written.
    /// Sales elsewhere that have not arrived here yet still count when they do. Returns the difference in units, above
    /// zero if more was counted than seen; with none, nothing is written. Two nodes that count the same shelf at the
    /// same time, cut off from each other, both write their difference.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn stocktake(&self, counted: u64) -> Result<i64, WriteError> {
        let counted = check_count(counted)?;
        let operation = Operation::Stocktake { sku: self.sku.clone(), location: self.location.clone(), counted };
        let outcomes = self.write(operation).await?;
        Ok(if let Some(Outcome::Difference(units)) = outcomes.first() { *units } else { 0 })
    }

    /// Sets the price, at all locations. Of prices set at the same time in two places one wins, everywhere the same:
    /// the later by a hybrid logical clock, which follows the wall clock, and never falls behind a price seen before
    /// (Kulkarni et al. 2014, "Logical Physical Clocks").
    ///
    /// # Errors
    /// See [`WriteError`].
    ///
    /// ```
    /// use stockmesh::{Currency, Price};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
    /// let mug = store.product("MUG-01")?;
    /// mug.set_price(Price::new("9.99".parse()?, Currency::EUR)?).await?;
    /// mug.set_price(Price::new("8.50".parse()?, Currency::EUR)?).await?;
    /// let price = store.get("MUG-01")?.price().expect("it was set");
    /// assert_eq!(price.to_string(), "8.50 EUR");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_price(&self, price: Price) -> Result<(), WriteError> {
        self.write(Operation::SetPrice { sku: self.sku.clone(), price }).await?;
        Ok(())
    }

    /// Lists or delists the product, at all locations. Only a mark for the embedder: a delisted product can be read and
    /// written as before. The last writer wins, as with prices.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn set_listed(&self, listed: bool) -> Result<(), WriteError> {
        self.write(Operation::SetListed { sku: self.sku.clone(), listed }).await?;
        Ok(())
    }

    async fn write(&self, operation: Operation) -> Result<Vec<Outcome>, WriteError> {
        let request = Request { reference: self.reference.clone(), ..vec![operation].into() };
        self.replica.write(request).await
    }
}
