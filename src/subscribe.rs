//! Subscriptions: changes as a stream of fresh views.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;
use stockmesh_proto::{ReplicaId, Sku};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::limits::LAG_BATCHES_MAX;
use crate::query::{Products, Query};
use crate::table::Table;
use crate::view::ProductView;

/// What one committed batch changed.
#[derive(Debug, Default)]
pub(crate) struct Notice {
    pub(crate) products: Vec<Sku>,
    /// The id that was left and the new one, if there is a new one.
    pub(crate) incarnation: Option<(ReplicaId, ReplicaId)>,
}

/// A notice, shared by all readers.
pub(crate) type Changed = Arc<Notice>;

/// Which products a subscription covers.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    prefix: String,
}

impl Filter {
    /// All products.
    pub fn all() -> Self {
        Self::default()
    }

    /// Products whose SKU starts with `prefix`.
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
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
    /// This directory turned out to be an old copy or a clone, and writes under a new replica id from now on. Told to
    /// every subscription, whatever its filter: look for who else runs on a copy of this directory.
    NewIncarnation {
        /// The id that was left.
        former: ReplicaId,
        /// The new id.
        own: ReplicaId,
    },
    /// The reader was too slow and missed some batches. What follows first is the present view of every product that
    /// the filter covers, so that nothing stays unseen.
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
    pending: VecDeque<Sku>,
    /// After a lag: the present view of everything.
    catching_up: Option<Box<Products>>,
}

impl Changes {
    pub(crate) fn new(table: Arc<Table>, filter: Filter, source: broadcast::WeakSender<Changed>) -> Self {
        let batches = from_now_on(&source);
        Self { table, filter, batches, source, pending: VecDeque::new(), catching_up: None }
    }

    /// The next change; `None` once the store is closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Change> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    fn ready(&mut self) -> Option<Change> {
        if let Some(view) = self.catching_up.as_mut().and_then(|products| products.next()) {
            return Some(Change::Product(view));
        }
        self.catching_up = None;
        while let Some(sku) = self.pending.pop_front() {
            if let Some(product) = self.table.get(sku.as_str()) {
                return Some(Change::Product(ProductView::new(product)));
            }
        }
        None
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
                    let filter = self.filter.clone();
                    self.pending.extend(changed.products.iter().filter(|sku| filter.matches(sku)).cloned());
                    if let Some((former, own)) = changed.incarnation {
                        return Poll::Ready(Some(Change::NewIncarnation { former, own }));
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
