//! Frames on QUIC streams, read with limits on length and time.

use std::time::Duration;

use metrics::counter;
use quinn::{Connection, ConnectionError, ReadExactError, RecvStream, SendStream, VarInt, WriteError};
use stockmesh_proto::limits::FRAME_BYTES_MAX;
use stockmesh_proto::wire::{Message, WireError, frame_length};
use tokio::time::Instant;

use super::meter::{Meter, Pace};
use crate::limits::{FRAME_TIME_MAX, FRAME_TIME_PER_KIB, REPLY_TIME_MAX, REPLY_TIME_OF_SENT_MAX};

/// The length before each frame.
const PREFIX_BYTES: usize = 4;

/// A frame could not be exchanged. Nothing of it was applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrameError {
    /// The stream or link ended.
    #[error("the stream ended: {0}")]
    Ended(String),
    /// The peer was silent for too long between frames.
    #[error("the peer was silent: no frame came within {} s or more", REPLY_TIME_MAX.as_secs())]
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
    read_rest(stream, first[0], bytes_max).await.map(Some)
}

/// Reads a frame of which the first byte came. A slow line is given time for what it brings; a byte now and then buys none.
async fn read_rest(stream: &mut RecvStream, first: u8, bytes_max: usize) -> Result<Vec<u8>, FrameError> {
    let begun = tokio::time::Instant::now();
    let mut rest = [0; 3];
    in_time(begun, 0, stream.read_exact(&mut rest)).await?.map_err(ended)?;
    let length = frame_length([first, rest[0], rest[1], rest[2]], bytes_max).map_err(violation)?;
    // Memory grows with what arrives, not with what the prefix claims.
    let mut frame = Vec::new();
    while frame.len() < length {
        let wanted = (length - frame.len()).min(64 << 10);
        let chunk = in_time(begun, frame.len(), stream.read_chunk(wanted, true)).await?;
        let Some(chunk) = chunk.map_err(|error| FrameError::Ended(error.to_string()))? else {
            return Err(FrameError::Violation("the stream ended within a frame".into()));
        };
        frame.extend_from_slice(&chunk.bytes);
    }
    Ok(frame)
}

/// Waits for more of a frame of which so much came.
async fn in_time<T>(
    begun: tokio::time::Instant,
    came_bytes: usize,
    more: impl Future<Output = T>,
) -> Result<T, FrameError> {
    let allowed = FRAME_TIME_MAX + time_on_the_way(came_bytes);
    let late = |_| FrameError::Violation(format!("a frame was not complete after {} s", allowed.as_secs()));
    tokio::time::timeout_at(begun + allowed, more).await.map_err(late)
}

/// How long so many bytes may take on a slow line.
fn time_on_the_way(bytes: usize) -> Duration {
    FRAME_TIME_PER_KIB.saturating_mul(u32::try_from(bytes >> 10).unwrap_or(u32::MAX))
}

/// How long a peer may take to answer what it first must get: so many bytes.
pub(super) fn reply_time(sent_bytes: usize) -> Duration {
    REPLY_TIME_MAX + time_on_the_way(sent_bytes).min(REPLY_TIME_OF_SENT_MAX)
}

/// Writes one message, and returns how many bytes it takes. A peer that takes nothing in is not waited for without end.
pub(super) async fn write_message(stream: &mut SendStream, message: &Message) -> Result<usize, FrameError> {
    let frame = message.encode().map_err(FrameError::Encode)?;
    write_frame(stream, &frame).await?;
    Ok(frame.len())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_first_arrive_gives_a_peer_time_to_answer_up_to_a_bound() {
        assert_eq!(reply_time(1_000), REPLY_TIME_MAX);
        assert_eq!(reply_time(64 << 10), REPLY_TIME_MAX + 64 * FRAME_TIME_PER_KIB);
        assert_eq!(reply_time(usize::MAX), REPLY_TIME_MAX + REPLY_TIME_OF_SENT_MAX);
    }
}
