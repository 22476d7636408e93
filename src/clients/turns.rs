//! Requests under one reference, one at a time: a client that lost its connection asks again, while its first request may
//! still be under way here, waiting for rights. The second ends the first, and only then begins. So what it is told holds
//! for both (rule X6).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use stockmesh_proto::Reference;
use tokio::sync::OwnedMutexGuard;

use crate::watch;

/// The references under which requests are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<BTreeMap<Reference, Entry>>>);

#[derive(Clone, Debug)]
struct Entry {
    /// How many came under this reference.
    newest: watch::Sender<u64>,
    lock: Arc<tokio::sync::Mutex<()>>,
}

/// The right to act under a reference, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    all: Turns,
    reference: Reference,
    number: u64,
    newest: watch::Receiver<u64>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Ends whatever is under way under the reference, and waits for its end. `None` if a newer one came meanwhile.
    pub(super) async fn begin(&self, reference: &Reference) -> Option<Turn> {
        let (lock, mut turn) = {
            let mut entries = self.0.lock();
            let new = || Entry { newest: watch::Sender::new(0), lock: Arc::default() };
            let entry = entries.entry(reference.clone()).or_insert_with(new);
            entry.newest.send_modify(|count| *count += 1);
            let newest = entry.newest.subscribe();
            let number = *newest.borrow();
            let turn = Turn { all: self.clone(), reference: reference.clone(), number, newest, guard: None };
            (Arc::clone(&entry.lock), turn)
        };
        let mut newest = turn.newest.clone();
        let number = turn.number;
        tokio::select! {
            guard = lock.lock_owned() => turn.guard = Some(guard),
            _ = newest.wait_for(|newest| *newest != number) => return None,
        }
        Some(turn)
    }
}

impl Turn {
    /// Resolves when the same reference is asked for again.
    pub(super) async fn superseded(&self) {
        let (mut newest, number) = (self.newest.clone(), self.number);
        let _ = newest.wait_for(|newest| *newest != number).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.guard.take());
        let mut entries = self.all.0.lock();
        // Whoever is the last forgets the reference: others hold the lock, or wait for it.
        if entries.get(&self.reference).is_some_and(|entry| Arc::strong_count(&entry.lock) == 1) {
            entries.remove(&self.reference);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_request_of_a_reference_ends_the_others() {
        let (turns, reference) = (Turns::default(), Reference::new("order 7").unwrap());
        let other = turns.begin(&Reference::new("order 8").unwrap()).await.unwrap();
        let first = turns.begin(&reference).await.unwrap();
        let begin = |turns: Turns, reference: Reference| tokio::spawn(async move { turns.begin(&reference).await });
        let second = begin(turns.clone(), reference.clone());
        first.superseded().await;
        let third = begin(turns.clone(), reference.clone());
        assert!(second.await.unwrap().is_none(), "the third came before the first had ended");
        assert!(!third.is_finished(), "the first goes on");
        drop(first);
        let third = third.await.unwrap().unwrap();
        assert_eq!(turns.0.lock().len(), 2);
        drop((third, other));
        assert!(turns.0.lock().is_empty());
    }
}
