//! Labels of members, and names of their software: bounded where they are made.

use std::collections::BTreeMap;
use std::fmt;

use smol_str::SmolStr;

use crate::id::InvalidInput;
use crate::limits::{LABEL_BYTES_MAX, LABELS_MAX, SOFTWARE_BYTES_MAX};

/// Labels of a member: at most 8, keys of 1 to 32 bytes and values of up to 32 bytes of UTF-8 without control characters.
///
/// ```
/// use stockmesh_proto::member::Labels;
/// let labels = Labels::new([("rack", "7"), ("role", "shop")])?;
/// assert_eq!(labels.get("rack"), Some("7"));
/// assert!(Labels::new([("", "7")]).is_err());
/// # Ok::<(), stockmesh_proto::InvalidInput>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(BTreeMap<SmolStr, SmolStr>);

impl Labels {
    /// Checks and keeps labels. Of two with the same key the last counts.
    ///
    /// # Errors
    /// If there are too many, or one is empty, too long or holds control characters.
    pub fn new<K: AsRef<str>, V: AsRef<str>>(labels: impl IntoIterator<Item = (K, V)>) -> Result<Self, InvalidInput> {
        let mut checked = BTreeMap::new();
        for (key, value) in labels {
            let (key, value) = (key.as_ref(), value.as_ref());
            if key.is_empty() {
                return Err(InvalidInput::new("label", key, "a key must not be empty"));
            }
            for part in [key, value] {
                if part.len() > LABEL_BYTES_MAX || part.chars().any(char::is_control) {
                    let rule = format!("must have at most {LABEL_BYTES_MAX} bytes of UTF-8, no control characters");
                    return Err(InvalidInput::new("label", part, rule));
                }
            }
            checked.insert(SmolStr::new(key), SmolStr::new(value));
            if checked.len() > LABELS_MAX {
                return Err(InvalidInput::new("label", key, format!("there may be {LABELS_MAX} labels at the most")));
            }
        }
        Ok(Self(checked))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(SmolStr::as_str)
    }

    /// Keys and values, in the order of keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Name and version of a member's software: up to 64 bytes of UTF-8 without control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Software(SmolStr);

impl Software {
    /// Checks and keeps a name.
    ///
    /// # Errors
    /// If it is too long or holds control characters.
    pub fn new(name: &str) -> Result<Self, InvalidInput> {
        if name.len() > SOFTWARE_BYTES_MAX || name.chars().any(char::is_control) {
            let rule = format!("must have at most {SOFTWARE_BYTES_MAX} bytes of UTF-8, no control characters");
            return Err(InvalidInput::new("software", name, rule));
        }
        Ok(Self(SmolStr::new(name)))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Software {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}
