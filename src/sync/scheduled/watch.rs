//! tokio's `watch`, scheduled.

use tokio::sync::watch;

use super::choose;

pub(crate) struct Sender<T>(watch::Sender<T>);

pub(crate) struct Receiver<T>(watch::Receiver<T>);

shows!(Sender Receiver);
chooses!(Sender, watch::Sender<T>);
chooses!(Receiver, watch::Receiver<T>);
chooses_mut!(Receiver);

impl<T> Sender<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(watch::Sender::new(value))
    }

    pub(crate) fn subscribe(&self) -> Receiver<T> {
        choose();
        Receiver(self.0.subscribe())
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
