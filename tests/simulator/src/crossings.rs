//! A subscriber who wants to know when stock runs low, runs out, and is back.

use std::collections::BTreeMap;

use stockmesh::{Change, ProductView, Store};

/// Below so many units a product is low.
pub const LOW: i128 = 10;

/// What was told so far, and what of it cannot be.
#[derive(Clone, Debug, Default)]
pub struct Crossings {
    /// By product: whether any are available. Nothing after a lag, until it is told again.
    is_available: BTreeMap<String, Option<bool>>,
    /// The first thing that cannot be.
    pub fault: Option<String>,
}

fn available(view: &ProductView) -> i128 {
    view.on_hand() - view.held()
}

impl Crossings {
    /// What a subscriber reads at the beginning.
    #[must_use]
    pub fn begin(store: &Store) -> Self {
        let present = store.query().iter().map(|view| (view.sku().to_string(), Some(available(&view) > 0)));
        Self { is_available: present.collect(), fault: None }
    }

    /// Takes note of a change that was told.
    pub fn note(&mut self, change: &Change) {
        match change {
            Change::LowStock { product, available, below } if available >= below || *below != LOW => {
                self.find(format!("{} is told to be low with {available} units, below {below}", product.sku()));
            }
            Change::OutOfStock(view) => self.turn(view, false),
            Change::BackInStock(view) => self.turn(view, true),
            // Of what is out now it is told next, of what is not nothing.
            Change::Lagged { .. } => self.is_available.values_mut().for_each(|known| *known = None),
            _ => {}
        }
    }

    /// What is told last must be so now, if all was told.
    ///
    /// # Errors
    /// With the product about which it is not so.
    pub fn check(&self, store: &Store) -> Result<(), String> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        for view in store.query().iter() {
            let (is_so, told) = (available(&view) > 0, self.is_available.get(view.sku().as_str()).copied());
            if told.unwrap_or(Some(false)).is_some_and(|told| told != is_so) {
                return Err(format!("{} has {} available, last told was {told:?}", view.sku(), available(&view)));
            }
        }
        Ok(())
    }

    fn turn(&mut self, view: &ProductView, is_available: bool) {
        let known = self.is_available.insert(view.sku().to_string(), Some(is_available));
        if known.unwrap_or(Some(false)) == Some(is_available) {
            self.find(format!("{} is told twice in a row to have some: {is_available}", view.sku()));
        }
    }

    fn find(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }
}
