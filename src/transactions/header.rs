//! Finds the columns of a file by the names in its first line.

use std::io::Read;

use super::error::{HeaderError, RejectReason, shorten};
use super::field::Field;
use super::fields::Fields;
use super::lines::{Line, Lines};

/// Most columns that a file may have. Exports of shop systems have some dozens; the limit keeps a hostile header small.
pub const MAX_COLUMNS: usize = 1_024;

/// Column names to use instead of the known [aliases](Field::aliases); `None` leaves the aliases in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Column of the time.
    pub time: Option<String>,
    /// Column of the product.
    pub sku: Option<String>,
    /// Column of the signed quantity.
    pub quantity: Option<String>,
    /// Column of the price of one unit.
    pub unit_price: Option<String>,
    /// Column of the location or country.
    pub location: Option<String>,
    /// Column of the invoice.
    pub invoice: Option<String>,
}

impl Columns {
    fn mapped(&self, field: Field) -> Option<&str> {
        match field {
            Field::Time => self.time.as_deref(),
            Field::Sku => self.sku.as_deref(),
            Field::Quantity => self.quantity.as_deref(),
            Field::UnitPrice => self.unit_price.as_deref(),
            Field::Location => self.location.as_deref(),
            Field::Invoice => self.invoice.as_deref(),
        }
    }
}

/// Where each field stands in a row.
#[derive(Debug)]
pub(super) struct Layout {
    width: usize,
    columns: [Option<usize>; 6],
}

impl Layout {
    pub(super) fn read<R: Read>(
        lines: &mut Lines<R>,
        fields: &mut Fields,
        columns: &Columns,
    ) -> Result<Self, HeaderError> {
        let state =
            lines.next_line().map_err(|source| HeaderError::Unreadable { source })?.ok_or(HeaderError::Empty)?;
        if state == Line::TooLong {
            let limit_bytes = super::MAX_LINE_BYTES;
            return Err(RejectReason::LineTooLong { limit_bytes }.into());
        }
        let text = std::str::from_utf8(lines.bytes())
            .map_err(|error| RejectReason::NotUtf8 { byte_offset: error.valid_up_to() })?;
        // Spreadsheets put a byte order mark first; it is no part of the first name.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            return Err(HeaderError::Empty);
        }
        fields.split_up_to(text, MAX_COLUMNS)?;
        Self::find(fields, columns)
    }

    fn find(header: &Fields, columns: &Columns) -> Result<Self, HeaderError> {
        let mut layout = Self { width: header.len(), columns: [None; 6] };
        for (field, slot) in Field::ALL.into_iter().zip(&mut layout.columns) {
            *slot = match columns.mapped(field) {
                Some(name) => Some(
                    position(header, name)?.ok_or_else(|| HeaderError::Missing { field, accepted: shorten(name) })?,
                ),
                None => first_alias(header, field)?,
            };
            if slot.is_none() && field.needed() {
                return Err(HeaderError::Missing { field, accepted: field.aliases().join(", ") });
            }
        }
        Ok(layout)
    }

    /// How many fields each row must have.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn index(&self, field: Field) -> Option<usize> {
        Field::ALL.into_iter().zip(self.columns).find_map(|(other, index)| if other == field { index } else { None })
    }
}

fn first_alias(header: &Fields, field: Field) -> Result<Option<usize>, HeaderError> {
    for alias in field.aliases() {
        if let Some(index) = position(header, alias)? {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// The column of this name. Two of them are refused: to take either would be a guess about somebody's stock.
fn position(header: &Fields, name: &str) -> Result<Option<usize>, HeaderError> {
    let wanted = name.trim();
    let mut matches =
        (0..header.len()).filter(|&index| header.get(index).trim().to_lowercase() == wanted.to_lowercase());
    let first = matches.next();
    if matches.next().is_some() {
        return Err(HeaderError::Duplicate { name: shorten(wanted) });
    }
    Ok(first)
}
