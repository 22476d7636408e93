//! tokio's `broadcast`, scheduled.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::broadcast;
use tokio_stream::wrappers;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::choose;

pub(crate) struct Sender<T>(broadcast::Sender<T>);

pub(crate) struct WeakSender<T>(broadcast::WeakSender<T>);

pub(crate) struct Receiver<T>(broadcast::Receiver<T>);

shows!(Sender WeakSender Receiver BroadcastStream);
chooses!(Sender, broadcast::Sender<T>);
chooses!(Receiver, broadcast::Receiver<T>);
chooses_mut!(Receiver);

pub(crate) fn channel<T: Clone>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = broadcast::channel(capacity);
    (Sender(sender), Receiver(receiver))
}

impl<T: Clone> Sender<T> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(broadcast::Sender::new(capacity))
    }

    pub(crate) fn subscribe(&self) -> Receiver<T> {
        choose();
        Receiver(self.0.subscribe())
    }

    pub(crate) fn downgrade(&self) -> WeakSender<T> {
        choose();
        WeakSender(self.0.downgrade())
    }
}

impl<T> WeakSender<T> {
    pub(crate) fn upgrade(&self) -> Option<Sender<T>> {
        choose();
        self.0.upgrade().map(Sender)
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for WeakSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        choose();
    }
}

pub(crate) struct BroadcastStream<T>(wrappers::BroadcastStream<T>);

impl<T: Clone + Send + 'static> BroadcastStream<T> {
    pub(crate) fn new(receiver: Receiver<T>) -> Self {
        Self(wrappers::BroadcastStream::new(receiver.0))
    }
}

impl<T: Clone + Send + 'static> Stream for BroadcastStream<T> {
    type Item = Result<T, BroadcastStreamRecvError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        choose();
        Pin::new(&mut self.0).poll_next(context)
    }
}
