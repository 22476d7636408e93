//! Subscriptions: changes as a stream of fresh views.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use futures_core::Stream;
use stockmesh_proto::product::KeyedProduct;
use stockmesh_proto::{InvalidInput, Location, ReplicaId, Sku};
use tokio::time::Instant;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::limits::{IDENTITY_TELL_EVERY, LAG_BATCHES_MAX};
use crate::member::Member;
use crate::query::{Products, Query};
use crate::sync::{BroadcastStream, RwLock, broadcast};
use crate::table::Table;
use crate::view::ProductView;
use crate::witness::{Incarnation, Witness};

/// A product that a batch changed.
#[derive(Debug)]
pub(crate) struct ProductChange {
    pub(crate) sku: Sku,
    /// What was available before and after, if somebody watches for stock that runs low. Numbers, and not the product
    /// itself: a reader that is slow must not keep many old products alive.
    pub(crate) available: Option<Available>,
}

/// Units available before and after a batch.
#[derive(Debug)]
pub(crate) struct Available {
    all: (i128, i128),
    /// Where it changed.
    by_location: Vec<(Location, i128, i128)>,
}

impl Available {
    /// Compares a product before and after.
    pub(crate) fn compare(before: Option<&KeyedProduct>, after: &KeyedProduct) -> Self {
        let all = |product: &KeyedProduct| product.on_hand() - product.held();
        let at = |product: &KeyedProduct, location: &Location| product.available_at(location);
        let mut by_location: Vec<(Location, i128, i128)> = Vec::new();
        // Stock is in the order of locations, so that those of one stand together; inheritances are few.
        let compared = |location: &Location| {
            let units = before.map_or(0, |before| at(before, location));
            (location.clone(), units, at(after, location))
        };
        for slot in after.stock() {
            if by_location.last().is_none_or(|(location, ..)| *location != slot.location) {
                by_location.push(compared(&slot.location));
            }
        }
        for slot in after.inheritances() {
            if by_location.iter().all(|(location, ..)| *location != slot.location) {
                by_location.push(compared(&slot.location));
            }
        }
        by_location.retain(|(_, before, after)| before != after);
        Self { all: (before.map_or(0, all), all(after)), by_location }
    }

    fn at(&self, location: Option<&Location>) -> (i128, i128) {
        let Some(location) = location else { return self.all };
        let found = self.by_location.iter().find(|(changed, ..)| changed == location);
        found.map_or((0, 0), |(_, before, after)| (*before, *after))
    }
}

/// What one committed batch changed.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    pub(crate) products: Vec<ProductChange>,
    /// The id that was left and the new one, if there is a new one.
    pub(crate) incarnation: Option<Incarnation>,
    /// No batch: the own certificate expires soon.
    pub(crate) identity_expires: Option<SystemTime>,
    /// No batch: members came, went down, or left.
    pub(crate) members: Vec<Member>,
}

/// A notice, shared by all readers.
pub(crate) type Changed = Arc<Notice>;

/// Which products a subscription covers, and what it tells of them.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    prefix: String,
    below: Option<i128>,
    location: Option<Location>,
    events_only: bool,
}

impl Filter {
    /// All products.
    pub fn all() -> Self {
        Self::default()
    }

    /// Products whose SKU starts with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// Tells also when the units available fall below `units` ([`Change::LowStock`]), when none are left, and when there
    /// are some again. It is told of each crossing, once, by comparing before and after each committed batch.
    #[must_use]
    pub fn below(mut self, units: i128) -> Self {
        self.below = Some(units);
        self
    }

    /// Looks at the units available at one location for that, in place of all together.
    ///
    /// # Errors
    /// If the location is not valid.
    pub fn at(mut self, location: &str) -> Result<Self, InvalidInput> {
        self.location = Some(Location::new(location)?);
        Ok(self)
    }

    /// Leaves [`Change::Product`] out, so that only crossings are told, and what no subscription goes without.
    #[must_use]
    pub fn events_only(mut self) -> Self {
        self.events_only = true;
        self
    }

    /// The same for a node elsewhere.
    #[cfg(feature = "clients")]
    pub(crate) fn to_wire(&self) -> stockmesh_proto::wire::client::Watch {
        use stockmesh_proto::wire::client::{Shown, Text, Watch};
        Watch {
            prefix: Text::new(&self.prefix),
            below: self.below.map(Shown),
            at: self.location.clone(),
            events_only: self.events_only,
        }
    }

    fn available(&self, product: &KeyedProduct) -> i128 {
        match &self.location {
            Some(location) => product.available_at(location),
            None => product.on_hand() - product.held(),
        }
    }

    /// What is to be told of a change from one number of available units to another.
    fn crossings(&self, (before, units): (i128, i128), view: &ProductView) -> impl Iterator<Item = Change> {
        let view = || view.clone();
        let low = self.below.filter(|below| before >= *below && units < *below);
        let low = low.map(|below| Change::LowStock { product: view(), available: units, below });
        let watched = self.below.is_some();
        let out = (watched && before > 0 && units <= 0).then(|| Change::OutOfStock(view()));
        let back = (watched && before <= 0 && units > 0).then(|| Change::BackInStock(view()));
        [low, out, back].into_iter().flatten()
    }

    fn matches(&self, sku: &Sku) -> bool {
        sku.as_str().starts_with(&self.prefix)
    }
}

/// What a subscription delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A product changed; the view is fresh. Changes that follow closely may be delivered as one.
    Product(ProductView),
    /// The units available fell below what [`Filter::below`] names.
    LowStock {
        /// The product, as it is when this is told.
        product: ProductView,
        /// Units available after the batch that took them there, at the filter's location if it names one.
        available: i128,
        /// The number that they fell below.
        below: i128,
    },
    /// Nothing is available any more. Told with [`Filter::below`].
    OutOfStock(ProductView),
    /// Something is available where there was nothing. Told with [`Filter::below`], also of a new product.
    BackInStock(ProductView),
    /// This directory turned out to be an old copy or a clone, or somebody forged its writes, and it writes under a new replica id from now on. Told to
    /// every subscription, whatever its filter: look for who else runs on a copy of this directory.
    NewIncarnation {
        /// The id that was left.
        former: ReplicaId,
        /// The new id.
        own: ReplicaId,
        /// The link over which the reason came, if it came over one: with a directory that is no copy, somebody there, or
        /// behind it, forged writes of this node.
        shown_by: Option<Witness>,
    },
    /// This node's certificate expires within 30 days, or has expired: after that no peer lets it in, see
    /// [`Store::reload_identity`](crate::Store::reload_identity). Told to every subscription, whatever its filter, at its
    /// beginning, at each change of the identity, and then once a day.
    IdentityExpires {
        /// When.
        at: SystemTime,
    },
    /// A member of the cluster came up, went down, or left; its state says which. Told to every subscription, whatever
    /// its filter.
    Member(Member),
    /// The reader was too slow and missed some batches. What follows first is the present view of every product that
    /// the filter covers, so that nothing stays unseen; with [`Filter::below`] also, once more, what is low or out of
    /// stock now. Of the rest that may have been missed, members and their state are in
    /// [`Store::members`](crate::Store::members), a new replica id and the end of the certificate in
    /// [`Store::status`](crate::Store::status).
    Lagged {
        /// How many committed batches were missed.
        missed: u64,
    },
}

/// Changes of products, told once they are durable here. The view delivered is the present one, and may already show
/// the next write too. Ends when the store is closed.
///
/// A stream, and with [`Changes::next`] usable without one of the stream libraries. A reader that lags far behind costs
/// no memory: it is told with [`Change::Lagged`], and starts over from a fresh view of everything.
///
/// ```
/// use stockmesh::{Change, Filter};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
/// let mut changes = store.subscribe(Filter::prefix("MUG"));
/// store.product("PLATE-07")?.receive(5).await?; // not covered by the filter
/// store.product("MUG-01")?.receive(12).await?;
///
/// match changes.next().await {
///     Some(Change::Product(product)) => assert_eq!((product.sku().as_str(), product.on_hand()), ("MUG-01", 12)),
///     Some(Change::Lagged { missed }) => println!("{missed} batches missed; views of all products follow"),
///     _ => println!("the store was closed"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Changes {
    table: Arc<Table>,
    filter: Filter,
    batches: BroadcastStream<Changed>,
    /// Only to begin anew at the latest batch after a lag.
    source: broadcast::WeakSender<Changed>,
    pending: VecDeque<Pending>,
    /// The end of the certificate that was told at the beginning, and when: it may be told to all a moment later.
    expiry_told: Option<(SystemTime, Instant)>,
    /// Counts those who watch for low stock, so that the committer keeps what they compare.
    watch: Option<Watch>,
    /// After a lag: the present view of everything.
    catching_up: Option<Box<Products>>,
}

impl Changes {
    pub(crate) fn new(
        table: Arc<Table>,
        filter: Filter,
        source: broadcast::WeakSender<Changed>,
        watchers: Watchers,
    ) -> Self {
        // Before the first batch that it will see.
        let watch = filter.below.is_some().then(|| Watch::begin(watchers));
        let batches = from_now_on(&source);
        let (pending, expiry_told) = (VecDeque::new(), None);
        Self { table, filter, batches, source, pending, expiry_told, watch, catching_up: None }
    }

    /// Tells first that the own certificate expires, if it does so soon.
    pub(crate) fn beginning_with(mut self, expires: Option<SystemTime>) -> Self {
        self.expiry_told = expires.map(|at| (at, Instant::now()));
        self.pending.extend(expires.map(|at| Pending::Event(Change::IdentityExpires { at })));
        self
    }

    /// Whether the same was told at the beginning, not long ago.
    fn is_told(&self, expires: SystemTime) -> bool {
        self.expiry_told.is_some_and(|(at, told)| at == expires && told.elapsed() < IDENTITY_TELL_EVERY / 2)
    }

    /// The next change; `None` once the store is closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Change> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    fn ready(&mut self) -> Option<Change> {
        loop {
            match self.pending.pop_front() {
                Some(Pending::Event(event)) => return Some(event),
                Some(Pending::Product(sku)) => {
                    if let Some(product) = self.table.get(sku.as_str()) {
                        return Some(Change::Product(ProductView::new(product)));
                    }
                }
                None => {
                    let Some(view) = self.catching_up.as_mut().and_then(|products| products.next()) else { break };
                    // Seen from plenty, so that all that is low now is told.
                    let units = self.filter.available(view.product());
                    self.pending.extend(self.filter.crossings((i128::MAX, units), &view).map(Pending::Event));
                    if !self.filter.events_only {
                        return Some(Change::Product(view));
                    }
                }
            }
        }
        self.catching_up = None;
        None
    }

    /// Notes what a batch changed.
    fn take(&mut self, notice: &Notice) {
        self.pending.extend(notice.members.iter().cloned().map(|member| Pending::Event(Change::Member(member))));
        for change in notice.products.iter().filter(|change| self.filter.matches(&change.sku)) {
            if !self.filter.events_only {
                self.pending.push_back(Pending::Product(change.sku.clone()));
            }
            if let (Some(available), Some(_)) = (&change.available, &self.watch)
                && let Some(product) = self.table.get(change.sku.as_str())
            {
                let units = available.at(self.filter.location.as_ref());
                self.pending.extend(self.filter.crossings(units, &ProductView::new(product)).map(Pending::Event));
            }
        }
    }
}

/// What is to be told next.
#[derive(Debug)]
enum Pending {
    /// The present view of a product.
    Product(Sku),
    Event(Change),
}

/// How many watch for low stock. The committer holds it while it looks at it and then changes products, so that whoever
/// begins to watch finds a product as it is after a change, or is told what the change did.
pub(crate) type Watchers = Arc<RwLock<usize>>;

/// Somebody who watches for low stock, for as long as this lives.
#[derive(Debug)]
struct Watch(Watchers);

impl Watch {
    fn begin(watchers: Watchers) -> Self {
        *watchers.write() += 1;
        Self(watchers)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.0.write() -= 1;
    }
}

/// Batches from now on; an ended stream if the store is closed.
fn from_now_on(source: &broadcast::WeakSender<Changed>) -> BroadcastStream<Changed> {
    let receiver = source.upgrade().map_or_else(|| broadcast::channel(1).1, |sender| sender.subscribe());
    BroadcastStream::new(receiver)
}

impl Stream for Changes {
    type Item = Change;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Change>> {
        loop {
            if let Some(change) = self.ready() {
                return Poll::Ready(Some(change));
            }
            match Pin::new(&mut self.batches).poll_next(context) {
                Poll::Ready(Some(Ok(changed))) => {
                    self.take(&changed);
                    if let Some(at) = changed.identity_expires.filter(|at| !self.is_told(*at)) {
                        return Poll::Ready(Some(Change::IdentityExpires { at }));
                    }
                    if let Some(Incarnation { former, own, shown_by }) = changed.incarnation.clone() {
                        return Poll::Ready(Some(Change::NewIncarnation { former, own, shown_by }));
                    }
                }
                Poll::Ready(Some(Err(BroadcastStreamRecvError::Lagged(missed)))) => {
                    // The batches that are still kept are in the views that follow. To read them too would leave the reader
                    // a full channel behind, so that the very next commit makes it lag again, without end.
                    self.batches = from_now_on(&self.source);
                    let missed = missed + u64::try_from(LAG_BATCHES_MAX).unwrap_or_default();
                    let query = Query::new(Arc::clone(&self.table)).prefix(&self.filter.prefix);
                    self.catching_up = Some(Box::new(query.iter()));
                    return Poll::Ready(Some(Change::Lagged { missed }));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
