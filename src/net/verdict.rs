//! What becomes of a peer whose exchange did not end as it should.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::link::Link;
use super::refusal::CloseCode;
use super::session::SyncError;
use super::shared::Shared;
use crate::limits::PENALTY_TIME;

/// Closes the link of a peer that broke a rule; anything else is only noted.
pub(super) fn judge(error: &SyncError, violation: Option<String>, link: &Arc<Link>, shared: &Shared) {
    match violation {
        Some(reason) => punish(&reason, link, shared),
        None => debug!(peer = %link.replica, %error, "an exchange did not end"),
    }
}

pub(super) fn punish(reason: &str, link: &Arc<Link>, shared: &Shared) {
    counter!("stockmesh_violations_total").increment(1);
    warn!(peer = %link.replica, address = %link.address, reason, "a peer broke a rule: its link is closed");
    shared.registry.note_refusal(link.address, reason.to_owned());
    link.close(CloseCode::Violation, reason);
}

/// Closes the link of a peer that is over its limits, and does not let it in for a while (rule K7).
pub(super) fn shut_out(what: &str, held: Duration, link: &Arc<Link>, shared: &Shared) {
    if !link.is_open() {
        // Several of its streams may find it out at once.
        return;
    }
    let reason = format!(
        "replica {} opened so many {what} that it was held back for {:.0} s within a minute: it is over its limits, and is \
         let in again after {} s",
        link.replica,
        held.as_secs_f64(),
        PENALTY_TIME.as_secs()
    );
    counter!("stockmesh_peers_over_limits_total").increment(1);
    let (peer, certificate) = (link.replica, link.fingerprint);
    warn!(%peer, address = %link.address, %certificate, reason, "a peer is over its limits: its link is closed");
    shared.registry.note_refusal(link.address, reason.clone());
    shared.penalties.add(link.fingerprint, Instant::now());
    link.close(CloseCode::TooMuch, &reason);
}
