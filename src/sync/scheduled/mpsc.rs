//! tokio's `mpsc`, scheduled.

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendError;

use super::choose;

pub(crate) struct Sender<T>(mpsc::Sender<T>);

pub(crate) struct WeakSender<T>(mpsc::WeakSender<T>);

pub(crate) struct Receiver<T>(mpsc::Receiver<T>);

shows!(Sender WeakSender Receiver);
chooses!(Sender, mpsc::Sender<T>);
chooses!(Receiver, mpsc::Receiver<T>);
chooses_mut!(Receiver);

pub(crate) fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel(capacity);
    (Sender(sender), Receiver(receiver))
}

impl<T> Sender<T> {
    /// As tokio does it, in two steps: room in the queue is taken first.
    pub(crate) async fn send(&self, value: T) -> Result<(), SendError<T>> {
        choose();
        match self.0.reserve().await {
            Ok(permit) => {
                choose();
                permit.send(value);
                Ok(())
            }
            Err(_) => Err(SendError(value)),
        }
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

impl<T> Receiver<T> {
    /// tokio's would block the one real thread that all threads of a model share.
    pub(crate) fn blocking_recv(&mut self) -> Option<T> {
        choose();
        shuttle::future::block_on(self.0.recv())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        choose();
    }
}
