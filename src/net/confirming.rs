//! Waiting until peers confirm what they hold.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::link::Link;
use super::node::Node;
use crate::error::ReplicationError;
use crate::limits::ASK_AGAIN_AFTER;

impl Node {
    /// Waits until so many linked peers hold all that is applied now. Asks them by reconciling.
    pub(crate) async fn await_replicated(&self, wanted: usize, timeout: Duration) -> Result<(), ReplicationError> {
        let target = self.shared.committer.applied();
        // A copy that nobody could get back is none.
        let waiting = self.await_confirmed(target, Link::keeps_copies, |confirmed, _| confirmed >= wanted);
        let late = |_| ReplicationError::TimedOut { confirmed: self.confirmed(target, Link::keeps_copies).0, wanted };
        tokio::time::timeout(timeout, waiting).await.map_err(late)?
    }

    /// Waits until all peers that are still linked hold all that is applied now, or time runs out.
    pub(crate) async fn drain(&self, timeout: Duration) {
        let target = self.shared.committer.applied();
        if self.is_read_only() {
            return;
        }
        let waiting = self.await_confirmed(target, |_| true, |confirmed, linked| confirmed >= linked);
        let _ = tokio::time::timeout(timeout, waiting).await;
    }

    /// How many linked peers that count confirmed to hold all that was applied up to `target`, and how many are linked.
    fn confirmed(&self, target: u64, counts: fn(&Link) -> bool) -> (usize, usize) {
        let links: Vec<_> = self.shared.registry.links().into_iter().filter(|link| counts(link)).collect();
        let confirmed = links.iter().filter(|link| link.confirmed_group.load(Ordering::SeqCst) >= target).count();
        (confirmed, links.len())
    }

    async fn await_confirmed(
        &self,
        target: u64,
        counts: fn(&Link) -> bool,
        enough: impl Fn(usize, usize) -> bool,
    ) -> Result<(), ReplicationError> {
        let shared = &self.shared;
        let mut confirmations = shared.confirmations.subscribe();
        let mut asked = BTreeSet::new();
        loop {
            let (confirmed, linked) = self.confirmed(target, counts);
            if enough(confirmed, linked) {
                return Ok(());
            }
            if shared.committer.failure().is_some() || shared.committer.is_closed() {
                return Err(ReplicationError::Stopped);
            }
            if asked.is_empty() {
                // What is not durable yet cannot be confirmed: to ask before would be to ask twice. A committer that
                // stopped is noticed in the next round.
                let _ = shared.committer.barrier().await;
            }
            for link in shared.registry.links() {
                if link.confirmed_group.load(Ordering::SeqCst) >= target {
                    continue;
                }
                if link.may_ask(asked.insert(link.replica)) {
                    link.await_reconciliation();
                    shared.want_reconciliation(link.replica);
                }
            }
            tokio::select! {
                biased;
                _ = confirmations.changed() => {}
                () = shared.until_changed() => {}
                () = tokio::time::sleep(ASK_AGAIN_AFTER) => {}
            }
        }
    }
}
