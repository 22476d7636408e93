//! Frames on QUIC streams, read with limits on length and time.

use std::time::Duration;

use metrics::counter;
use quinn::{Connection, ConnectionError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use stockmesh_proto::limits::FRAME_BYTES_MAX;
use stockmesh_proto::wire::{Message, WireError, frame_length};
use tokio::time::Instant;

use super::meter::{Meter, Pace};
use crate::limits::{FRAME_TIME_MAX, REPLY_TIME_MAX};

/// The length before each frame.
const PREFIX_BYTES: usize = 4;

/// A frame could not be exchanged. Nothing of it was applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The stream or link ended.
    #[error("the stream ended: {0}")]
    Ended(String),
    /// The peer was silent for too long between frames.
    #[error("the peer was silent: no frame came within {} s", REPLY_TIME_MAX.as_secs())]
    Silent,
    /// The peer takes nothing in, so that flow control holds a frame back for too long.
    #[error("the peer took no frame in within {} s", REPLY_TIME_MAX.as_secs())]
    Stalled,
    /// The peer broke a rule: a bad frame, or one that drips in.
    #[error("{0}")]
    Violation(String),
    /// A message of ours exceeds a limit.
    #[error(transparent)]
    Encode(WireError),
}

impl From<WriteError> for FrameError {
    fn from(error: WriteError) -> Self {
        Self::Ended(error.to_string())
    }
}

/// A stream that this side opened. Unless it was finished it is reset at the end, so that the peer does not take what it
/// got for a whole, nor for a fault: whoever opened it may be dropped in the middle of a frame.
pub(super) struct OwnStream {
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
    is_finished: bool,
}

impl OwnStream {
    pub(super) async fn open(connection: &Connection) -> Result<Self, ConnectionError> {
        let (send, receive) = connection.open_bi().await?;
        Ok(Self { send, receive, is_finished: false })
    }

    /// Nothing more is sent, and what was sent is whole.
    pub(super) fn finish(&mut self) {
        self.is_finished = true;
        let _ = self.send.finish();
    }
}

impl Drop for OwnStream {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = self.send.reset(VarInt::from_u32(0));
        }
        // Harmless if all was read.
        let _ = self.receive.stop(VarInt::from_u32(0));
    }
}

/// Reads the next message, or `None` where the stream ends between frames. `begin_within` bounds the wait for the
/// first byte.
pub(super) async fn read_message(
    stream: &mut RecvStream,
    bytes_max: usize,
    begin_within: Option<Duration>,
) -> Result<Option<Message>, FrameError> {
    let frame = read_frame(stream, bytes_max.min(FRAME_BYTES_MAX), begin_within).await?;
    frame.map(|frame| Message::decode(&frame).map_err(violation)).transpose()
}

/// The same of a peer that is linked: if it sends too fast, the message is handed over later (rule K6), and nothing more
/// of the stream is read until then.
pub(super) async fn read_metered(
    stream: &mut RecvStream,
    bytes_max: usize,
    begin_within: Option<Duration>,
    meter: &Meter,
) -> Result<Option<Message>, FrameError> {
    let Some(frame) = read_frame(stream, bytes_max.min(FRAME_BYTES_MAX), begin_within).await? else { return Ok(None) };
    if let Pace::From(from) = meter.frame(frame.len() + PREFIX_BYTES, Instant::now()) {
        counter!("stockmesh_frames_slowed_total").increment(1);
        tokio::time::sleep_until(from).await;
    }
    Message::decode(&frame).map(Some).map_err(violation)
}

/// Reads the next frame without its length, of whatever kind and protocol.
pub(crate) async fn read_frame(
    stream: &mut RecvStream,
    bytes_max: usize,
    begin_within: Option<Duration>,
) -> Result<Option<Vec<u8>>, FrameError> {
    let mut first = [0];
    let begin = stream.read(&mut first);
    let begun = match begin_within {
        Some(limit) => tokio::time::timeout(limit, begin).await.map_err(|_| FrameError::Silent)?,
        None => begin.await,
    };
    match begun {
        Ok(Some(_)) => {}
        Ok(None) => return Ok(None),
        Err(error) => return Err(FrameError::Ended(error.to_string())),
    }
    let whole = async {
        let mut rest = [0; 3];
        stream.read_exact(&mut rest).await.map_err(ended)?;
        let prefix = [first[0], rest[0], rest[1], rest[2]];
        let length = frame_length(prefix, bytes_max).map_err(violation)?;
        // Memory grows with what arrives, not with what the prefix claims.
        let mut frame = Vec::new();
        while frame.len() < length {
            let wanted = (length - frame.len()).min(64 << 10);
            let chunk = stream.read_chunk(wanted, true).await.map_err(|error| FrameError::Ended(error.to_string()))?;
            let Some(chunk) = chunk else {
                return Err(FrameError::Violation("the stream ended within a frame".into()));
            };
            frame.extend_from_slice(&chunk.bytes);
        }
        Ok(frame)
    };
    let late = |_| FrameError::Violation(format!("a frame was not complete after {} s", FRAME_TIME_MAX.as_secs()));
    tokio::time::timeout(FRAME_TIME_MAX, whole).await.map_err(late)?.map(Some)
}

/// Writes one message. A peer that takes nothing in is not waited for without end.
pub(super) async fn write_message(stream: &mut SendStream, message: &Message) -> Result<(), FrameError> {
    let frame = message.encode().map_err(FrameError::Encode)?;
    write_frame(stream, &frame).await
}

/// Writes one frame that was encoded with its length.
pub(crate) async fn write_frame(stream: &mut SendStream, frame: &[u8]) -> Result<(), FrameError> {
    let written = tokio::time::timeout(REPLY_TIME_MAX, stream.write_all(frame)).await;
    Ok(written.map_err(|_| FrameError::Stalled)??)
}

fn ended(error: ReadExactError) -> FrameError {
    match error {
        ReadExactError::FinishedEarly(_) => FrameError::Violation("the stream ended within a frame".into()),
        ReadExactError::ReadError(error) => FrameError::Ended(error.to_string()),
    }
}

fn violation(error: WireError) -> FrameError {
    FrameError::Violation(error.to_string())
}
