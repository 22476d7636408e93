//! Messages of the application between linked nodes, and pings (rules A1 to A3).

use std::time::Duration;

use metrics::counter;
use quinn::{SendStream, VarInt};
use stockmesh_proto::ReplicaId;
use stockmesh_proto::limits::HELLO_BYTES_MAX;
use stockmesh_proto::wire::{Message, Told};
use tokio::time::Instant;

use super::frames::{FrameError, read_metered, write_message};
use super::link::Link;
use super::mail::{PeerMessage, SendError};
use super::session::SyncError;
use super::shared::Shared;
use crate::limits::MESSAGE_TIME_MAX;

/// Hands a peer's message to whoever listens here, and tells the peer.
pub(super) async fn receive(bytes: Vec<u8>, send: SendStream, link: &Link, shared: &Shared) -> Result<(), SyncError> {
    let told = if !link.may_tell(bytes.len()) {
        counter!("stockmesh_messages_refused_total").increment(1);
        Told::TooMany
    } else {
        let message = PeerMessage { from: link.replica, location: link.location.clone(), bytes: bytes.into() };
        counter!("stockmesh_messages_received_total").increment(1);
        let is_heard = shared.inbox.lock().as_ref().is_some_and(|inbox| inbox.send(message).is_ok());
        if is_heard { Told::Received } else { Told::NobodyListens }
    };
    answer(told, send).await
}

/// Answers a ping.
pub(super) async fn receive_ping(send: SendStream, link: &Link) -> Result<(), SyncError> {
    let told = if link.may_tell(0) { Told::Received } else { Told::TooMany };
    answer(told, send).await
}

async fn answer(told: Told, mut send: SendStream) -> Result<(), SyncError> {
    write_message(&mut send, &Message::Told(told)).await?;
    let _ = send.finish();
    Ok(())
}

/// Sends a message or a ping to a linked node, and waits for its answer. Returns how long that took.
pub(super) async fn send(peer: ReplicaId, message: Message, shared: &Shared) -> Result<Duration, SendError> {
    let link = shared.registry.link(peer).ok_or(SendError::NotLinked { peer })?;
    if !link.knows_messages {
        return Err(SendError::Unsupported { peer });
    }
    let begun = Instant::now();
    let no_answer = |why: String| SendError::NoAnswer { peer, why };
    let told = tokio::time::timeout(MESSAGE_TIME_MAX, exchange(&link, &message)).await;
    let told = told.map_err(|_| no_answer(format!("{} s have passed", MESSAGE_TIME_MAX.as_secs())))?;
    match told.map_err(|error| no_answer(error.to_string()))? {
        Told::Received => Ok(begun.elapsed()),
        Told::NobodyListens => Err(SendError::NobodyListens { peer }),
        Told::TooMany => Err(SendError::TooMany { peer }),
        other => Err(no_answer(format!("it was {other:?}"))),
    }
}

/// Ends a stream that is left in the middle, so that the peer does not take what it got for a whole.
struct Opened(SendStream);

impl Drop for Opened {
    fn drop(&mut self) {
        // Harmless once the answer is here.
        let _ = self.0.reset(VarInt::from_u32(0));
    }
}

async fn exchange(link: &Link, message: &Message) -> Result<Told, SyncError> {
    // So that they leave streams for reconciliations and for questions about rights.
    let _permit = link.telling.acquire().await;
    let (send, mut receive) = link.connection.open_bi().await?;
    // What waits for room on the link goes before.
    let _ = send.set_priority(-1);
    let mut send = Opened(send);
    write_message(&mut send.0, message).await?;
    let _ = send.0.finish();
    match read_metered(&mut receive, HELLO_BYTES_MAX, None, &link.meter).await? {
        Some(Message::Told(told)) => Ok(told),
        Some(_) => Err(FrameError::Violation("a message was answered with something else".into()).into()),
        None => Err(FrameError::Ended("a message was not answered".into()).into()),
    }
}
