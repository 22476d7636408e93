//! A small certificate authority for a cluster: issues the certificates by which nodes know each other.
//!
//! Nodes are judged by the authority that signed them and by one fixed [name](SERVER_NAME), not by the address at
//! which they were reached, so a node may move without a new certificate.
//!
//! ```
//! use stockmesh::certificates::{Authority, Validity};
//!
//! let authority = Authority::new("shops", Validity::from_days(3_650)?)?;
//! let berlin = authority.issue("berlin", &["10.0.0.7"], Validity::from_days(365)?)?;
//! assert!(berlin.certificate_pem.starts_with("-----BEGIN CERTIFICATE-----"));
//! # Ok::<(), stockmesh::certificates::CertificateError>(())
//! ```

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls::pki_types::DnsName;
use stockmesh_proto::Location;
use thiserror::Error;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::certificate::{CertificateFingerprint, NodeName};

/// The name in every node's certificate, which each node asks of the other.
pub const SERVER_NAME: &str = "stockmesh";

/// Longest name of an authority or node, in bytes: what X.520 allows for a common name.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest validity, in days: 100 years. More is a slip of the keyboard, and would leave the range of X.509 dates.
pub const MAX_VALIDITY_DAYS: u32 = 36_525;

/// Most further names in one certificate; each handshake carries them all.
pub const MAX_HOSTS: usize = 32;

/// Largest PEM text of an authority, in bytes. A certificate of ours takes about 600.
pub const MAX_PEM_BYTES: usize = 64 * 1024;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Start of the year 10,000, in seconds since 1970: X.509 writes years with four digits.
const YEAR_10000_SECONDS: u64 = 253_402_300_800;

/// Why a certificate was not issued. Nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// An argument breaks a rule.
    #[error("{field} {value:?}: {rule}")]
    Invalid {
        /// Name of the argument.
        field: &'static str,
        /// Its value, shortened.
        value: String,
        /// What it must be.
        rule: String,
    },
    /// The certificate or the key of an authority cannot be used.
    #[error("{field}: {rule}")]
    Pem {
        /// Which of the two.
        field: &'static str,
        /// What it must be.
        rule: String,
    },
    /// The cryptography failed.
    #[error("the certificate cannot be made: {0}")]
    Generation(#[from] rcgen::Error),
}

impl CertificateError {
    fn invalid(field: &'static str, value: &str, rule: impl Into<String>) -> Self {
        Self::Invalid { field, value: value.chars().take(MAX_NAME_BYTES).collect(), rule: rule.into() }
    }

    fn pem(field: &'static str, rule: impl Into<String>) -> Self {
        Self::Pem { field, rule: rule.into() }
    }
}

/// From when to when a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    not_before: SystemTime,
    not_after: SystemTime,
}

impl Validity {
    /// From a day ago, so that a node whose clock is behind takes it too, to so many days from now.
    ///
    /// # Errors
    /// If `days` is 0 or more than [`MAX_VALIDITY_DAYS`].
    pub fn from_days(days: u32) -> Result<Self, CertificateError> {
        if days == 0 || days > MAX_VALIDITY_DAYS {
            let rule = format!("must lie between 1 and {MAX_VALIDITY_DAYS}");
            return Err(CertificateError::invalid("days", &days.to_string(), rule));
        }
        let now = SystemTime::now();
        Self::between(now - DAY, now + DAY * days)
    }

    /// Any other span, for example one that has passed.
    ///
    /// # Errors
    /// If it ends before it starts, or leaves the years 1970 to 9999.
    pub fn between(not_before: SystemTime, not_after: SystemTime) -> Result<Self, CertificateError> {
        for (field, time) in [("not_before", not_before), ("not_after", not_after)] {
            let seconds = time.duration_since(UNIX_EPOCH).map(|since| since.as_secs());
            if !seconds.is_ok_and(|seconds| seconds < YEAR_10000_SECONDS) {
                let rule = "must lie in the years 1970 to 9999";
                return Err(CertificateError::invalid(field, &format!("{time:?}"), rule));
            }
        }
        if not_after <= not_before {
            let value = format!("{not_after:?}");
            return Err(CertificateError::invalid("not_after", &value, "must be after not_before"));
        }
        Ok(Self { not_before, not_after })
    }

    fn apply(self, parameters: &mut CertificateParams) {
        parameters.not_before = self.not_before.into();
        parameters.not_after = self.not_after.into();
    }
}

/// A node's certificate and private key, both as PEM.
#[derive(Clone)]
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key; whoever has it is this node.
    pub key_pem: String,
}

/// What a node's certificate says of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct NodeDetails<'a> {
    /// The node's name. It should keep it when its certificate is renewed: a replica id belongs to one name.
    pub name: &'a str,
    /// Its home location, if its peers are to insist on it.
    pub location: Option<&'a str>,
    /// Whether it is a read-only member: it gets all writes, and has none.
    pub read_only: bool,
    /// Further names for other tools, each a DNS name or an IP address; stockmesh itself does not look at them.
    pub hosts: &'a [&'a str],
}

/// A key pair for a cluster without an authority, see [`Identity::from_raw_key`](crate::Identity::from_raw_key).
#[derive(Clone)]
pub struct RawKey {
    /// The private key in PEM; whoever has it is this node.
    pub key_pem: String,
    /// The public key in PEM, for the lists of the other nodes.
    pub public_key_pem: String,
}

impl RawKey {
    /// Makes a new Ed25519 key pair.
    ///
    /// # Errors
    /// If the cryptography fails.
    pub fn new() -> Result<Self, CertificateError> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        Ok(Self { key_pem: key.serialize_pem(), public_key_pem: key.public_key_pem() })
    }
}

/// A certificate authority: whoever holds its key decides who belongs to the cluster.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority with an Ed25519 key.
    ///
    /// # Errors
    /// If the name is empty, longer than [`MAX_NAME_BYTES`] or has control characters.
    pub fn new(name: &str, validity: Validity) -> Result<Self, CertificateError> {
        let mut parameters = named(name)?;
        validity.apply(&mut parameters);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let certificate_pem = parameters.self_signed(&key)?.pem();
        Ok(Self { certificate_pem, issuer: Issuer::new(parameters, key) })
    }

    /// Takes up an authority that was saved.
    ///
    /// # Errors
    /// If either text is no PEM of its kind, the certificate is none of an authority, or the key is not its key.
    pub fn from_pem(certificate_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        const CERTIFICATE: &str = "certificate of the authority";
        const KEY: &str = "key of the authority";
        for (field, text) in [(CERTIFICATE, certificate_pem), (KEY, key_pem)] {
            if text.len() > MAX_PEM_BYTES {
                let rule = format!("must not be longer than {MAX_PEM_BYTES} bytes");
                return Err(CertificateError::pem(field, rule));
            }
        }
        let key = KeyPair::from_pem(key_pem)
            .map_err(|error| CertificateError::pem(KEY, format!("must be a private key as PEM ({error})")))?;
        let not_pem = || CertificateError::pem(CERTIFICATE, "must be one X.509 certificate as PEM");
        let mut blocks = Pem::iter_from_buffer(certificate_pem.as_bytes());
        let block = blocks.next().and_then(Result::ok).ok_or_else(not_pem)?;
        if blocks.next().is_some() {
            return Err(not_pem());
        }
        let certificate = block.parse_x509().map_err(|_| not_pem())?;
        if !certificate.is_ca() {
            let rule = "must allow its holder to sign certificates";
            return Err(CertificateError::pem(CERTIFICATE, rule));
        }
        // A wrong key would go unnoticed here, and every certificate signed with it be refused by all nodes.
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            let rule = "must be the key of the authority's certificate";
            return Err(CertificateError::pem(KEY, rule));
        }
        Ok(Self {
            certificate_pem: certificate_pem.to_owned(),
            issuer: Issuer::from_ca_cert_pem(certificate_pem, key)?,
        })
    }

    /// Issues the certificate of a full member at any location, see [`Authority::issue_node`].
    ///
    /// # Errors
    /// As for that.
    pub fn issue(&self, name: &str, hosts: &[&str], validity: Validity) -> Result<Issued, CertificateError> {
        self.issue_node(&NodeDetails { name, hosts, ..NodeDetails::default() }, validity)
    }

    /// Issues the certificate of a node, for both ends of a link. It names [`SERVER_NAME`], the node if its name is
    /// a DNS name, and the hosts; and as URIs what its peers go by: the node's name, its location and its role
    /// (`PROTOCOL.md`, rule K1).
    ///
    /// # Errors
    /// If the name breaks the rules of [`Authority::new`], the location is none, or a host is neither DNS name nor IP
    /// address.
    ///
    /// ```
    /// use stockmesh::certificates::{Authority, NodeDetails, Validity};
    ///
    /// let authority = Authority::new("shops", Validity::from_days(3_650)?)?;
    /// let screen = NodeDetails { name: "screen-1", location: Some("berlin"), read_only: true, ..NodeDetails::default() };
    /// let issued = authority.issue_node(&screen, Validity::from_days(365)?)?;
    /// # Ok::<(), stockmesh::certificates::CertificateError>(())
    /// ```
    pub fn issue_node(&self, node: &NodeDetails<'_>, validity: Validity) -> Result<Issued, CertificateError> {
        let mut parameters = named(node.name)?;
        validity.apply(&mut parameters);
        parameters.subject_alt_names = alternative_names(node.name, node.hosts)?;
        parameters.subject_alt_names.extend(stated(node)?);
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        Ok(Issued { certificate_pem: parameters.signed_by(&key, &self.issuer)?.pem(), key_pem: key.serialize_pem() })
    }

    /// The authority's certificate: every node needs it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The authority's private key: no node needs it.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

/// The fingerprint of a certificate, or of a public key that stands in the place of one, by which it is revoked, see
/// [`Builder::revocations`](crate::Builder::revocations). Of several in one text, that of the first: the node's own.
///
/// # Errors
/// If the text does not begin with a certificate or a public key in PEM.
///
/// ```
/// use stockmesh::certificates::{Authority, Validity, fingerprint};
///
/// let authority = Authority::new("shops", Validity::from_days(3_650)?)?;
/// let berlin = authority.issue("berlin", &[], Validity::from_days(365)?)?;
/// println!("{}", fingerprint(&berlin.certificate_pem)?);
/// assert!(fingerprint(&berlin.key_pem).is_err());
/// # Ok::<(), stockmesh::certificates::CertificateError>(())
/// ```
pub fn fingerprint(certificate_pem: &str) -> Result<CertificateFingerprint, CertificateError> {
    let invalid = || CertificateError::pem("certificate", "must be an X.509 certificate or a public key as PEM");
    let block = Pem::iter_from_buffer(certificate_pem.as_bytes()).next().and_then(Result::ok).ok_or_else(invalid)?;
    if block.label == "PUBLIC KEY" {
        SubjectPublicKeyInfo::from_der(&block.contents).map_err(|_| invalid())?;
    } else {
        block.parse_x509().map_err(|_| invalid())?;
    }
    Ok(CertificateFingerprint::of_der(&block.contents))
}

fn named(name: &str) -> Result<CertificateParams, CertificateError> {
    NodeName::new(name).map_err(|_| {
        let rule = format!("must be 1 to {MAX_NAME_BYTES} bytes, not blank, without control characters");
        CertificateError::invalid("name", name, rule)
    })?;
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    Ok(parameters)
}

/// What peers go by, as URIs (rule K1).
fn stated(node: &NodeDetails<'_>) -> Result<Vec<SanType>, CertificateError> {
    let mut uris = vec![format!("stockmesh:node={}", escape(node.name))];
    if let Some(location) = node.location {
        let location = Location::new(location)
            .map_err(|error| CertificateError::invalid("location", location, error.to_string()))?;
        uris.push(format!("stockmesh:location={}", escape(location.as_str())));
    }
    if node.read_only {
        uris.push("stockmesh:role=read-only".into());
    }
    uris.into_iter().map(|uri| Ok(SanType::URI(uri.try_into()?))).collect()
}

/// Text as it may stand in a URI.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => escaped.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => escaped.push(char::from(byte)),
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn alternative_names(name: &str, hosts: &[&str]) -> Result<Vec<SanType>, CertificateError> {
    if hosts.len() > MAX_HOSTS {
        let rule = format!("must not be more than {MAX_HOSTS}");
        return Err(CertificateError::invalid("hosts", &hosts.len().to_string(), rule));
    }
    let mut names = vec![SanType::DnsName(SERVER_NAME.try_into()?)];
    // A name such as `Lager Nord` is fine for a node; it is just no DNS name.
    if name.parse::<IpAddr>().is_err() && DnsName::try_from(name).is_ok() {
        names.push(SanType::DnsName(name.try_into()?));
    }
    for &host in hosts {
        names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) if DnsName::try_from(host).is_ok() => SanType::DnsName(host.try_into()?),
            Err(_) => {
                let rule = "must be a DNS name or an IP address, without port";
                return Err(CertificateError::invalid("host", host, rule));
            }
        });
    }
    let mut unique: Vec<SanType> = Vec::with_capacity(names.len());
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    Ok(unique)
}
