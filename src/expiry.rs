//! Expiry: holds whose time has run out are released by the node that gave them (rule O7).

use std::time::Duration;

use stockmesh_proto::operation::{Operation, Request};
use tracing::warn;

use crate::clock::WallClock;
use crate::commit::{Committer, WeakCommitter};
use crate::error::WriteError;
use crate::limits::{EXPIRED_AT_ONCE_MAX, EXPIRY_LOOK_EVERY};
use crate::watch;

/// Releases holds when their time has run out, for as long as the store lives. It does not keep the store alive.
pub(crate) async fn expire_for_ever(committer: WeakCommitter, mut next: watch::Receiver<Option<u64>>, wall: WallClock) {
    loop {
        let expires_ms = *next.borrow_and_update();
        let now_ms = wall.now_ms();
        match expires_ms {
            Some(expires_ms) if expires_ms <= now_ms => {
                let Some(committer) = committer.upgrade() else { return };
                if !release_due(&committer, now_ms).await {
                    return;
                }
            }
            expires_ms => {
                // A clock that is set ahead meanwhile is noticed at the next look.
                let left = expires_ms.map(|expires_ms| Duration::from_millis(expires_ms - now_ms));
                let pause = left.map_or(Duration::MAX, |left| left.min(EXPIRY_LOOK_EVERY));
                tokio::select! {
                    biased;
                    changed = next.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(pause), if left.is_some() => {}
                }
            }
        }
    }
}

/// Releases what is due. Returns whether there is a point in going on.
async fn release_due(committer: &Committer, now_ms: u64) -> bool {
    let due = committer.books(|books| books.due(now_ms).take(EXPIRED_AT_ONCE_MAX).collect::<Vec<_>>());
    let count = u64::try_from(due.len()).unwrap_or(u64::MAX);
    let operations: Vec<Operation> = due.into_iter().map(|id| Operation::ExpireHold { id }).collect();
    match committer.write(Request::from(operations)).await {
        Ok(_) => metrics::counter!("stockmesh_holds_expired_total").increment(count),
        Err(WriteError::Closed | WriteError::Poisoned { .. } | WriteError::Indeterminate { .. }) => return false,
        // What was held before this node became a read-only member stays so, since nobody would take the release.
        Err(WriteError::ReadOnly) => tokio::time::sleep(EXPIRY_LOOK_EVERY).await,
        Err(error) => {
            warn!(%error, "holds whose time has run out could not be released; they are tried again");
            tokio::time::sleep(EXPIRY_LOOK_EVERY).await;
        }
    }
    true
}
