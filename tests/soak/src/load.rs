//! The load of one node: callers that wait for nothing but their answers, over a bounded set of products.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stockmesh::{Currency, Filter, Hold, Price, Product, Store};
use tokio::sync::RwLock;

use crate::node::{own_prefix, tell};
use crate::told::{Kind, Told, is_done};

/// Callers at once. Each sync is shared by those that wait, so a few keep a node's committer busy all the time.
const CALLERS: usize = 6;
/// Sold by all nodes; each is stocked by one.
pub(crate) const SHARED: usize = 64;
/// Of these, every so many is stocked again only when it is sold out: who oversells is found out.
const SCARCE_EVERY: usize = 4;
const PRICED: usize = 5_000;
const PAIRED: usize = 40;
const OWN: usize = 50;
/// Prices in one batch: few, so that what waits in queues then takes no more memory than later …
const BATCH: usize = 500;
/// … and how often all are set in the beginning: about 20 MB, so that journals are folded once, and the engine's caches are
/// full, before it is measured.
const FILLS: usize = 100;
/// The place of what all sell.
const PLACE: &str = "all";
/// How long peers may be asked for rights: short, so that a cut does not leave the callers idle.
const ASKING: Duration = Duration::from_millis(100);
/// What was resolved is remembered for a week, which no setting shortens. So holds are given so rarely that what they leave
/// behind is little beside the rest; the judge counts it as live data.
const HOLD_EVERY: Duration = Duration::from_millis(500);
/// The longest that a hold of the load lasts.
pub(crate) const HOLD_MS_MAX: u64 = 3_000;

pub(crate) struct Load {
    store: Store,
    name: String,
    /// Which node it is, of how many.
    me: usize,
    nodes: usize,
    told: Told,
    is_on: AtomicBool,
    /// Shared by those that are at work.
    at_work: RwLock<()>,
}

fn any(count: usize) -> usize {
    rand::random_range(0..count)
}

pub(crate) fn shared(number: usize) -> String {
    format!("shared-{number}")
}

impl Load {
    pub(crate) fn start(store: &Store, name: &str, (me, nodes): (usize, usize), told: Told) -> Arc<Self> {
        let (is_on, at_work) = (AtomicBool::new(false), RwLock::default());
        let load = Self { store: store.clone(), name: name.to_owned(), me, nodes, told, is_on, at_work };
        let load = Arc::new(load);
        for number in 0..CALLERS {
            tokio::spawn(Arc::clone(&load).call(number));
        }
        tokio::spawn(Arc::clone(&load).hold_for_ever());
        tokio::spawn(read_all(store.clone()));
        tokio::spawn(read_slowly(store.clone()));
        load
    }

    pub(crate) fn begin(&self) {
        self.is_on.store(true, Ordering::SeqCst);
    }

    /// Returns when no write is under way any more.
    pub(crate) async fn end(&self) {
        self.is_on.store(false, Ordering::SeqCst);
        drop(self.at_work.write().await);
    }

    /// The catalogue: what is there from the beginning.
    pub(crate) async fn fill(&self) {
        for first in (0..FILLS).flat_map(|_| (0..PRICED).step_by(BATCH)) {
            let mut batch = self.store.batch();
            for number in first..PRICED.min(first + BATCH) {
                batch = batch.set_price(&format!("priced-{number}"), price()).unwrap();
            }
            batch.commit().await.unwrap();
        }
    }

    async fn call(self: Arc<Self>, number: usize) {
        loop {
            let working = self.at_work.read().await;
            if self.is_on.load(Ordering::SeqCst) {
                self.act(number).await;
                drop(working);
                tokio::task::yield_now().await;
            } else {
                drop(working);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn act(&self, caller: usize) {
        match any(100) {
            0..35 => self.trade().await,
            35..50 => self.count_in().await,
            50..65 => self.set_price().await,
            65..73 => self.receive_pair().await,
            73..78 => self.transfer().await,
            // One after the other, so that it is known which was the last.
            78..82 if caller == 0 => self.take_stock().await,
            82..86 => {
                let low = self.store.query().prefix("shared-").available_below(50).iter().count();
                std::hint::black_box(low);
            }
            _ => (0..20).for_each(|_| drop(std::hint::black_box(self.store.get(&format!("priced-{}", any(PRICED)))))),
        }
    }

    fn product(&self, sku: &str) -> Product {
        self.store.product(sku).unwrap().at(PLACE).unwrap()
    }

    /// Stocks a product if that is this node's task and it is low, or else sells it.
    async fn trade(&self) {
        let number = any(SHARED);
        let sku = shared(number);
        if number % self.nodes == self.me {
            let view = self.store.get(&sku).ok();
            // Nobody else counts in, so whatever this node knows of others' sales there cannot be less than nothing.
            if let Some(view) = view.as_ref().filter(|view| view.on_hand() < 0) {
                tell(&format!("soak oversold {sku} {}", view.on_hand()));
            }
            let is_scarce = number.is_multiple_of(SCARCE_EVERY);
            let (low, units) = if is_scarce { (1, 40) } else { (50, 400) };
            if view.is_none_or(|view| view.available() < low) {
                self.told.begin(Kind::Stocked, units);
                let result = self.product(&sku).receive(units).await;
                return self.told.end(Kind::Stocked, units, &result);
            }
        }
        let (product, units) = (self.product(&sku), rand::random_range(1..=3));
        let product = if any(2) == 0 {
            product.reference(&format!("order-{:x}", rand::random::<u64>())).unwrap()
        } else {
            product
        };
        self.told.begin(Kind::Sold, units);
        let result = product.sell(units).deadline(ASKING).await;
        self.told.end(Kind::Sold, units, &result);
    }

    async fn count_in(&self) {
        let own = self.store.product(&format!("{}{}", own_prefix(&self.name), any(OWN))).unwrap();
        self.told.begin(Kind::Own, 1);
        let result = own.receive(1).await;
        self.told.end(Kind::Own, 1, &result);
    }

    async fn set_price(&self) {
        let product = self.store.product(&format!("priced-{}", any(PRICED))).unwrap();
        is_done(&product.set_price(price()).await);
    }

    /// Two products, of different shards more often than not: both or neither.
    async fn receive_pair(&self) {
        let number = any(PAIRED);
        let batch = self.store.batch().at(PLACE).unwrap();
        let batch = batch.receive(&format!("pair-a-{number}"), 2).unwrap();
        let batch = batch.receive(&format!("pair-b-{number}"), 2).unwrap();
        let batch = batch.set_price(&format!("pair-a-{number}"), price()).unwrap();
        self.told.begin(Kind::Paired, 2);
        let result = batch.commit().await;
        self.told.end(Kind::Paired, 2, &result);
    }

    async fn transfer(&self) {
        let product = self.product(&format!("pair-a-{}", any(PAIRED)));
        let (from, to) = if any(2) == 0 { (PLACE, "back") } else { ("back", PLACE) };
        is_done(&product.transfer(from, to, 1).deadline(ASKING).await);
    }

    async fn take_stock(&self) {
        let counted = rand::random_range(1_000..2_000);
        self.told.begin_count(counted);
        let result = self.product(&format!("count-{}", self.name)).stocktake(counted).await;
        self.told.end_count(&result);
    }

    /// Of each three holds one is sold, one is released, and one expires.
    async fn hold_for_ever(self: Arc<Self>) {
        for number in 0_u64.. {
            tokio::time::sleep(HOLD_EVERY).await;
            let _working = self.at_work.read().await;
            if !self.is_on.load(Ordering::SeqCst) {
                continue;
            }
            let time = Duration::from_millis(rand::random_range(1_000..=HOLD_MS_MAX));
            let result = self.product(&shared(any(SHARED))).hold(2, time).deadline(ASKING).await;
            is_done(&result);
            match (number % 3, result) {
                (0, Ok(hold)) => self.commit(&hold).await,
                (1, Ok(hold)) => drop(is_done(&hold.release().await)),
                _ => {}
            }
        }
    }

    async fn commit(&self, hold: &Hold) {
        self.told.begin(Kind::Sold, hold.units());
        let result = hold.commit().await;
        self.told.end(Kind::Sold, hold.units(), &result);
    }
}

fn price() -> Price {
    let cents = rand::random_range(100..10_000);
    Price::new(format!("{}.{:02}", cents / 100, cents % 100).parse().unwrap(), Currency::EUR).unwrap()
}

/// A subscriber that keeps up.
async fn read_all(store: Store) {
    let mut changes = store.subscribe(Filter::prefix("shared-").below(20));
    drop(store);
    while changes.next().await.is_some() {}
}

/// A subscriber that lags behind all the time, and so must catch up.
async fn read_slowly(store: Store) {
    let mut changes = store.subscribe(Filter::all());
    drop(store);
    while changes.next().await.is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
