//! What must hold for every input: used by the fuzz target `csv`, by the replay of its corpus, and by property tests.

use std::io::{self, Read};

use super::{Decimal, MAX_FIELD_BYTES, MAX_PRICE_DECIMALS, Options, Reader, RowError, Transaction};

/// Gives one byte at a time, so that every place in the input is once the end of a read.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1);
        self.0.read(buffer.get_mut(..length).unwrap_or_default())
    }
}

/// Reads any bytes as a file of transactions.
///
/// # Panics
/// If a rule of the reader does not hold. That is its purpose; it is for tests only.
pub fn exercise(data: &[u8]) {
    for uppercase in [false, true] {
        let rows = outcome(data, uppercase);
        assert_eq!(rows, outcome(Dribble(data), uppercase), "how the input arrives must not matter");
        // Each row costs a line, and the header took the first.
        let breaks = data.iter().filter(|&&byte| byte == b'\n').count();
        assert!(rows.map_or(0, |rows| rows.len()) <= breaks);
    }
}

/// The header's error, or each row with the errors as text.
fn outcome(input: impl Read, uppercase: bool) -> Result<Vec<Result<Transaction, String>>, String> {
    let options = Options { uppercase, ..Options::default() };
    let reader = Reader::new(input, options).map_err(|error| error.to_string())?;
    let mut last_line = 1;
    let rows = reader.map(|row| {
        let line = match &row {
            Ok(transaction) => {
                check(transaction);
                transaction.line
            }
            Err(RowError::Rejected(rejected)) => rejected.line,
            Err(RowError::Unreadable { line, .. }) => *line,
        };
        assert!(line > last_line, "lines must rise");
        last_line = line;
        row.map_err(|error| error.to_string())
    });
    Ok(rows.collect())
}

fn check(row: &Transaction) {
    assert!(row.quantity != 0 && row.quantity != i64::MIN);
    assert_eq!(row.stock_change().checked_neg(), Some(row.quantity));
    assert!(!row.time.is_empty() && row.time.len() <= MAX_FIELD_BYTES);
    for label in [&row.location, &row.invoice].into_iter().flatten() {
        assert!(!label.is_empty() && label.len() <= MAX_FIELD_BYTES);
    }
    if let Some(price) = row.unit_price {
        assert!(price > Decimal::ZERO);
        assert!(usize::try_from(price.scale()).is_ok_and(|scale| scale <= MAX_PRICE_DECIMALS));
    }
}
