//! Tells in time that this node's certificate expires: after that no peer lets it in.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::gauge;
use tokio::time::Instant;
use tracing::{error, warn};

use super::shared::Shared;
use crate::limits::{IDENTITY_EXPIRY_AHEAD, IDENTITY_LOOK_EVERY, IDENTITY_TELL_EVERY};
use crate::subscribe::Notice;

/// Looks at the certificate now and then, and tells once a day if it expires soon.
pub(super) async fn watch_expiry(shared: Shared) {
    let mut current = shared.current.subscribe();
    let mut told: Option<Instant> = None;
    loop {
        let expires = current.borrow_and_update().identity.expires();
        if let Some(at) = expires {
            gauge!("stockmesh_identity_expires_seconds").set(seconds_left(at, now(&shared)));
            if is_due(at, &shared) && told.is_none_or(|told| told.elapsed() >= IDENTITY_TELL_EVERY) {
                told = Some(Instant::now());
                tell(at, &shared);
            }
        }
        tokio::select! {
            biased;
            changed = current.changed() => match changed {
                Ok(()) => told = None,
                Err(_) => return,
            },
            () = tokio::time::sleep(IDENTITY_LOOK_EVERY) => {}
        }
    }
}

fn now(shared: &Shared) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(shared.wall.now_ms())
}

/// Below zero once it has expired.
fn seconds_left(at: SystemTime, now: SystemTime) -> f64 {
    match at.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(past) => -past.duration().as_secs_f64(),
    }
}

/// Whether it is time to tell, or too late.
pub(super) fn is_due(at: SystemTime, shared: &Shared) -> bool {
    at.duration_since(now(shared)).map_or(true, |left| left <= IDENTITY_EXPIRY_AHEAD)
}

/// Whether it does not count any more.
pub(super) fn is_past(at: SystemTime, shared: &Shared) -> bool {
    at < now(shared)
}

fn tell(at: SystemTime, shared: &Shared) {
    let days_left = (seconds_left(at, now(shared)) / 86_400.0).floor();
    if days_left < 0.0 {
        error!(
            days_left,
            "this node's certificate is expired, and no peer lets it in: reload the identity with a new one"
        );
    } else {
        warn!(days_left, "this node's certificate expires soon: reload the identity with a new one before that");
    }
    if let Some(changes) = shared.committer.changes().upgrade() {
        let _ = changes.send(Arc::new(Notice { identity_expires: Some(at), ..Notice::default() }));
    }
}
