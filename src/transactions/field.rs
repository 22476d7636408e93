//! What the columns of a file of transactions mean, and the names they go by.

use std::fmt;

/// What a column means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// When it happened. Needed.
    Time,
    /// The product. Needed.
    Sku,
    /// Units sold; negative for returns. Needed.
    Quantity,
    /// Price of one unit. Needed.
    UnitPrice,
    /// Location or country.
    Location,
    /// Invoice.
    Invoice,
}

impl Field {
    pub(super) const ALL: [Self; 6] =
        [Self::Time, Self::Sku, Self::Quantity, Self::UnitPrice, Self::Location, Self::Invoice];

    /// The name that errors use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Sku => "sku",
            Self::Quantity => "quantity",
            Self::UnitPrice => "unit_price",
            Self::Location => "location",
            Self::Invoice => "invoice",
        }
    }

    /// The column names that are understood without a mapping; earlier ones win. Compared without regard to case.
    pub fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Time => &["invoice_ts", "time", "timestamp", "date", "invoicedate"],
            Self::Sku => &["stock_code", "sku", "stockcode"],
            Self::Quantity => &["quantity", "qty"],
            Self::UnitPrice => &["unit_price", "price", "unitprice"],
            Self::Location => &["location", "country"],
            Self::Invoice => &["invoice_no", "invoice", "invoiceno"],
        }
    }

    pub(super) fn needed(self) -> bool {
        !matches!(self, Self::Location | Self::Invoice)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
