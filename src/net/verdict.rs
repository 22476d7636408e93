//! What becomes of a peer whose exchange did not end as it should.

use std::sync::Arc;

use metrics::counter;
use tracing::{debug, warn};

use super::link::Link;
use super::refusal::CloseCode;
use super::session::SyncError;
use super::shared::Shared;

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
