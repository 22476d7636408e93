//! Names and numbers that identify things, each checked when it is made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use smol_str::SmolStr;

use crate::limits::{
    CLUSTER_ID_BYTES_MAX, LOCATION_BYTES_MAX, QUANTITY_MAX, REFERENCE_BYTES_MAX, SHARDS_MAX, SHARDS_MIN, SKU_BYTES_MAX,
};

/// A value from outside that breaks a rule. Nothing was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {value:?} is not valid: {rule}; nothing was changed")]
pub struct InvalidInput {
    /// What the value was meant to be.
    pub field: &'static str,
    /// The value, shortened to 80 characters.
    pub value: String,
    /// The rule that it breaks.
    pub rule: String,
}

impl InvalidInput {
    /// States that `value` of `field` breaks `rule`.
    pub fn new(field: &'static str, value: impl fmt::Display, rule: impl Into<String>) -> Self {
        let value = value.to_string();
        let mut shortened: String = value.chars().take(80).collect();
        if shortened.len() < value.len() {
            shortened.push('…');
        }
        Self { field, value: shortened, rule: rule.into() }
    }
}

/// Checks the rules that every name shares: not empty, not too long, no control characters.
fn check_name(field: &'static str, name: &str, bytes_max: usize) -> Result<(), InvalidInput> {
    if name.is_empty() {
        return Err(InvalidInput::new(field, name, format!("must have 1 to {bytes_max} bytes of UTF-8")));
    }
    if name.len() > bytes_max {
        let rule = format!("must have at most {bytes_max} bytes of UTF-8, has {}", name.len());
        return Err(InvalidInput::new(field, name, rule));
    }
    if name.chars().any(char::is_control) {
        return Err(InvalidInput::new(field, name, "must hold no control characters"));
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$meta:meta])* $name:ident, $field:literal, $bytes_max:expr) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks and keeps a name.
            ///
            /// # Errors
            /// If it is empty, too long, or holds control characters.
            pub fn new(name: &str) -> Result<Self, InvalidInput> {
                check_name($field, name, $bytes_max)?;
                Ok(Self(SmolStr::new(name)))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:?}", self.0.as_str())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidInput;
            fn from_str(name: &str) -> Result<Self, InvalidInput> {
                Self::new(name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct NameVisitor;
                impl de::Visitor<'_> for NameVisitor {
                    type Value = $name;
                    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                        formatter.write_str(concat!("a ", $field))
                    }
                    fn visit_str<E: de::Error>(self, name: &str) -> Result<$name, E> {
                        $name::new(name).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(NameVisitor)
            }
        }
    };
}

name_type!(
    /// A product's key: UTF-8 of 1 to 128 bytes without control characters, compared byte by byte.
    ///
    /// ```
    /// use stockmesh_proto::Sku;
    /// assert_eq!(Sku::new("MUG-01").unwrap().as_str(), "MUG-01");
    /// assert!(Sku::new("").is_err());
    /// ```
    Sku,
    "SKU",
    SKU_BYTES_MAX
);
name_type!(
    /// Where stock lies: UTF-8 of 1 to 64 bytes without control characters.
    Location,
    "location",
    LOCATION_BYTES_MAX
);
name_type!(
    /// The name of a cluster: two nodes link only if theirs are the same. UTF-8 of 1 to 64 bytes.
    ClusterId,
    "cluster id",
    CLUSTER_ID_BYTES_MAX
);
name_type!(
    /// The embedder's own name of a request, such as an order with its line: a retry under the same reference is
    /// answered with the first result (rule O4). UTF-8 of 1 to 128 bytes without control characters.
    Reference,
    "reference",
    REFERENCE_BYTES_MAX
);

/// Digits of Crockford's base 32: no letter that reads like a digit.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// One writer: the life of one data directory. 64 random bits, never zero, shown in base 32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(u64);

impl ReplicaId {
    /// A replica id of 64 bits that the caller drew at random. Zero, which no id may be, becomes one.
    pub fn from_random(random: u64) -> Self {
        Self(random.max(1))
    }

    /// The id of these bits, if it is one.
    pub fn from_bits(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Self(bits))
    }

    /// The bits of the id.
    pub fn bits(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 13 digits of 5 bits hold 64 bits; the first digit carries the upper four.
        let mut digits = String::with_capacity(13);
        for place in (0..13).rev() {
            let digit = (self.0 >> (place * 5)) & 31;
            digits.push(
                usize::try_from(digit).ok().and_then(|index| BASE32.get(index)).map_or('?', |byte| char::from(*byte)),
            );
        }
        formatter.pad(&digits)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl FromStr for ReplicaId {
    type Err = InvalidInput;
    fn from_str(text: &str) -> Result<Self, InvalidInput> {
        let invalid = || InvalidInput::new("replica id", text, "must be 13 digits of base 32, not all zero");
        if text.len() != 13 {
            return Err(invalid());
        }
        let mut bits: u64 = 0;
        for byte in text.bytes() {
            let digit = BASE32.iter().position(|digit| *digit == byte.to_ascii_lowercase()).ok_or_else(invalid)?;
            let digit = u64::try_from(digit).map_err(|_| invalid())?;
            bits = bits.checked_mul(32).and_then(|bits| bits.checked_add(digit)).ok_or_else(invalid)?;
        }
        Self::from_bits(bits).ok_or_else(invalid)
    }
}

impl Serialize for ReplicaId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for ReplicaId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bits = u64::deserialize(deserializer)?;
        Self::from_bits(bits).ok_or_else(|| de::Error::custom("a replica id is never zero"))
    }
}

/// The write that last changed a slot: the `sequence`-th write of `replica` in the slot's shard, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// Who wrote.
    pub replica: ReplicaId,
    /// The how manieth write of that replica in this shard it was.
    pub sequence: u64,
}

/// A number of units: 1 to 10^12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(u64);

impl Quantity {
    /// Checks a quantity.
    ///
    /// # Errors
    /// If it is zero or above 10^12.
    pub fn new(units: u64) -> Result<Self, InvalidInput> {
        if (1..=QUANTITY_MAX).contains(&units) {
            Ok(Self(units))
        } else {
            Err(InvalidInput::new("quantity", units, format!("must be 1 to {QUANTITY_MAX} units")))
        }
    }

    /// The units.
    pub fn get(self) -> u64 {
        self.0
    }
}

/// Number of shards of a cluster: a power of two from 1 to 4,096.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardCount(u16);

impl ShardCount {
    /// Checks a shard count.
    ///
    /// # Errors
    /// If it is no power of two or out of range.
    pub fn new(shards: u32) -> Result<Self, InvalidInput> {
        let valid = (SHARDS_MIN..=SHARDS_MAX).contains(&shards) && shards.is_power_of_two();
        match u16::try_from(shards) {
            Ok(count) if valid => Ok(Self(count)),
            _ => {
                let rule = format!("must be a power of two from {SHARDS_MIN} to {SHARDS_MAX}");
                Err(InvalidInput::new("shard count", shards, rule))
            }
        }
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }

    /// All shards, in order.
    pub fn indexes(self) -> impl DoubleEndedIterator<Item = ShardIndex> + ExactSizeIterator {
        (0..self.0).map(ShardIndex)
    }

    /// The shard a product lies in (rule S1): the upper bits of XXH3-64 of the SKU's bytes.
    pub fn shard_of(self, sku: &Sku) -> ShardIndex {
        self.shard_of_name(sku.as_str())
    }

    /// The shard that a product of this name lies in, whether or not the name is a valid SKU.
    pub fn shard_of_name(self, name: &str) -> ShardIndex {
        let bits = self.0.trailing_zeros();
        if bits == 0 {
            return ShardIndex(0);
        }
        let hash = xxhash_rust::xxh3::xxh3_64(name.as_bytes()) >> (64 - bits);
        // The shift leaves fewer bits than the count has, so the conversion cannot fail.
        ShardIndex(u16::try_from(hash).unwrap_or_default())
    }

    /// The shard of this number, if the cluster has it.
    pub fn index(self, number: u16) -> Option<ShardIndex> {
        (number < self.0).then_some(ShardIndex(number))
    }
}

/// One shard of the key space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardIndex(pub u16);

impl ShardIndex {
    /// The number as an index into a list of shards.
    pub fn as_usize(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ShardIndex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replica_ids_read_back_as_shown() {
        for bits in [1, 31, 32, u64::MAX, 0x0123_4567_89ab_cdef] {
            let replica = ReplicaId::from_bits(bits).unwrap();
            assert_eq!(replica.to_string().parse::<ReplicaId>().unwrap(), replica);
        }
        assert!("0000000000000".parse::<ReplicaId>().is_err());
        assert!("zzzzzzzzzzzzz".parse::<ReplicaId>().is_err());
        assert_eq!(ReplicaId::from_random(0).bits(), 1);
    }

    #[test]
    fn names_and_numbers_are_checked() {
        assert!(Sku::new(&"x".repeat(SKU_BYTES_MAX)).is_ok());
        let error = Sku::new(&"x".repeat(SKU_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(error.field, "SKU");
        assert!(error.value.chars().count() <= 81);
        assert!(Location::new("a\nb").is_err());
        assert!(Quantity::new(0).is_err() && Quantity::new(QUANTITY_MAX + 1).is_err());
        for bad in [0, 3, 255, 8192] {
            assert!(ShardCount::new(bad).is_err(), "{bad}");
        }
    }
}
