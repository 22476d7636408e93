//! The envelope of a stored row.
//!
//! The engine does not verify what it reads, and a row may be found under a key it was not written for. So each row says
//! what it is and carries a checksum over all of that.
//!
//! | offset | bytes | field, integers little-endian |
//! | --- | --- | --- |
//! | 0 | 1 | format, 1 |
//! | 1 | 1 | kind: 1 journal, 2 snapshot, 3 setting, 4 ledger |
//! | 2 | 8 | number: of the batch, the shard or the ledger entry; 0 for a setting |
//! | 10 | 8 | number of the commit that wrote the row |
//! | 18 | 2 | part index, from 0 |
//! | 20 | 2 | part count, at least 1 |
//! | 22 | 4 | payload length |
//! | 26 | n | payload |
//! | 26 + n | 16 | XXH3-128, seed 0, of all bytes before |
//!
//! The payload of a setting is the length of its key (1 byte), the key, and the value.

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

const FORMAT: u8 = 1;
const HEADER_BYTES: usize = 26;
const CHECKSUM_BYTES: usize = 16;

/// The most a row takes. The engine rounds larger rows up to a power of two of pages, and this is just under one.
pub const ROW_BYTES_MAX: usize = 30 * 1024;

/// The most payload that fits into one row; more is split into parts.
pub const ROW_PAYLOAD_BYTES_MAX: usize = ROW_BYTES_MAX - HEADER_BYTES - CHECKSUM_BYTES;

/// What a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowKind {
    /// Part of a batch of the journal.
    Journal,
    /// Part of a shard's snapshot.
    Snapshot,
    /// One setting.
    Setting,
    /// Part of an entry of the ledger.
    Ledger,
}

impl RowKind {
    fn to_byte(self) -> u8 {
        match self {
            Self::Journal => 1,
            Self::Snapshot => 2,
            Self::Setting => 3,
            Self::Ledger => 4,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Journal),
            2 => Some(Self::Snapshot),
            3 => Some(Self::Setting),
            4 => Some(Self::Ledger),
            _ => None,
        }
    }
}

/// What a row says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowHeader {
    /// What the row holds.
    pub kind: RowKind,
    /// The number of the batch, the shard or the ledger entry; 0 for a setting.
    pub number: u64,
    /// The commit that wrote the row.
    pub commit: u64,
    /// Which part of its payload this is, from 0.
    pub part: u16,
    /// How many parts the payload has, at least 1.
    pub part_count: u16,
}

/// Why bytes are not a row that was written. Whatever the row held is lost.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub(super) enum RowError {
    /// Shorter than any row, or longer than the longest.
    #[error("{0} bytes are no possible length of a row")]
    Length(usize),
    /// The bytes are not those that were written.
    #[error("the checksum does not match")]
    Checksum,
    /// Written by another version of this library.
    #[error("format {0} is not known to this version")]
    Format(u8),
    /// Written by another version of this library.
    #[error("kind {0} is not known to this version")]
    Kind(u8),
    /// The fields contradict one another.
    #[error("part {part} of {part_count} with {payload_bytes} bytes cannot be")]
    Fields {
        /// The part index found.
        part: u16,
        /// The part count found.
        part_count: u16,
        /// The payload length found.
        payload_bytes: u32,
    },
}

/// How long the row for a payload of this length is.
#[must_use]
pub(super) fn row_bytes(payload_bytes: usize) -> usize {
    payload_bytes.saturating_add(HEADER_BYTES + CHECKSUM_BYTES)
}

/// How many rows a payload takes, at least one; `None` if it is more than can be numbered (about 2 GB).
#[must_use]
pub(super) fn part_count(payload_bytes: usize) -> Option<u16> {
    u16::try_from(payload_bytes.div_ceil(ROW_PAYLOAD_BYTES_MAX).max(1)).ok()
}

/// Writes a row into `out`, which must be exactly [`row_bytes`] long, and says whether it was and the payload fits a row.
#[must_use]
pub(super) fn encode(header: RowHeader, payload: &[u8], out: &mut [u8]) -> bool {
    let Ok(payload_bytes) = u32::try_from(payload.len()) else {
        return false;
    };
    if payload.len() > ROW_PAYLOAD_BYTES_MAX || out.len() != row_bytes(payload.len()) {
        return false;
    }
    let (body, checksum) = out.split_at_mut(HEADER_BYTES + payload.len());
    let (head, tail) = body.split_at_mut(HEADER_BYTES);
    head[0] = FORMAT;
    head[1] = header.kind.to_byte();
    head[2..10].copy_from_slice(&header.number.to_le_bytes());
    head[10..18].copy_from_slice(&header.commit.to_le_bytes());
    head[18..20].copy_from_slice(&header.part.to_le_bytes());
    head[20..22].copy_from_slice(&header.part_count.to_le_bytes());
    head[22..26].copy_from_slice(&payload_bytes.to_le_bytes());
    tail.copy_from_slice(payload);
    checksum.copy_from_slice(&xxh3_128(body).to_le_bytes());
    true
}

/// Reads a row. Every byte is accounted for: what this accepts is exactly what [`encode`] wrote.
///
/// # Errors
/// [`RowError`] if the bytes are anything else.
pub(super) fn decode(bytes: &[u8]) -> Result<(RowHeader, &[u8]), RowError> {
    let length = RowError::Length(bytes.len());
    if bytes.len() > ROW_BYTES_MAX {
        return Err(length);
    }
    let Some((body, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(length);
    };
    let Some((head, payload)) = body.split_first_chunk::<HEADER_BYTES>() else {
        return Err(length);
    };
    if xxh3_128(body) != u128::from_le_bytes(*checksum) {
        return Err(RowError::Checksum);
    }
    decode_fields(head, payload)
}

fn decode_fields<'a>(head: &[u8; HEADER_BYTES], payload: &'a [u8]) -> Result<(RowHeader, &'a [u8]), RowError> {
    let mut fields = Fields(head);
    let [format, kind] = fields.take();
    if format != FORMAT {
        return Err(RowError::Format(format));
    }
    let header = RowHeader {
        kind: RowKind::from_byte(kind).ok_or(RowError::Kind(kind))?,
        number: u64::from_le_bytes(fields.take()),
        commit: u64::from_le_bytes(fields.take()),
        part: u16::from_le_bytes(fields.take()),
        part_count: u16::from_le_bytes(fields.take()),
    };
    let payload_bytes = u32::from_le_bytes(fields.take());
    if header.part >= header.part_count || usize::try_from(payload_bytes) != Ok(payload.len()) {
        return Err(RowError::Fields { part: header.part, part_count: header.part_count, payload_bytes });
    }
    Ok((header, payload))
}

/// Takes fixed-size fields off the front; past the end it yields zeros, which the header's own length rules out.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: RowHeader = RowHeader { kind: RowKind::Journal, number: 7, commit: 9, part: 1, part_count: 3 };

    fn encoded(header: RowHeader, payload: &[u8]) -> Vec<u8> {
        let mut out = vec![0; row_bytes(payload.len())];
        assert!(encode(header, payload, &mut out));
        out
    }

    fn with_checksum(mut row: Vec<u8>) -> Vec<u8> {
        let body = row.len() - CHECKSUM_BYTES;
        let checksum = xxh3_128(&row[..body]).to_le_bytes();
        row[body..].copy_from_slice(&checksum);
        row
    }

    #[test]
    fn a_row_comes_back() {
        for length in [0, 1, 100, ROW_PAYLOAD_BYTES_MAX] {
            let payload = vec![5; length];
            let row = encoded(HEADER, &payload);
            assert!(row.len() <= ROW_BYTES_MAX);
            assert_eq!(decode(&row), Ok((HEADER, payload.as_slice())));
        }
        let payload = vec![0; ROW_PAYLOAD_BYTES_MAX + 1];
        assert!(!encode(HEADER, &payload, &mut vec![0; row_bytes(payload.len())]));
        assert!(!encode(HEADER, b"abc", &mut [0; 10]));
    }

    #[test]
    fn the_format_is_frozen() {
        let row = encoded(HEADER, b"ab");
        assert_eq!(row[..28], *b"\x01\x01\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x01\0\x03\0\x02\0\0\0ab");
        assert_eq!(row.len(), 44);
        assert_eq!(with_checksum(row.clone()), row);
        let kinds = [(RowKind::Journal, 1), (RowKind::Snapshot, 2), (RowKind::Setting, 3), (RowKind::Ledger, 4)];
        for (kind, byte) in kinds {
            let row = encoded(RowHeader { kind, ..HEADER }, b"ab");
            assert_eq!((row[1], decode(&row).unwrap().0.kind), (byte, kind));
        }
    }

    #[test]
    fn no_bit_and_no_length_may_differ() {
        let row = encoded(HEADER, b"some payload");
        for bit in 0..row.len() * 8 {
            let mut damaged = row.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&damaged), Err(RowError::Checksum));
        }
        for length in 0..row.len() {
            assert!(decode(&row[..length]).is_err());
        }
        let mut longer = row.clone();
        longer.push(0);
        assert!(decode(&longer).is_err());
        assert_eq!(decode(&vec![0; ROW_BYTES_MAX + 1]), Err(RowError::Length(ROW_BYTES_MAX + 1)));
    }

    #[test]
    fn fields_are_judged_even_under_a_right_checksum() {
        let judged = |offset: usize, value: u8| {
            let mut row = encoded(HEADER, b"some payload");
            row[offset] = value;
            decode(&with_checksum(row)).map(drop).unwrap_err()
        };
        assert_eq!(judged(0, 2), RowError::Format(2));
        assert_eq!(judged(1, 0), RowError::Kind(0));
        assert_eq!(judged(1, 5), RowError::Kind(5));
        assert!(matches!(judged(18, 3), RowError::Fields { part: 3, .. }));
        assert!(matches!(judged(20, 0), RowError::Fields { part_count: 0, .. }));
        assert!(matches!(judged(22, 11), RowError::Fields { payload_bytes: 11, .. }));
        assert!(matches!(judged(22, 13), RowError::Fields { payload_bytes: 13, .. }));
    }

    #[test]
    fn parts_are_counted() {
        assert_eq!(part_count(0), Some(1));
        assert_eq!(part_count(ROW_PAYLOAD_BYTES_MAX), Some(1));
        assert_eq!(part_count(ROW_PAYLOAD_BYTES_MAX + 1), Some(2));
        assert_eq!(part_count(usize::MAX), None);
    }
}
