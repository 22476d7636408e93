//! Accepts links and, where they are wanted, clients.

use metrics::counter;
use quinn::Incoming;
use stockmesh_proto::limits::LINKS_MAX;
use tokio::time::Instant;
use tracing::warn;

use super::handshake::welcome;
use super::handshakes::Handshakes;
use super::refusal::{CloseCode, explain};
use super::serve::establish;
use super::shared::Shared;
use crate::limits::HANDSHAKE_TIME_MAX;

/// Accepts links, for as long as the node lives.
pub(super) async fn accept(shared: Shared) {
    let handshakes = Handshakes::default();
    while let Some(incoming) = shared.endpoint.accept().await {
        if shared.is_offline() {
            incoming.refuse();
            continue;
        }
        // An address that was not proven yet may be forged: let it prove itself before memory is spent on it.
        if !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let Some(handshake) = handshakes.begin(incoming.remote_address().ip()) else {
            counter!("stockmesh_handshakes_refused_total").increment(1);
            incoming.refuse();
            continue;
        };
        let shared_of_task = shared.clone();
        shared.spawn(async move {
            welcome_one(incoming, &shared_of_task).await;
            drop(handshake);
        });
    }
}

async fn welcome_one(incoming: Incoming, shared: &Shared) {
    let address = incoming.remote_address();
    let refused = |reason: String| {
        counter!("stockmesh_links_refused_total").increment(1);
        warn!(%address, reason, "a link was refused");
        shared.registry.note_refusal(address, reason);
    };
    // Named, and not left to the endpoint, so that it is known which one the link was made with.
    let identity = shared.current.borrow().identity.clone();
    let connecting = async { incoming.accept_with(shared.server(&identity))?.await };
    let deadline = Instant::now() + HANDSHAKE_TIME_MAX;
    let connection = match tokio::time::timeout_at(deadline, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return refused(explain(&error)),
        Err(_) => return refused("the handshake took too long".into()),
    };
    #[cfg(feature = "clients")]
    if super::clients::is_client(&connection) {
        return super::clients::admit(connection, shared).unwrap_or_else(refused);
    }
    match welcome(&connection, &identity, deadline, shared).await {
        Ok(_) if shared.registry.links().len() >= LINKS_MAX => {
            let reason = format!("this node keeps {LINKS_MAX} links already");
            connection.close(CloseCode::Refused.code(), reason.as_bytes());
            refused(reason);
        }
        Ok(greeting) => {
            let dialled_by = greeting.theirs.replica;
            if let Err(error) = establish(connection, greeting, (dialled_by, identity), shared) {
                refused(error.reason);
            }
        }
        Err(error) => {
            connection.close(CloseCode::Refused.code(), error.reason.as_bytes());
            refused(error.reason);
        }
    }
}
