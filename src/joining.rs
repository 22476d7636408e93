//! How a node catches up with its peers, for whoever wants to watch.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

pub use crate::net::JoinProgress;

/// How a node catches up, made by [`Store::joining`](crate::Store::joining): how it stands now, then whenever that has
/// changed. Ends when the node has caught up, with [`JoinProgress::catching_up`] false in the last item, or when the store
/// is closed. A stream, and with [`Joining::next`] usable without one of the stream libraries. Each reader sees the newest
/// figures when it looks: a slow one skips some, and nobody waits for it.
#[derive(Debug)]
pub struct Joining {
    progress: Option<WatchStream<JoinProgress>>,
}

impl Joining {
    pub(crate) fn new(progress: Option<watch::Receiver<JoinProgress>>) -> Self {
        // Of a store without a network, or closed: one item, and the end.
        let progress = progress.unwrap_or_else(|| watch::channel(JoinProgress::default()).1);
        Self { progress: Some(WatchStream::new(progress)) }
    }

    /// The next figures; `None` once the node has caught up or the store is closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<JoinProgress> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Joining {
    type Item = JoinProgress;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<JoinProgress>> {
        let Some(progress) = &mut self.progress else { return Poll::Ready(None) };
        let next = Pin::new(progress).poll_next(context);
        if let Poll::Ready(item) = &next
            && item.as_ref().is_none_or(|progress| !progress.catching_up)
        {
            self.progress = None;
        }
        next
    }
}
