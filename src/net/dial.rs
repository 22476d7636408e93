//! Dials a configured peer, for ever: at once, then after growing pauses with jitter.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::{InvalidInput, ReplicaId};
use tokio::time::Instant;
use tracing::debug;

use super::handshake::{HandshakeError, greet};
use super::identity::SERVER_NAME;
use super::link::Link;
use super::refusal::{CloseCode, closed_with, explain};
use super::registry::LinkState;
use super::serve::{establish, heed_close};
use super::shared::Shared;
use crate::limits::{DIAL_PAUSE_MAX, DIAL_PAUSE_MIN, DIAL_TARGETS_MAX, HANDSHAKE_TIME_MAX, LINK_LASTING};

/// Checks the form `host:port`; whether the name resolves is tried at every dial.
pub(crate) fn check_address(address: &str) -> Result<(), InvalidInput> {
    let rule = "must be host:port with a port from 1 to 65535";
    let invalid = || InvalidInput::new("peer", address, rule);
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || host.len() > 255 || port == 0 || (host.contains(':') && !bracketed) {
        return Err(invalid());
    }
    Ok(())
}

/// Pauses that double up to a limit, each shortened by up to a half at random, so that nodes that lost each other at
/// one moment do not dial at one moment.
struct BackOff {
    pause: Duration,
}

impl BackOff {
    fn new() -> Self {
        Self { pause: DIAL_PAUSE_MIN }
    }

    fn next(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(DIAL_PAUSE_MAX);
        pause.mul_f64(rand::random_range(0.5..=1.0))
    }
}

/// Keeps a link to one configured peer. Ends only with the store.
pub(super) async fn keep_linked(number: usize, address: String, shared: Shared) {
    let mut back_off = BackOff::new();
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
        let error = match linked {
            Ok(link) => {
                replica = Some(link.replica);
                shared.registry.note_peer(number, LinkState::Up, None, replica);
                let ended = link.connection.closed().await;
                if link.since.elapsed() >= LINK_LASTING {
                    back_off = BackOff::new();
                }
                let superfluous = closed_with(&ended, CloseCode::Duplicate);
                (!superfluous).then(|| explain(&ended))
            }
            Err(error) => {
                debug!(address, %error, "dialling failed");
                Some(error.reason)
            }
        };
        shared.registry.note_peer(number, LinkState::BackingOff, error, None);
        tokio::select! {
            () = tokio::time::sleep(back_off.next()) => {}
            // A peer that dials in meanwhile, or coming online again, ends the pause.
            () = shared.until_linked(replica) => {}
            () = shared.until_toggled() => {}
            () = shared.until_rotated() => back_off = BackOff::new(),
        }
    }
}

async fn dial(address: &str, shared: &Shared) -> Result<Arc<Link>, HandshakeError> {
    let resolved = tokio::net::lookup_host(address).await;
    let targets = resolved.map_err(|error| HandshakeError::new(format!("{address} cannot be resolved: {error}")))?;
    let none = HandshakeError::new(format!("{address} resolves to no address"));
    first_of(targets.take(DIAL_TARGETS_MAX), none, |target| dial_one(target, shared)).await
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

async fn dial_one(target: SocketAddr, shared: &Shared) -> Result<Arc<Link>, HandshakeError> {
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
        let greeting = match greet(&connection, &identity, deadline, shared).await {
            Ok(greeting) => greeting,
            Err(error) => {
                heed_close(&connection, told, shared).await;
                return Err(error);
            }
        };
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
