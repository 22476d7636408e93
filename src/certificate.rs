//! How certificates and their holders are named.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use ring::digest::{SHA256, digest};
use stockmesh_proto::InvalidInput;

use crate::limits::NODE_NAME_BYTES_MAX;

/// The SHA-256 hash of a certificate, by which people name it. Written in hexadecimal; also read with colons between the
/// bytes, as other tools write it.
///
/// ```
/// use stockmesh::CertificateFingerprint;
///
/// let text = "ab".repeat(32);
/// let fingerprint: CertificateFingerprint = text.parse()?;
/// assert_eq!(fingerprint.to_string(), text);
/// assert_eq!(vec!["AB"; 32].join(":").parse(), Ok(fingerprint));
/// assert!("abab".parse::<CertificateFingerprint>().is_err());
/// # Ok::<(), stockmesh::InvalidFingerprint>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateFingerprint([u8; 32]);

/// A text is no fingerprint of a certificate. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a SHA-256 fingerprint: 64 hexadecimal digits, with or without colons between the bytes")]
pub struct InvalidFingerprint;

impl CertificateFingerprint {
    /// Of a certificate in DER.
    pub(crate) fn of_der(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }
}

impl fmt::Display for CertificateFingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for CertificateFingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl FromStr for CertificateFingerprint {
    type Err = InvalidFingerprint;

    fn from_str(text: &str) -> Result<Self, InvalidFingerprint> {
        let digits = text.as_bytes();
        let step = match digits.len() {
            64 => 2,
            95 => 3,
            _ => return Err(InvalidFingerprint),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(step)) {
            let digit = |at: usize| match pair.get(at).copied() {
                Some(sign @ b'0'..=b'9') => Ok(sign - b'0'),
                Some(sign @ b'a'..=b'f') => Ok(sign - b'a' + 10),
                Some(sign @ b'A'..=b'F') => Ok(sign - b'A' + 10),
                _ => Err(InvalidFingerprint),
            };
            if pair.get(2).is_some_and(|sign| *sign != b':') {
                return Err(InvalidFingerprint);
            }
            *byte = digit(0)? * 16 + digit(1)?;
        }
        Ok(Self(bytes))
    }
}

/// The name of a node, as its certificate says it: 1 to 64 bytes of UTF-8, without control characters and not blank.
/// A node that gets a new certificate keeps its name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

impl NodeName {
    /// Checks a name.
    ///
    /// # Errors
    /// If it is blank, too long, or has control characters.
    pub fn new(name: &str) -> Result<Self, InvalidInput> {
        let is_long = name.len() > NODE_NAME_BYTES_MAX;
        if name.trim().is_empty() || is_long || name.chars().any(char::is_control) {
            let rule = format!("must be 1 to {NODE_NAME_BYTES_MAX} bytes, not blank, without control characters");
            return Err(InvalidInput::new("name", name, rule));
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_strictly() {
        let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(CertificateFingerprint::of_der(b"").to_string(), of_nothing);
        assert_eq!(of_nothing.to_uppercase().parse(), Ok(CertificateFingerprint::of_der(b"")));
        let colons = vec!["0f"; 32].join(":");
        assert!(colons.parse::<CertificateFingerprint>().is_ok());
        let wrong = [
            String::new(),
            "0".repeat(63),
            "0".repeat(65),
            "0".repeat(95),
            format!("+{}", "0".repeat(63)),
            format!("g{}", "0".repeat(63)),
            "é".repeat(32),
            colons.replacen(':', "-", 1),
        ];
        for text in wrong {
            assert_eq!(text.parse::<CertificateFingerprint>(), Err(InvalidFingerprint), "{text}");
        }
    }
}
