//! Values that tasks wait for: tokio's own. In tests they are wrapped, so that those who wait are woken in the order in
//! which they came, since tokio wakes them in an order that is drawn at random, and a simulation could not be repeated.

#[cfg(all(test, stockmesh_shuttle))]
pub(crate) use crate::sync::watch::{Receiver, Sender};

#[cfg(not(any(feature = "testing", all(test, stockmesh_shuttle))))]
pub(crate) use tokio::sync::watch::{Receiver, Sender};

#[cfg(all(feature = "testing", not(all(test, stockmesh_shuttle))))]
pub(crate) use ordered::{Receiver, Sender};

#[cfg(all(feature = "testing", not(all(test, stockmesh_shuttle))))]
mod ordered {
    use std::pin::pin;
    use std::sync::Arc;

    use tokio::sync::Notify;
    use tokio::sync::watch::error::RecvError;
    use tokio::sync::watch::{self, Ref};

    /// Wakes all that wait, also when it is dropped.
    #[derive(Clone, Debug, Default)]
    struct News(Arc<Notify>);

    impl Drop for News {
        fn drop(&mut self) {
            self.0.notify_waiters();
        }
    }

    #[derive(Debug)]
    pub(crate) struct Sender<T> {
        // Dropped first, so that whoever is woken by the other finds it closed.
        inner: watch::Sender<T>,
        news: News,
    }

    #[derive(Debug)]
    pub(crate) struct Receiver<T> {
        inner: watch::Receiver<T>,
        news: Arc<Notify>,
    }

    impl<T> Sender<T> {
        pub(crate) fn new(value: T) -> Self {
            Self { inner: watch::Sender::new(value), news: News::default() }
        }

        pub(crate) fn subscribe(&self) -> Receiver<T> {
            Receiver { inner: self.inner.subscribe(), news: Arc::clone(&self.news.0) }
        }

        pub(crate) fn borrow(&self) -> Ref<'_, T> {
            self.inner.borrow()
        }

        pub(crate) fn send_replace(&self, value: T) -> T {
            let before = self.inner.send_replace(value);
            self.news.0.notify_waiters();
            before
        }

        pub(crate) fn send_modify(&self, modify: impl FnOnce(&mut T)) {
            self.inner.send_modify(modify);
            self.news.0.notify_waiters();
        }

        pub(crate) fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) -> bool {
            let is_modified = self.inner.send_if_modified(modify);
            if is_modified {
                self.news.0.notify_waiters();
            }
            is_modified
        }
    }

    impl<T> Clone for Sender<T> {
        fn clone(&self) -> Self {
            Self { inner: self.inner.clone(), news: self.news.clone() }
        }
    }

    impl<T> Clone for Receiver<T> {
        fn clone(&self) -> Self {
            Self { inner: self.inner.clone(), news: Arc::clone(&self.news) }
        }
    }

    impl<T> Receiver<T> {
        #[cfg(feature = "clients")]
        pub(crate) fn borrow(&self) -> Ref<'_, T> {
            self.inner.borrow()
        }

        pub(crate) fn borrow_and_update(&mut self) -> Ref<'_, T> {
            self.inner.borrow_and_update()
        }

        pub(crate) async fn changed(&mut self) -> Result<(), RecvError> {
            loop {
                let mut news = pin!(self.news.notified());
                news.as_mut().enable();
                match self.inner.has_changed() {
                    Ok(false) => news.await,
                    Ok(true) => {
                        self.inner.mark_unchanged();
                        return Ok(());
                    }
                    // Closed: this ends at once, with the last change if it was not seen.
                    Err(_) => return self.inner.changed().await,
                }
            }
        }

        pub(crate) async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Ref<'_, T>, RecvError> {
            while !wanted(&self.inner.borrow_and_update()) {
                self.changed().await?;
            }
            Ok(self.inner.borrow())
        }
    }
}
