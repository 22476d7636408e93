//! Dials a configured peer, for ever: at once, then after growing pauses with jitter.

use std::net::SocketAddr;
use std::sync::Arc;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::reconcile::StateView;
use tokio::time::Instant;
use tracing::debug;

use super::handshake::{HandshakeError, greet};
use super::identity::SERVER_NAME;
use super::link::Link;
use super::own_dials::LEADS_HERE;
use super::refusal::{CloseCode, closed_with, explain};
use super::registry::LinkState;
use super::serve::{establish, heed_close};
use super::shared::Shared;
use super::targets::pause_after;
use crate::limits::{DIAL_TARGETS_MAX, HANDSHAKE_TIME_MAX, LINK_LASTING, SURPLUS_PAUSE};

/// Keeps a link to one configured peer, unless it has links enough and this node has others. Ends only with the store.
pub(super) async fn keep_linked(number: usize, address: String, shared: Shared) {
    let mut failures = 0;
    let mut replica: Option<ReplicaId> = None;
    loop {
        shared.until_online().await;
        // The peer may have dialled first.
        let linked = match replica.and_then(|replica| shared.registry.link(replica)) {
            Some(link) => Ok(link),
            None => {
                shared.registry.note_peer(number, LinkState::Connecting, None, None);
                dial(&address, &shared).await
            }
        };
        failures += 1;
        let mut is_surplus = false;
        let error = match linked {
            Ok(link) => {
                replica = Some(link.replica);
                shared.registry.note_peer(number, LinkState::Up, None, replica);
                let ended = link.connection.closed().await;
                if link.since.elapsed() >= LINK_LASTING {
                    failures = 1;
                }
                is_surplus = closed_with(&ended, CloseCode::Surplus);
                let superfluous = closed_with(&ended, CloseCode::Duplicate);
                (!superfluous).then(|| explain(&ended))
            }
            Err(error) => {
                debug!(address, %error, "dialling failed");
                Some(error.reason)
            }
        };
        shared.registry.note_peer(number, LinkState::BackingOff, error, None);
        let pause = async {
            tokio::time::sleep(pause_after(failures)).await;
            until_needed(is_surplus, &shared).await;
        };
        tokio::select! {
            biased;
            () = shared.until_rotated() => failures = 0,
            // A peer that dials in meanwhile, or coming online again, ends the pause.
            () = shared.until_linked(replica) => {}
            () = shared.until_toggled() => {}
            () = pause => {}
        }
    }
}

/// Waits while this node has links enough without the peer: any at all if the peer said that it has enough, else as many
/// as it keeps. Now and then it is tried all the same, since whom it is linked with may be cut off together with it; but
/// the peer that has enough only while there are few others.
async fn until_needed(is_surplus: bool, shared: &Shared) {
    let enough = if is_surplus { 1 } else { shared.budget.links() };
    let mut changes = shared.registry.changes();
    let mut again = tokio::time::interval(SURPLUS_PAUSE.mul_f64(crate::chance::random_range(0.75..=1.25)));
    again.tick().await;
    loop {
        if shared.registry.links().len() < enough {
            return;
        }
        tokio::select! {
            // The rarer first, so that links that come and go do not put it off.
            biased;
            _ = again.tick() => {
                if !is_surplus || shared.registry.links().len() < shared.budget.own() {
                    return;
                }
            }
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

async fn dial(address: &str, shared: &Shared) -> Result<Arc<Link>, HandshakeError> {
    let resolved = tokio::net::lookup_host(address).await;
    let targets = resolved.map_err(|error| HandshakeError::new(format!("{address} cannot be resolved: {error}")))?;
    let mut none = HandshakeError::new(format!("{address} resolves to no address"));
    let (own, others): (Vec<_>, Vec<_>) =
        targets.partition(|target| shared.own_dials.leads_here(*target) || shared.is_listening_at(*target));
    if !own.is_empty() {
        none = HandshakeError::new(LEADS_HERE);
    }
    first_of(others.into_iter().take(DIAL_TARGETS_MAX), none, |target| dial_one(target, shared)).await
}

/// Dials one after the other until one takes the link: of the addresses of a name, one may be this very node's, or of
/// another cluster. If none does, says why the last did not.
async fn first_of<T, Dialling: Future<Output = Result<T, HandshakeError>>>(
    targets: impl Iterator<Item = SocketAddr>,
    none: HandshakeError,
    dial: impl Fn(SocketAddr) -> Dialling,
) -> Result<T, HandshakeError> {
    let mut last = none;
    for target in targets {
        match dial(target).await {
            Ok(link) => return Ok(link),
            Err(error) => last = error,
        }
    }
    Err(last)
}

pub(super) async fn dial_one(target: SocketAddr, shared: &Shared) -> Result<Arc<Link>, HandshakeError> {
    // A name may also resolve to addresses of a family that this endpoint does not speak.
    let identity = shared.current.borrow().identity.clone();
    let connecting = shared
        .endpoint
        .connect_with(identity.client(), target, SERVER_NAME)
        .map_err(|error| HandshakeError::new(format!("{target} cannot be dialled: {error}")))?;
    let late = |_| HandshakeError::new("no answer: the peer is down, cut off, or no UDP reaches it");
    let deadline = Instant::now() + HANDSHAKE_TIME_MAX;
    let connected = tokio::time::timeout_at(deadline, connecting).await.map_err(late)?;
    let linked = async {
        let connection = connected?;
        let told = shared.table.own();
        // Before the hello, by which the other side will look for it.
        let dial = shared.own_dials.begin(&connection);
        let greeting = match greet(&connection, &identity, deadline, shared).await {
            Ok(greeting) => greeting,
            Err(error) => {
                if dial.was_met() {
                    shared.own_dials.note(target);
                    return Err(HandshakeError::new(LEADS_HERE));
                }
                heed_close(&connection, told, shared).await;
                return Err(error);
            }
        };
        drop(dial);
        let dialled_by = greeting.told;
        establish(connection, greeting, (dialled_by, identity), shared)
    };
    linked.await.inspect_err(|error| shared.registry.note_refusal(target, error.reason.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> impl Iterator<Item = SocketAddr> {
        [1, 2, 3].into_iter().map(|port| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    fn no_address() -> HandshakeError {
        HandshakeError::new("no address")
    }

    #[tokio::test]
    async fn an_address_that_refuses_does_not_end_the_dial() {
        let dial = async |target: SocketAddr| match target.port() {
            2 => Ok(target.port()),
            port => Err(HandshakeError::new(format!("{port} refuses"))),
        };
        assert_eq!(first_of(targets(), no_address(), dial).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn the_last_refusal_is_told() {
        let dial = async |target: SocketAddr| Err::<(), _>(HandshakeError::new(format!("{} refuses", target.port())));
        assert_eq!(first_of(targets(), no_address(), dial).await.unwrap_err().reason, "3 refuses");
        assert_eq!(first_of(std::iter::empty(), no_address(), dial).await.unwrap_err().reason, "no address");
    }
}
