//! Messages between the applications of linked nodes, for the application's own use.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use stockmesh_proto::limits::MESSAGE_BYTES_MAX;
use stockmesh_proto::{InvalidInput, ReplicaId};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

pub use crate::net::{PeerMessage, SendError};

/// What [`Messages`] delivers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delivery {
    /// A message.
    Message(PeerMessage),
    /// The reader was too slow, and so many messages were dropped that their senders believe to be delivered.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// Messages that other nodes sent to this one from now on, made by [`Store::messages`](crate::Store::messages). A stream,
/// and with [`Messages::next`] usable without one of the stream libraries. Ends when the store is closed.
#[derive(Debug)]
pub struct Messages {
    inbox: BroadcastStream<PeerMessage>,
}

impl Messages {
    pub(crate) fn new(inbox: broadcast::Receiver<PeerMessage>) -> Self {
        Self { inbox: BroadcastStream::new(inbox) }
    }

    /// Of a store without a network: ended.
    pub(crate) fn none() -> Self {
        Self::new(broadcast::channel(1).1)
    }

    /// The next message; `None` once the store is closed. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Delivery> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for Messages {
    type Item = Delivery;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Delivery>> {
        Pin::new(&mut self.inbox).poll_next(context).map(|item| {
            item.map(|item| match item {
                Ok(message) => Delivery::Message(message),
                Err(BroadcastStreamRecvError::Lagged(missed)) => Delivery::Lagged { missed },
            })
        })
    }
}

/// What became of a broadcast.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broadcast {
    /// The nodes that handed it to their application, with the time until their answer.
    pub received: Vec<(ReplicaId, Duration)>,
    /// The others, and why.
    pub failed: Vec<(ReplicaId, SendError)>,
}

/// Checks the length of a message.
pub(crate) fn check_message(bytes: &[u8]) -> Result<(), InvalidInput> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        let rule = format!("must have at most {MESSAGE_BYTES_MAX} bytes");
        return Err(InvalidInput::new("message", format!("of {} bytes", bytes.len()), rule));
    }
    Ok(())
}
