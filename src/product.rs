//! Operations on one product.

use std::sync::Arc;

use stockmesh_proto::limits::QUANTITY_MAX;
use stockmesh_proto::operation::Operation;
use stockmesh_proto::{InvalidInput, Location, Price, Quantity, Sku};

use crate::error::WriteError;
use crate::replica::Replica;

/// Why stock was adjusted. It is counted in the metrics, and does not change what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// Sold to a customer.
    Sold,
    /// Returned by a customer.
    Returned,
    /// Damaged or spoiled.
    Damaged,
    /// Lost or stolen.
    Lost,
    /// Found again.
    Found,
    /// A correction of an earlier entry.
    Correction,
}

impl Reason {
    /// Counts one adjustment, once it is durable.
    pub(crate) fn count(self) {
        metrics::counter!("stockmesh_adjustments_total", "reason" => self.label()).increment(1);
    }

    fn label(self) -> &'static str {
        match self {
            Self::Sold => "sold",
            Self::Returned => "returned",
            Self::Damaged => "damaged",
            Self::Lost => "lost",
            Self::Found => "found",
            Self::Correction => "correction",
        }
    }
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

/// Checks a number of units that came in.
pub(crate) fn check_receipt(units: u64) -> Result<i64, InvalidInput> {
    let units = Quantity::new(units)?.get();
    i64::try_from(units).map_err(|_| InvalidInput::new("quantity", units, "must be at most 10^12 units"))
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
}

impl Product {
    pub(crate) fn new(replica: Arc<Replica>, sku: Sku, location: Location) -> Self {
        Self { replica, sku, location }
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

    /// Counts units in: 1 to 10^12.
    ///
    /// # Errors
    /// See [`WriteError`]: refused means that nothing changed.
    pub async fn receive(&self, units: u64) -> Result<(), WriteError> {
        let units = check_receipt(units)?;
        self.write(Operation::Adjust { sku: self.sku.clone(), location: self.location.clone(), units }).await?;
        Ok(())
    }

    /// Counts units in (above zero) or out (below zero), unconditionally: a physical fact. Stock may fall below zero.
    /// Up to 10^12 units either way, not 0.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub async fn adjust(&self, units: i64, reason: Reason) -> Result<(), WriteError> {
        let units = check_adjustment(units)?;
        self.write(Operation::Adjust { sku: self.sku.clone(), location: self.location.clone(), units }).await?;
        reason.count();
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
        let differences = self.write(operation).await?;
        Ok(differences.first().copied().unwrap_or_default())
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

    async fn write(&self, operation: Operation) -> Result<Vec<i64>, WriteError> {
        self.replica.write(vec![operation]).await
    }
}
