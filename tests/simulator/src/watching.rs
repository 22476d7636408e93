//! Subscribers at a node, and what they were told last of each product.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use stockmesh::{Change, Changes, Filter, ProductView, Store};
use tokio::task::{AbortHandle, unconstrained};

use crate::crossings::{Crossings, LOW};

/// What a view says that a subscriber would act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Units on hand.
    pub on_hand: i128,
    /// Units held.
    pub held: i128,
    /// The price, as text.
    pub price: Option<String>,
    /// Whether it is listed.
    pub listed: Option<bool>,
}

impl Told {
    /// Of a view.
    #[must_use]
    pub fn of(view: &ProductView) -> Self {
        let price = view.price().map(|price| price.to_string());
        Self { on_hand: view.on_hand(), held: view.held(), price, listed: view.listed() }
    }
}

/// A subscription to everything, one to what runs low, and one that is read seldom, from the opening of a node on.
#[derive(Debug)]
pub struct Watched {
    told: Arc<Mutex<BTreeMap<String, Told>>>,
    /// How often something was told, by product.
    tellings: Arc<Mutex<BTreeMap<String, u64>>>,
    crossings: Arc<Mutex<Crossings>>,
    seldom: Mutex<Seldom>,
    tasks: [AbortHandle; 2],
}

/// A subscriber that is away most of the time, and misses much.
#[derive(Debug)]
struct Seldom {
    changes: Changes,
    told: BTreeMap<String, Told>,
    lags: u64,
}

impl Seldom {
    /// Reads all that waits, also if it is more than what the runtime lets a task read at once.
    fn read(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(change)) = pin!(unconstrained(self.changes.next())).poll(&mut context) {
            match change {
                Change::Product(view) => drop(self.told.insert(view.sku().to_string(), Told::of(&view))),
                Change::Lagged { .. } => self.lags += 1,
                _ => {}
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Watched {
    /// Subscribes, and reads the present views as a user would.
    #[must_use]
    pub fn start(store: &Store) -> Self {
        let mut changes = store.subscribe(Filter::all());
        let present: BTreeMap<String, Told> =
            store.query().iter().map(|view| (view.sku().to_string(), Told::of(&view))).collect();
        let seldom = Seldom { changes: store.subscribe(Filter::all()), told: present.clone(), lags: 0 };
        let told = Arc::new(Mutex::new(present));
        let (noted, tellings) = (Arc::clone(&told), Arc::default());
        let counted: Arc<Mutex<BTreeMap<String, u64>>> = Arc::clone(&tellings);
        let task = tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                if let Change::Product(view) = change {
                    noted.lock().insert(view.sku().to_string(), Told::of(&view));
                    *counted.lock().entry(view.sku().to_string()).or_default() += 1;
                }
            }
        });
        let mut events = store.subscribe(Filter::all().below(LOW).events_only());
        let crossings = Arc::new(Mutex::new(Crossings::begin(store)));
        let crossed = Arc::clone(&crossings);
        let crossing = tokio::spawn(async move {
            while let Some(change) = events.next().await {
                crossed.lock().note(&change);
            }
        });
        Self {
            told,
            tellings,
            crossings,
            seldom: Mutex::new(seldom),
            tasks: [task.abort_handle(), crossing.abort_handle()],
        }
    }

    /// What was told last, by product.
    #[must_use]
    pub fn told(&self) -> BTreeMap<String, Told> {
        self.told.lock().clone()
    }

    /// How often something was told of a product.
    #[must_use]
    pub fn tellings(&self, sku: &str) -> u64 {
        self.tellings.lock().get(sku).copied().unwrap_or_default()
    }

    /// What was told last, by product, to whoever reads seldom and does so now. And how often that one had missed something.
    #[must_use]
    pub fn told_now(&self) -> (BTreeMap<String, Told>, u64) {
        let mut seldom = self.seldom.lock();
        seldom.read();
        (seldom.told.clone(), seldom.lags)
    }

    /// What was told of stock that runs low.
    #[must_use]
    pub fn crossings(&self) -> Crossings {
        self.crossings.lock().clone()
    }
}
