//! Reads files of transactions: CSV, plain or compressed with zstd, one row after the other.
//!
//! The reader takes any input in bounded memory and never gives up on a bad row: a row that breaks a rule comes
//! back as [`Rejected`] with its line number, and reading goes on with the next line. To make that hold, one line
//! is one row: a quoted field must not contain a line break. A quote that was never closed therefore costs its own
//! line, not the rest of the file.
//!
//! ```
//! use stockmesh::transactions::{Options, Reader};
//!
//! let file = "date,sku,qty,price\n2010-12-01,MUG-01,6,2.55\n2010-12-01,MUG-01,six,2.55\n";
//! let mut rows = Reader::new(file.as_bytes(), Options::default())?;
//! let sale = rows.next().expect("a row")?;
//! assert_eq!((sale.sku.as_str(), sale.quantity, sale.stock_change()), ("MUG-01", 6, -6));
//! let error = rows.next().expect("a second row").expect_err("six is no number");
//! assert_eq!(error.to_string(), r#"line 3: quantity "six": must be a whole number"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
#[cfg(any(test, feature = "testing"))]
mod exercise;
mod field;
mod fields;
mod header;
mod lines;
mod row;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use stockmesh_proto::{Decimal, Sku};

pub use error::{HeaderError, RejectReason, Rejected, RowError};
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub use exercise::exercise;
pub use field::Field;
pub use header::{Columns, MAX_COLUMNS};
pub use lines::MAX_LINE_BYTES;
pub use row::{MAX_FIELD_BYTES, MAX_PRICE_DECIMALS};

use fields::Fields;
use header::Layout;
use lines::{Line, Lines};

/// The first four bytes of every zstd frame (RFC 8878, section 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Largest zstd window we accept, as a power of two: 128 MiB, what `zstd` itself writes at its highest level.
/// The window is memory that the file, not the user, asks for.
const MAX_ZSTD_WINDOW_LOG: u32 = 27;

/// How to read a file.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Names of columns that the known aliases do not cover.
    pub columns: Columns,
    /// Turn SKUs into upper case, for files that write one product in two ways.
    pub uppercase: bool,
}

/// One accepted row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Line of the row in the file; the header is line 1.
    pub line: u64,
    /// When it happened, as written; never empty. The store does not read it: file order counts.
    pub time: String,
    /// The product.
    pub sku: Sku,
    /// Units that left the stock; negative for returns. Never 0, and never `i64::MIN`.
    pub quantity: i64,
    /// Price of one unit with the decimals as written; `None` if the row has none or it is not above 0.
    pub unit_price: Option<Decimal>,
    /// Location or country, if the file has such a column and the field is not empty.
    pub location: Option<String>,
    /// Invoice, if the file has such a column and the field is not empty.
    pub invoice: Option<String>,
}

impl Transaction {
    /// The change of stock in units: what is sold leaves, what is returned comes back.
    pub fn stock_change(&self) -> i64 {
        // The reader refuses i64::MIN, the one value that saturation would change.
        self.quantity.saturating_neg()
    }
}

/// Iterator over the rows of a file; see the [module](self) for an example.
pub struct Reader<R> {
    lines: Lines<R>,
    layout: Layout,
    fields: Fields,
    uppercase: bool,
    finished: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header line of plain CSV and finds the columns.
    ///
    /// # Errors
    /// If the input cannot be read, the header breaks a limit, or a needed column is missing or named twice.
    pub fn new(input: R, options: Options) -> Result<Self, HeaderError> {
        let mut lines = Lines::new(input);
        let mut fields = Fields::default();
        let layout = Layout::read(&mut lines, &mut fields, &options.columns)?;
        Ok(Self { lines, layout, fields, uppercase: options.uppercase, finished: false })
    }

    /// Whether the file has a column for this field.
    pub fn has(&self, field: Field) -> bool {
        self.layout.index(field).is_some()
    }

    fn row(&mut self, line: u64, state: Line) -> Result<Transaction, RejectReason> {
        if state == Line::TooLong {
            return Err(RejectReason::LineTooLong { limit_bytes: MAX_LINE_BYTES });
        }
        let text = std::str::from_utf8(self.lines.bytes())
            .map_err(|error| RejectReason::NotUtf8 { byte_offset: error.valid_up_to() })?;
        self.fields.split(text, self.layout.width())?;
        row::parse(line, &self.fields, &self.layout, self.uppercase)
    }
}

impl<R: Read> Iterator for Reader<R> {
    type Item = Result<Transaction, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.finished {
            let state = match self.lines.next_line() {
                Ok(Some(state)) => state,
                Ok(None) => {
                    self.finished = true;
                    break;
                }
                Err(source) => {
                    self.finished = true;
                    return Some(Err(RowError::Unreadable { line: self.lines.number(), source }));
                }
            };
            // A blank line holds no data, so there is nothing to lose by passing over it.
            if state == Line::Whole && self.lines.bytes().is_empty() {
                continue;
            }
            let line = self.lines.number();
            return Some(self.row(line, state).map_err(|reason| RowError::Rejected(Rejected { line, reason })));
        }
        None
    }
}

impl Reader<Box<dyn Read + Send>> {
    /// Opens a file and reads its header. Whether it is compressed shows in its first bytes, not in its name.
    ///
    /// # Errors
    /// As [`Reader::new`], and if the file cannot be opened.
    pub fn open(path: &Path, options: Options) -> Result<Self, HeaderError> {
        let input = decompressed(path).map_err(|source| HeaderError::Unreadable { source })?;
        Self::new(input, options)
    }
}

fn decompressed(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let mut file = File::open(path)?;
    let mut start = Vec::with_capacity(ZSTD_MAGIC.len());
    Read::by_ref(&mut file).take(4).read_to_end(&mut start)?;
    file.seek(SeekFrom::Start(0))?;
    if start != ZSTD_MAGIC {
        return Ok(Box::new(file));
    }
    let mut decoder = zstd::Decoder::with_buffer(BufReader::new(file))?;
    decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
    Ok(Box::new(decoder))
}
