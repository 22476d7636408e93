//! Whether links may go on: this node's identity may change while they are open.

use std::time::Instant;

use tracing::info;

use super::identity::Identity;
use super::link::Link;
use super::refusal::{CloseCode, NEW_CERTIFICATE};
use super::revocation::revoked;
use super::shared::Shared;
use crate::limits::ROTATION_TIME;

/// This node's identity, and since when it has this certificate in place of another.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) identity: Identity,
    pub(super) rotated: Option<Instant>,
}

/// Uses another identity from now on: for new links at once, and open ones are looked at again.
pub(super) fn rotate(shared: &Shared, identity: Identity) {
    let server = (*identity.server()).clone();
    shared.current.send_modify(|current| {
        if !current.identity.has_same_certificate(&identity) {
            current.rotated = Some(Instant::now());
        }
        current.identity = identity.clone();
    });
    shared.endpoint.set_server_config(Some(server));
    info!(certificate = %identity.fingerprint(), "the identity was reloaded");
    review_all(shared);
}

/// Whether this node changed its certificate lately. A peer may then not have learnt yet that the link under the former
/// one was closed, and take this node for an impostor of itself.
pub(super) fn rotated_lately(shared: &Shared) -> bool {
    shared.current.borrow().rotated.is_some_and(|since| since.elapsed() < ROTATION_TIME)
}

/// Closes those links that may not go on.
pub(super) fn review_all(shared: &Shared) {
    shared.registry.links().iter().for_each(|link| review(link, shared));
}

/// Closes the link if it may not go on.
pub(super) fn review(link: &Link, shared: &Shared) {
    if let Some(reason) = revoked(link.fingerprint, shared) {
        return link.close(CloseCode::NotTrusted, &reason);
    }
    let current = shared.current.borrow().identity.clone();
    if current.is_same(&link.identity) {
        return;
    }
    if !current.has_same_certificate(&link.identity) {
        return link.close(CloseCode::NewCertificate, NEW_CERTIFICATE);
    }
    if let Err(error) = current.trusts(&link.chain, link.dialled_by == link.replica) {
        let reason = format!(
            "the node does not trust the peer's certificate {} any more ({error}): both need certificates of an \
             authority that the other trusts",
            link.fingerprint
        );
        link.close(CloseCode::NotTrusted, &reason);
    }
}
