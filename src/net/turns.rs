//! Whom this node reconciles with, and when; and that links end which may not go on.

use std::sync::atomic::Ordering;
use std::time::Duration;

use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::topology::reconcile_with;
use stockmesh_proto::{Location, ReplicaId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use super::pull::reconcile;
use super::refusal::{CloseCode, NEW_INCARNATION};
use super::shared::Shared;
use super::trust;
use super::verdict::judge;
use crate::commit::Event;

/// Reconciles with a random peer now and then, and at once with those who are wanted urgently.
pub(super) async fn reconcile_for_ever(every: Duration, mut urgent: mpsc::Receiver<ReplicaId>, shared: Shared) {
    let next_turn = || Instant::now() + every.mul_f64(crate::chance::random_range(0.75..=1.25));
    // Urgent wishes do not put it off, or a peer that always has one would keep the others from theirs.
    let mut turn = next_turn();
    loop {
        let link = tokio::select! {
            biased;
            () = tokio::time::sleep_until(turn) => {
                turn = next_turn();
                let mut links = shared.registry.links();
                links.retain(|link| link.direction().is_some());
                let locations: Vec<&Location> = links.iter().map(|link| &link.location).collect();
                let chosen = reconcile_with(&shared.location, &locations, &mut crate::chance::random::<u64>);
                chosen.and_then(|place| links.get(place).cloned())
            }
            replica = urgent.recv() => match replica {
                Some(replica) => shared.registry.link(replica),
                None => return,
            },
        };
        let Some(link) = link else { continue };
        // One at a time per link: whoever finds it busy leaves its wish behind.
        link.wanted.store(true, Ordering::SeqCst);
        if link.reconciling.try_lock().is_err() {
            continue;
        }
        let shared_of_task = shared.clone();
        shared.spawn(async move {
            if let Err(error) = reconcile(&link, &shared_of_task).await {
                judge(&error, error.violation(), &link, &shared_of_task);
            } else if link.wanted.load(Ordering::SeqCst) && link.is_open() {
                shared_of_task.want_reconciliation(link.replica);
            }
        });
    }
}

/// A new incarnation has another replica id than its links know.
pub(super) async fn relink_after_incarnation(shared: Shared) {
    let mut events = shared.committer.events();
    loop {
        match events.recv().await {
            Ok(Event::NewIncarnation) | Err(RecvError::Lagged(_)) => {}
            Ok(Event::Retired(replica)) => {
                if let Some(link) = shared.registry.link(replica)
                    && let Some(reason) = trust::retired(replica, &shared)
                {
                    link.close(CloseCode::Retired, &reason);
                }
                continue;
            }
            Err(RecvError::Closed) => return,
        }
        debug!(own = %shared.table.own(), "links are made anew under the new replica id");
        shared.registry.close_all(CloseCode::NewIncarnation, NEW_INCARNATION);
    }
}
