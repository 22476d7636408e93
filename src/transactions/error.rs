//! What can be wrong with a file of transactions.

use std::io;

use stockmesh_proto::InvalidInput;
use thiserror::Error;

use super::field::Field;

/// How many characters of a wrong value an error repeats: enough to find it, too few to flood a report.
const SHOWN_CHARACTERS: usize = 40;

/// The file as a whole cannot be used; no row was read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The input failed before the header was complete.
    #[error("the file cannot be read: {source}")]
    Unreadable {
        /// What the input said.
        source: io::Error,
    },
    /// There is no header line.
    #[error("line 1: the first line must name the columns, but it is empty")]
    Empty,
    /// The header line breaks a rule that holds for every line.
    #[error("line 1: {reason}")]
    Malformed {
        /// The rule.
        #[from]
        reason: RejectReason,
    },
    /// No column for a needed or mapped field.
    #[error("column for {field}: the header must have a column of the name {accepted}")]
    Missing {
        /// What the column would hold.
        field: Field,
        /// The names that would do.
        accepted: String,
    },
    /// Two columns of one name.
    #[error("column {name:?}: the header must name it once only")]
    Duplicate {
        /// The name.
        name: String,
    },
}

/// Why the next row could not be given.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RowError {
    /// The row breaks a rule. Reading goes on with the next line.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The input failed, for example damaged compression. No further row follows; those given before are good.
    #[error("line {line}: the file cannot be read any further: {source}")]
    Unreadable {
        /// Line that was being read.
        line: u64,
        /// What the input said.
        source: io::Error,
    },
}

/// A row that was left out, and why.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {reason}")]
pub struct Rejected {
    /// Line of the row in the file; the header is line 1.
    pub line: u64,
    /// The rule that it breaks.
    pub reason: RejectReason,
}

/// The rule that a row breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RejectReason {
    /// The line is longer than the limit.
    #[error("the line must not be longer than {limit_bytes} bytes")]
    LineTooLong {
        /// The limit, in bytes.
        limit_bytes: usize,
    },
    /// The line is no valid UTF-8.
    #[error("the line must be UTF-8, but byte {byte_offset} of it is not")]
    NotUtf8 {
        /// Offset in the line of the first wrong byte.
        byte_offset: usize,
    },
    /// A quote was opened and not closed on this line.
    #[error("column {column}: a quoted field must be closed on the same line")]
    UnclosedQuote {
        /// The column; the first is 1.
        column: usize,
    },
    /// Something stands between a closing quote and the next comma.
    #[error("column {column}: a comma must follow the closing quote")]
    TextAfterQuote {
        /// The column; the first is 1.
        column: usize,
    },
    /// More fields than columns.
    #[error("the line must not have more than {expected} fields")]
    TooManyFields {
        /// How many are allowed.
        expected: usize,
    },
    /// Fewer fields than columns.
    #[error("the line has {found} fields, but must have {expected}, as many as the header")]
    TooFewFields {
        /// How many there are.
        found: usize,
        /// How many are needed.
        expected: usize,
    },
    /// A field has a wrong value.
    #[error("{field} {value:?}: {rule}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// The value, shortened.
        value: String,
        /// What it must be.
        rule: String,
    },
}

impl RejectReason {
    pub(super) fn field(field: Field, value: &str, rule: impl Into<String>) -> Self {
        Self::Field { field: field.name(), value: shorten(value), rule: rule.into() }
    }
}

impl From<InvalidInput> for RejectReason {
    fn from(invalid: InvalidInput) -> Self {
        Self::Field { field: invalid.field, value: invalid.value, rule: invalid.rule }
    }
}

/// The start of a value, for an error.
pub(super) fn shorten(value: &str) -> String {
    match value.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", value.get(..end).unwrap_or_default()),
        None => value.to_owned(),
    }
}
