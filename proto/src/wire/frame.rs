//! Frames: four bytes of length, one byte of kind, and a MessagePack body.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::limits::{FRAME_BYTES_MAX, HELLO_BYTES_MAX, OPEN_BYTES_MAX, TELL_BYTES_MAX, WIRE_DEPTH_MAX};

/// What a frame holds: its first byte after the length (rule W2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Who is there: the first frame of a link, both ways.
    Hello = 1,
    /// Why a link is not wanted.
    Refuse = 2,
    /// Opens a reconciliation.
    Open = 16,
    /// Fingerprints and version vectors of shards.
    Summary = 17,
    /// The end of one side's turn.
    End = 18,
    /// Both roots are the same: nothing to do.
    Equal = 19,
    /// A chunk of one shard's delta.
    Part = 20,
    /// All that arrived in this reconciliation is durable here.
    Done = 21,
    /// Opens a reconciliation of some shards alone.
    Pull = 22,
    /// Asks how the peer stands.
    Survey = 23,
    /// How a replica stands.
    Standing = 24,
    /// A committed batch.
    Push = 32,
    /// Asks for rights to sell.
    Ask = 48,
    /// Rights that were given, or none.
    Granted = 49,
    /// A message of the application.
    Tell = 64,
    /// What became of a message of the application, or the answer to a ping.
    Told = 65,
    /// Asks for an answer, to see how long it takes.
    Ping = 66,
    /// Members of the cluster, or a question for them.
    Members = 80,
    /// Asks a member to take no more writes of a replica.
    Fence = 96,
    /// What became of that.
    Fenced = 97,
    /// Hands a hold over.
    Take = 98,
    /// What became of that.
    Taken = 99,
    /// Asks the heir to retire a replica.
    Retire = 100,
    /// What became of that.
    Retired = 101,
}

impl FrameKind {
    /// Every kind there is.
    pub const ALL: [Self; 24] = [
        Self::Hello,
        Self::Refuse,
        Self::Open,
        Self::Summary,
        Self::End,
        Self::Equal,
        Self::Part,
        Self::Done,
        Self::Pull,
        Self::Survey,
        Self::Standing,
        Self::Push,
        Self::Ask,
        Self::Granted,
        Self::Tell,
        Self::Told,
        Self::Ping,
        Self::Members,
        Self::Fence,
        Self::Fenced,
        Self::Take,
        Self::Taken,
        Self::Retire,
        Self::Retired,
    ];

    fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }

    /// The byte that a frame of this kind begins with.
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// Most bytes of a frame of this kind.
    fn bytes_max(self) -> usize {
        match self {
            Self::Hello | Self::Refuse | Self::Ask => HELLO_BYTES_MAX,
            Self::Open => OPEN_BYTES_MAX,
            Self::Tell => TELL_BYTES_MAX,
            Self::Told | Self::Ping | Self::Fence | Self::Fenced | Self::Taken | Self::Pull | Self::Survey => {
                HELLO_BYTES_MAX
            }
            Self::Retire | Self::Retired => OPEN_BYTES_MAX,
            _ => FRAME_BYTES_MAX,
        }
    }
}

/// Bytes that break a rule of the wire format. Nothing of them was applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The frame is longer than its kind may be.
    #[error("a frame of {bytes} bytes exceeds the limit of {bytes_max}; nothing was applied")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The frame has no kind that this version knows.
    #[error("frame kind {0} is unknown; nothing was applied")]
    UnknownKind(u8),
    /// The frame is empty.
    #[error("the frame is empty; nothing was applied")]
    Empty,
    /// The frame's kind has no place here.
    #[error("a frame of kind {0:?} has no place here; nothing was applied")]
    Unexpected(FrameKind),
    /// The body is not what its kind says.
    #[error("the frame cannot be read: {0}; nothing was applied")]
    Malformed(String),
    /// The body ends before the frame does.
    #[error("{0} bytes follow the frame's content; nothing was applied")]
    Trailing(usize),
    /// The value cannot be written.
    #[error("the value cannot be encoded: {0}; nothing was sent")]
    Encode(String),
}

/// Writes one frame with its length before it.
///
/// # Errors
/// If the body exceeds the limit of its kind.
pub fn encode_frame<T: Serialize>(kind: FrameKind, body: &T) -> Result<Vec<u8>, WireError> {
    // Named fields, so that a later version can add one (rule W5).
    let is_named = kind == FrameKind::Hello || kind == FrameKind::Refuse;
    encode(kind.byte(), kind.bytes_max(), is_named, body)
}

/// Writes one frame of any protocol, with named fields or without.
pub(super) fn encode<T: Serialize>(kind: u8, bytes_max: usize, is_named: bool, body: &T) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![0, 0, 0, 0, kind];
    let written = if is_named {
        rmp_serde::encode::write_named(&mut bytes, body)
    } else {
        rmp_serde::encode::write(&mut bytes, body)
    };
    written.map_err(|error| WireError::Encode(error.to_string()))?;
    let length = bytes.len() - 4;
    if length > bytes_max {
        return Err(WireError::TooLong { bytes: length, bytes_max });
    }
    let prefix = u32::try_from(length).map_err(|error| WireError::Encode(error.to_string()))?;
    bytes.splice(..4, prefix.to_be_bytes());
    Ok(bytes)
}

/// The length of the frame that a prefix announces, checked against `bytes_max` (rule W1).
///
/// # Errors
/// If it is zero or too long.
pub fn frame_length(prefix: [u8; 4], bytes_max: usize) -> Result<usize, WireError> {
    let bytes = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if bytes == 0 {
        return Err(WireError::Empty);
    }
    if bytes > bytes_max {
        return Err(WireError::TooLong { bytes, bytes_max });
    }
    Ok(bytes)
}

/// Splits a frame (without its length) into kind and body.
///
/// # Errors
/// If it is empty, of unknown kind, or longer than its kind may be.
pub fn split_kind(frame: &[u8]) -> Result<(FrameKind, &[u8]), WireError> {
    let (byte, body) = frame.split_first().ok_or(WireError::Empty)?;
    let kind = FrameKind::from_byte(*byte).ok_or(WireError::UnknownKind(*byte))?;
    if frame.len() > kind.bytes_max() {
        return Err(WireError::TooLong { bytes: frame.len(), bytes_max: kind.bytes_max() });
    }
    Ok((kind, body))
}

/// Reads a value that fills `body` to the last byte (rule W3).
///
/// # Errors
/// If the bytes are no such value, nest too deeply, or leave a rest.
pub fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, WireError> {
    let mut rest = body;
    let mut deserializer = rmp_serde::Deserializer::new(&mut rest);
    deserializer.set_max_depth(WIRE_DEPTH_MAX);
    let value = T::deserialize(&mut deserializer).map_err(|error| WireError::Malformed(error.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(WireError::Trailing(rest.len())) }
}
