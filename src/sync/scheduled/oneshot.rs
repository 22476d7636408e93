//! tokio's `oneshot`, scheduled.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::choose;

pub(crate) struct Sender<T>(oneshot::Sender<T>);

pub(crate) struct Receiver<T>(oneshot::Receiver<T>);

shows!(Sender Receiver);

pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = oneshot::channel();
    (Sender(sender), Receiver(receiver))
}

impl<T> Sender<T> {
    pub(crate) fn send(self, value: T) -> Result<(), T> {
        choose();
        self.0.send(value)
    }
}

impl<T> Future for Receiver<T> {
    type Output = Result<T, oneshot::error::RecvError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        choose();
        Pin::new(&mut self.0).poll(context)
    }
}
