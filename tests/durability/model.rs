//! What a store should hold: a plain map, changed by the same writes.

use std::collections::BTreeMap;

use stockmesh::{Currency, Price, Reason, Store, WriteError};

/// One operation on one product.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Add(String, i64),
    Count(String, u64),
    Price(String, u64),
    Listed(String, bool),
}

/// One call of a user: several changes are one batch.
pub(crate) type Write = Vec<Change>;

/// A product: units on hand, the price in hundredths, and whether it is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) on_hand: i128,
    pub(crate) price: Option<u64>,
    pub(crate) listed: Option<bool>,
}

/// Products by SKU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model(pub(crate) BTreeMap<String, Entry>);

pub(crate) fn add(sku: impl Into<String>, units: i64) -> Change {
    Change::Add(sku.into(), units)
}

pub(crate) fn price(hundredths: u64) -> Price {
    Price::from_parts(hundredths, 2, Currency::EUR).unwrap()
}

impl Model {
    pub(crate) fn apply(&mut self, write: &Write) {
        for change in write {
            match change {
                Change::Add(sku, units) => self.0.entry(sku.clone()).or_default().on_hand += i128::from(*units),
                // A count that finds what is there already writes nothing, so it creates no product.
                Change::Count(sku, 0) if !self.0.contains_key(sku) => {}
                Change::Count(sku, counted) => {
                    self.0.entry(sku.clone()).or_default().on_hand = i128::from(*counted);
                }
                Change::Price(sku, hundredths) => self.0.entry(sku.clone()).or_default().price = Some(*hundredths),
                Change::Listed(sku, listed) => self.0.entry(sku.clone()).or_default().listed = Some(*listed),
            }
        }
    }

    pub(crate) fn with(&self, writes: &[Write]) -> Self {
        let mut model = self.clone();
        writes.iter().for_each(|write| model.apply(write));
        model
    }

    /// Everything that a store holds.
    pub(crate) fn of(store: &Store) -> Self {
        let entry = |product: stockmesh::ProductView| {
            let price = product.price().map(|price| price.units() * 10_u64.pow(2 - u32::from(price.scale())));
            let entry = Entry { on_hand: product.on_hand(), price, listed: product.listed() };
            (product.sku().as_str().to_owned(), entry)
        };
        Self(store.query().iter().map(entry).collect())
    }

    pub(crate) fn on_hand(&self) -> i128 {
        self.0.values().map(|entry| entry.on_hand).sum()
    }
}

/// Performs a write through the public interface.
pub(crate) async fn perform(store: &Store, write: &Write) -> Result<(), WriteError> {
    if let [change] = write.as_slice() {
        return perform_one(store, change).await;
    }
    let mut batch = store.batch();
    for change in write {
        batch = match change {
            Change::Add(sku, units) => batch.adjust(sku, *units, Reason::Correction)?,
            Change::Price(sku, hundredths) => batch.set_price(sku, price(*hundredths))?,
            Change::Listed(sku, listed) => batch.set_listed(sku, *listed)?,
            Change::Count(..) => panic!("a batch cannot count"),
        };
    }
    batch.commit().await.map(drop)
}

async fn perform_one(store: &Store, change: &Change) -> Result<(), WriteError> {
    match change {
        Change::Add(sku, units) if *units > 0 => store.product(sku)?.receive(units.unsigned_abs()).await,
        Change::Add(sku, units) => store.product(sku)?.adjust(*units, Reason::Sold).await,
        Change::Count(sku, counted) => store.product(sku)?.stocktake(*counted).await.map(drop),
        Change::Price(sku, hundredths) => store.product(sku)?.set_price(price(*hundredths)).await,
        Change::Listed(sku, listed) => store.product(sku)?.set_listed(*listed).await,
    }
}
