//! Prices: exact decimals with a currency.

use std::cmp::Ordering;
use std::fmt;

use iso_currency::Currency;
use rust_decimal::Decimal;

use crate::id::InvalidInput;
use crate::limits::{PRICE_SCALE_MAX, PRICE_UNITS_MAX};

/// An exact amount of money: not negative, at most 9 decimals, with its ISO 4217 currency. The decimals stay as they
/// were written: 2.10 is not turned into 2.1.
///
/// ```
/// use stockmesh_proto::{Currency, Price};
/// let price = Price::new("2.10".parse().unwrap(), Currency::EUR).unwrap();
/// assert_eq!(price.to_string(), "2.10 EUR");
/// assert!(Price::new("-1".parse().unwrap(), Currency::EUR).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Price {
    units: u64,
    scale: u8,
    currency: Currency,
}

impl Price {
    /// A price of `amount` in `currency`.
    ///
    /// # Errors
    /// If it is negative, has more than 9 decimals, or exceeds 10^18 of its smallest written unit.
    pub fn new(amount: Decimal, currency: Currency) -> Result<Self, InvalidInput> {
        let invalid = |rule: String| InvalidInput::new("price", amount, rule);
        if amount.is_sign_negative() && !amount.is_zero() {
            return Err(invalid("must not be negative".into()));
        }
        let units = u64::try_from(amount.mantissa())
            .map_err(|_| invalid(format!("must have at most {PRICE_UNITS_MAX} of its smallest written unit")))?;
        let scale = u8::try_from(amount.scale())
            .map_err(|_| invalid(format!("must have at most {PRICE_SCALE_MAX} decimals")))?;
        Self::from_parts(units, scale, currency)
    }

    /// A price of `units` of the smallest written unit, with `scale` decimals.
    ///
    /// # Errors
    /// As [`Price::new`].
    pub fn from_parts(units: u64, scale: u8, currency: Currency) -> Result<Self, InvalidInput> {
        let shown = || format!("{units}e-{scale}");
        if u32::from(scale) > PRICE_SCALE_MAX {
            return Err(InvalidInput::new("price", shown(), format!("must have at most {PRICE_SCALE_MAX} decimals")));
        }
        if units > PRICE_UNITS_MAX {
            let rule = format!("must have at most {PRICE_UNITS_MAX} of its smallest written unit");
            return Err(InvalidInput::new("price", shown(), rule));
        }
        Ok(Self { units, scale, currency })
    }

    /// The amount, with the decimals it was written with.
    pub fn amount(&self) -> Decimal {
        Decimal::from_i128_with_scale(i128::from(self.units), u32::from(self.scale))
    }

    /// The amount without its decimal point.
    pub fn units(&self) -> u64 {
        self.units
    }

    /// The number of decimals.
    pub fn scale(&self) -> u8 {
        self.scale
    }

    /// The currency.
    pub fn currency(&self) -> Currency {
        self.currency
    }
}

/// The order of the value in a register (rule L3), a total order on what is stored, not on what it is worth. It goes
/// by the currency's letters, since the library's own order may change with a new version of its list.
impl Ord for Price {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.units, self.scale, self.currency.code()).cmp(&(other.units, other.scale, other.currency.code()))
    }
}

impl PartialOrd for Price {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Price {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.amount(), self.currency.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prices_keep_their_decimals_and_obey_limits() {
        let price = |text: &str| Price::new(text.parse().unwrap(), Currency::GBP);
        assert_eq!(price("0.001").unwrap().to_string(), "0.001 GBP");
        assert_eq!(price("0").unwrap().units(), 0);
        assert!(price("0.0000000001").is_err());
        assert!(price("1000000000000000001").is_err());
        assert!(price("-0.01").unwrap_err().to_string().contains("must not be negative"));
    }
}
