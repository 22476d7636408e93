//! Carries out what callers do at a node, and enters into the books what they were told.

use std::time::Duration;

use stockmesh::{Currency, HoldId, InvalidInput, Price, Product, Reason, ReplicaId, Store, WriteError};

use crate::books::{Books, Given, Known, Place, Write};
use crate::plan::Action;
use crate::trace::Trace;

/// A caller at one node.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Where it is.
    pub node: u16,
    /// The node's store.
    pub store: Store,
    /// The books.
    pub books: Books,
    /// The trace.
    pub trace: Trace,
}

/// What a write really did, where that is not what it said.
#[derive(Debug, Default)]
struct Told {
    /// The only change of stock there was.
    stock: Option<Vec<(Place, i64)>>,
    hold: Option<HoldId>,
    /// The stamp of the price or listing.
    stamp: Option<u64>,
}

/// What a write would do.
#[derive(Debug, Default)]
struct Intent {
    stock: Vec<(Place, i64)>,
    unbounded: Vec<Place>,
    price: Option<(String, u64, Option<u64>)>,
    listing: Option<(String, bool)>,
}

fn of(sku: &str, place: &str) -> Place {
    (sku.to_owned(), place.to_owned())
}

/// As a number that may be below zero.
pub(crate) fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

impl Caller {
    /// Carries out what is not a fault.
    pub async fn carry_out(self, action: Action) {
        match &action {
            Action::CommitHold { pick, .. } | Action::ReleaseHold { pick } => {
                if let Some(id) = self.books.take_hold(self.node, *pick) {
                    self.resolve(id, &action).await;
                }
            }
            _ => self.write(self.intent(&action), &action, None).await,
        }
    }

    async fn resolve(&self, id: HoldId, action: &Action) {
        // One that has expired long ago is not known any more.
        let Some(hold) = self.store.hold(id) else { return };
        let part = matches!(action, Action::CommitHold { part: true, .. }) && hold.units() > 1;
        let units = if part { hold.units() / 2 } else { hold.units() };
        let sold = if matches!(action, Action::CommitHold { .. }) { -signed(units) } else { 0 };
        let stock = vec![(of(hold.sku().as_str(), hold.location().as_str()), sold)];
        self.write(Intent { stock, ..Intent::default() }, action, Some((id, units))).await;
    }

    async fn write(&self, intent: Intent, action: &Action, hold: Option<(HoldId, u64)>) {
        let replica = self.store.replica_id();
        let Intent { stock, unbounded, price, listing } = intent;
        let write = Write {
            node: self.node,
            replica: Some(replica),
            begun: 0,
            heard: None,
            acknowledged: None,
            heard_at: Duration::ZERO,
            known: Known::Unknown,
            stock,
            unbounded,
            price,
            listing,
            stamp: None,
        };
        let number = self.books.begin(write, is_named(action).then(|| action.clone()));
        let mut result = self.call(number, action, hold).await;
        if result.is_ok() && is_named(action) && number.is_multiple_of(3) {
            // A caller that did not see the answer asks again.
            result = self.call(number, action, hold).await.or(result);
        }
        self.enter(number, action, replica, result);
    }

    /// Asks again for a write whose answer was lost with the node, which is up again.
    pub async fn retry(self, number: u64, action: Action) {
        let replica = self.store.replica_id();
        let entry = self.books.begin_again(number, replica);
        let result = self.call(number, &action, None).await;
        self.enter(entry, &action, replica, result);
    }

    fn enter(&self, number: u64, action: &Action, replica: ReplicaId, result: Result<Told, WriteError>) {
        let known = match &result {
            Ok(_) => Known::Done,
            Err(WriteError::Indeterminate { .. }) => Known::Unknown,
            Err(_) => Known::Refused,
        };
        let now_replica = self.store.replica_id();
        self.trace.note(format_args!(
            "node {}: {action:?} number {number}: {}",
            self.node,
            result.as_ref().map_or_else(ToString::to_string, |_| "done".into())
        ));
        let told = result.unwrap_or_default();
        if let Some(id) = told.hold {
            self.books.add_hold(Given { node: self.node, id });
        }
        self.books.end(number, known, self.trace.now(), |write| {
            write.replica = write.replica.filter(|then| *then == now_replica && replica == now_replica);
            if let (Known::Done, Some(stock)) = (known, told.stock) {
                write.stock = stock;
            }
            write.stamp = told.stamp;
        });
    }

    fn intent(&self, action: &Action) -> Intent {
        let stock = match action {
            Action::Receive { sku, place, units } => vec![(of(sku, place), signed(*units))],
            Action::Sell { sku, place, units } => vec![(of(sku, place), -signed(*units))],
            Action::Adjust { sku, place, units } => vec![(of(sku, place), *units)],
            Action::Transfer { sku, from, to, units } => {
                vec![(of(sku, from), -signed(*units)), (of(sku, to), signed(*units))]
            }
            Action::Batch { receive, sell } => {
                let home = self.store.status().location;
                let received = receive.iter().map(|(sku, units)| (of(sku, home.as_str()), signed(*units)));
                let sold = sell.iter().map(|(sku, units)| (of(sku, home.as_str()), -signed(*units)));
                received.chain(sold).collect()
            }
            Action::Price { sku, cents } => {
                let seen = self.store.get(sku).ok().and_then(|view| view.price()).map(cents_of);
                return Intent { price: Some((sku.clone(), *cents, seen)), ..Intent::default() };
            }
            Action::List { sku, listed } => {
                return Intent { listing: Some((sku.clone(), *listed)), ..Intent::default() };
            }
            Action::Stocktake { sku, place, .. } => {
                return Intent { unbounded: vec![of(sku, place)], ..Intent::default() };
            }
            _ => Vec::new(),
        };
        Intent { stock, ..Intent::default() }
    }

    async fn call(&self, number: u64, action: &Action, hold: Option<(HoldId, u64)>) -> Result<Told, WriteError> {
        let mut told = Told::default();
        let product = |sku: &str, place: &str| self.store.product(sku).and_then(|product| product.at(place));
        match action {
            Action::Receive { sku, place, units } => named(&product(sku, place)?, number)?.receive(*units).await?,
            Action::Sell { sku, place, units } => named(&product(sku, place)?, number)?.sell(*units).await?,
            Action::Adjust { sku, place, units } => product(sku, place)?.adjust(*units, Reason::Correction).await?,
            Action::Transfer { sku, from, to, units } => {
                product(sku, from)?.transfer(from, to, *units).await?;
            }
            Action::Stocktake { sku, place, counted } => {
                let difference = product(sku, place)?.stocktake(*counted).await?;
                told.stock = Some(vec![(of(sku, place), difference)]);
            }
            Action::Hold { sku, place, units, seconds } => {
                let hold = product(sku, place)?.hold(*units, Duration::from_secs(*seconds)).await?;
                told.hold = Some(hold.id());
            }
            Action::Batch { receive, sell } => {
                let mut batch = self.store.batch();
                for (sku, units) in receive {
                    batch = batch.receive(sku, *units)?;
                }
                for (sku, units) in sell {
                    batch = batch.sell(sku, *units)?;
                }
                batch.commit().await?;
            }
            Action::Price { sku, cents } => {
                self.store.product(sku)?.set_price(price_of(*cents)).await?;
                // Unless another one has taken its place already.
                let own = |(price, _, by): &(Price, u64, ReplicaId)| {
                    *price == price_of(*cents) && *by == self.store.replica_id()
                };
                told.stamp = self.store.price_written(sku).filter(own).map(|(_, stamp, _)| stamp);
            }
            Action::List { sku, listed } => {
                self.store.product(sku)?.set_listed(*listed).await?;
                let own = |(value, _, by): &(bool, u64, ReplicaId)| value == listed && *by == self.store.replica_id();
                told.stamp = self.store.listed_written(sku).filter(own).map(|(_, stamp, _)| stamp);
            }
            Action::CommitHold { .. } | Action::ReleaseHold { .. } => told.stock = self.settle(action, hold).await?,
            _ => {}
        }
        Ok(told)
    }

    async fn settle(
        &self,
        action: &Action,
        hold: Option<(HoldId, u64)>,
    ) -> Result<Option<Vec<(Place, i64)>>, WriteError> {
        let known = hold.and_then(|(id, units)| Some((self.store.hold(id)?, units)));
        let Some((hold, units)) = known else { return Ok(Some(Vec::new())) };
        let resolved = match action {
            Action::ReleaseHold { .. } => hold.release().await?,
            _ if units < hold.units() => hold.commit_part(units).await?,
            _ => hold.commit().await?,
        };
        Ok(Some(vec![(of(hold.sku().as_str(), hold.location().as_str()), -signed(resolved.sold))]))
    }
}

/// Whether a write has a reference, so that it can be asked for again.
fn is_named(action: &Action) -> bool {
    matches!(action, Action::Receive { .. } | Action::Sell { .. })
}

fn named(product: &Product, number: u64) -> Result<Product, InvalidInput> {
    product.reference(&format!("write-{number}"))
}

fn price_of(cents: u64) -> Price {
    let amount = format!("{}.{:02}", cents / 100, cents % 100);
    #[expect(clippy::unwrap_used, reason = "written in the form that is read")]
    Price::new(amount.parse().unwrap(), Currency::EUR).unwrap()
}

/// A price in cents, by its digits.
#[must_use]
pub fn cents_of(price: Price) -> u64 {
    let digits: String = price.to_string().chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}
