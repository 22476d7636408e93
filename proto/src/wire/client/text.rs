//! Values that are written as text, so that any language reads them exactly, and the same in JSON.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use iso_currency::Currency;
use rust_decimal::Decimal;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};

use crate::limits::{CLIENT_ERROR_BYTES_MAX, CLIENT_TEXT_BYTES_MAX};
use crate::price::Price;

/// A text for people, of at most `MAX` bytes: what is longer is shortened when it is made, and refused when it is read.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoundedText<const MAX: usize>(String);

/// A text for people: an address, a name, a reason.
///
/// ```
/// use stockmesh_proto::wire::client::Text;
/// assert_eq!(Text::new("berlin").as_str(), "berlin");
/// assert!(Text::new("x".repeat(1_000)).as_str().len() <= 256);
/// ```
pub type Text = BoundedText<CLIENT_TEXT_BYTES_MAX>;

/// The text of an error.
pub type ErrorText = BoundedText<CLIENT_ERROR_BYTES_MAX>;

impl<const MAX: usize> BoundedText<MAX> {
    /// The text, shortened if need be.
    pub fn new(text: impl fmt::Display) -> Self {
        let mut text = text.to_string();
        if text.len() > MAX {
            let room = MAX.saturating_sub('…'.len_utf8());
            let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
            text.truncate(end);
            text.push('…');
        }
        Self(text)
    }

    /// As it is.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<const MAX: usize> fmt::Display for BoundedText<MAX> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl<const MAX: usize> Serialize for BoundedText<MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for BoundedText<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor<const MAX: usize>;
        impl<const MAX: usize> Visitor<'_> for TextVisitor<MAX> {
            type Value = BoundedText<MAX>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "a text of at most {MAX} bytes")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<BoundedText<MAX>, E> {
                if text.len() > MAX {
                    return Err(E::invalid_length(text.len(), &self));
                }
                Ok(BoundedText(text.to_owned()))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// A value that is written as it is shown: ids, and sums that may have more than 64 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown<T>(pub T);

impl<T: fmt::Display> fmt::Display for Shown<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl<T: fmt::Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Shown<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShownVisitor<T>(PhantomData<T>);
        impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for ShownVisitor<T> {
            type Value = Shown<T>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value as text")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Shown<T>, E> {
                text.parse().map(Shown).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(ShownVisitor(PhantomData))
    }
}

/// A price as a map of two texts: the exact amount, and the letters of the currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(pub Price);

#[derive(serde::Serialize, serde::Deserialize)]
struct Parts {
    amount: Text,
    currency: Text,
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Parts { amount: Text::new(self.0.amount()), currency: Text::new(self.0.currency().code()) }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { amount, currency } = Parts::deserialize(deserializer)?;
        let decimal = Decimal::from_str_exact(amount.as_str())
            .map_err(|error| D::Error::custom(format!("price {:?} is no decimal number: {error}", amount.as_str())))?;
        let currency = Currency::from_code(currency.as_str())
            .ok_or_else(|| D::Error::custom(format!("{:?} is no currency of ISO 4217", currency.as_str())))?;
        Price::new(decimal, currency).map(Amount).map_err(D::Error::custom)
    }
}
