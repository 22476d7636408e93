//! Which replicas this node is retiring right now. Of two calls for the same one the second waits: each would end links
//! that the other needs, and once the first is done there is nobody left to ask.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;
use stockmesh_proto::ReplicaId;
use tokio::sync::Notify;

/// The replicas, and who waits for one of them.
#[derive(Debug, Default)]
pub(super) struct Retiring {
    replicas: Mutex<BTreeSet<ReplicaId>>,
    ended: Notify,
}

/// This node is retiring a replica, for as long as this lives.
#[derive(Debug)]
pub(crate) struct RetiringTurn {
    replica: ReplicaId,
    retiring: Arc<Retiring>,
}

impl Retiring {
    /// Waits until nobody else here is retiring the replica.
    pub(super) async fn turn(self: &Arc<Self>, replica: ReplicaId) -> RetiringTurn {
        loop {
            // Asked for before it is looked, so that no end is missed.
            let ended = self.ended.notified();
            if self.replicas.lock().insert(replica) {
                return RetiringTurn { replica, retiring: Arc::clone(self) };
            }
            ended.await;
        }
    }
}

impl Drop for RetiringTurn {
    fn drop(&mut self) {
        self.retiring.replicas.lock().remove(&self.replica);
        self.retiring.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn one_replica_is_retired_by_one_at_a_time() {
        let retiring = Arc::<Retiring>::default();
        let [one, other] = [1, 2].map(ReplicaId::from_random);
        let first = retiring.turn(one).await;
        let _elsewhere = timeout(PATIENCE, retiring.turn(other)).await.expect("another replica");
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let retiring = Arc::clone(&retiring);
                tokio::spawn(async move { drop(retiring.turn(one).await) })
            })
            .collect();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(waiting.iter().all(|task| !task.is_finished()));
        drop(first);
        for task in waiting {
            timeout(PATIENCE, task).await.expect("each comes to it").unwrap();
        }
    }
}
