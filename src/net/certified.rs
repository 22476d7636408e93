//! What the authority says of a node, in the node's certificate (rule K1).

use stockmesh_proto::Location;

use super::der::{element, fields_from_validity, sequence};
use crate::certificate::NodeName;

/// The extensions of a certificate.
const EXTENSIONS: u8 = 0xa3;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
/// A uniform resource identifier, among the alternative names.
const URI: u8 = 0x86;
/// 2.5.29.17, the identifier of the subject's alternative names.
const ALTERNATIVE_NAMES: [u8; 3] = [0x55, 0x1d, 0x11];

/// How the URIs begin that speak of a node.
const SCHEME: &str = "stockmesh:";

/// What the authority says of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Certified {
    pub(super) node: Option<NodeName>,
    /// Where it lies; anywhere, if nothing is said.
    pub(super) location: Option<Location>,
    pub(super) read_only: bool,
}

/// A certificate says something of its node that this version cannot go by. It must not be taken for one that says nothing: what
/// is not understood may be a restriction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be used: {0}; issue another")]
pub(super) struct Uncertain(String);

impl Uncertain {
    /// Nothing is said of a key that stands on no list.
    pub(super) fn not_listed() -> Self {
        Self("its key is not on the list".into())
    }
}

impl Certified {
    /// Reads it from a certificate in DER whose form and signature the TLS library has judged.
    pub(super) fn of_certificate(certificate: &[u8]) -> Result<Self, Uncertain> {
        let uris = uris(certificate).ok_or_else(|| Uncertain("its alternative names cannot be read".into()))?;
        Self::of_uris(uris.into_iter())
    }

    fn of_uris<'a>(uris: impl Iterator<Item = &'a [u8]>) -> Result<Self, Uncertain> {
        let (mut node, mut location, mut role) = (None, None, None);
        for uri in uris {
            let Some((scheme, rest)) = uri.split_at_checked(SCHEME.len()) else { continue };
            if !scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) {
                continue;
            }
            let shown = || String::from_utf8_lossy(uri).into_owned();
            let unreadable = || Uncertain(format!("its name {:?} is not of the form key=value", shown()));
            let at = rest.iter().position(|byte| *byte == b'=').ok_or_else(unreadable)?;
            let (key, value) = rest.split_at(at);
            let value = value.get(1..).and_then(unescape).ok_or_else(unreadable)?;
            let place = match key {
                b"node" => &mut node,
                b"location" => &mut location,
                b"role" => &mut role,
                _ => continue,
            };
            if place.as_ref().is_some_and(|known| *known != value) {
                return Err(Uncertain(format!("{:?} contradicts another of its names", shown())));
            }
            *place = Some(value);
        }
        let invalid = |error: stockmesh_proto::InvalidInput| Uncertain(error.to_string());
        let read_only = match role.as_deref() {
            None => false,
            Some("read-only") => true,
            Some(other) => return Err(Uncertain(format!("it gives the role {other:?}, which is not known here"))),
        };
        Ok(Self {
            node: node.map(|name| NodeName::new(&name)).transpose().map_err(invalid)?,
            location: location.map(|name| Location::new(&name)).transpose().map_err(invalid)?,
            read_only,
        })
    }
}

/// The URIs among a certificate's alternative names; none if it has no such names. `None` if it cannot be read.
fn uris(certificate: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = fields_from_validity(certificate)?;
    let mut found = Vec::new();
    while !fields.is_empty() {
        let (tag, content, rest) = element(fields)?;
        fields = rest;
        if tag != EXTENSIONS {
            continue;
        }
        let (mut extensions, _) = sequence(content)?;
        while !extensions.is_empty() {
            let (extension, rest) = sequence(extensions)?;
            extensions = rest;
            if let Some(names) = alternative_names(extension)? {
                let (mut names, _) = sequence(names)?;
                while !names.is_empty() {
                    let (tag, name, rest) = element(names)?;
                    names = rest;
                    if tag == URI {
                        found.push(name);
                    }
                }
            }
        }
    }
    Some(found)
}

/// The content of this extension, if it is the one with the alternative names. `None` outside if it cannot be read.
fn alternative_names(extension: &[u8]) -> Option<Option<&[u8]>> {
    let (tag, identifier, mut rest) = element(extension)?;
    if tag != OBJECT_IDENTIFIER {
        return None;
    }
    if identifier != ALTERNATIVE_NAMES {
        return Some(None);
    }
    if rest.first() == Some(&BOOLEAN) {
        rest = element(rest)?.2;
    }
    let (tag, content, _) = element(rest)?;
    (tag == OCTET_STRING).then_some(Some(content))
}

/// Text with `%` and two hexadecimal digits for each byte that is not to stand in a URI.
fn unescape(text: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(sign) = rest.next() {
        bytes.push(match sign {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            sign => sign,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut parameters = rcgen::CertificateParams::new(["stockmesh".to_owned()]).unwrap();
        let names = uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap()));
        parameters.subject_alt_names.extend(names);
        parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    fn read(uris: &[&str]) -> Result<Certified, String> {
        Certified::of_certificate(&certificate(uris)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_authority_says_is_read() {
        assert_eq!(read(&[]), Ok(Certified::default()));
        assert_eq!(read(&["https://example.org/role=read-only", "stock:role=x"]), Ok(Certified::default()));
        let all = read(&["stockmesh:node=Lager%20Z%C3%BCrich", "stockmesh:location=ulm", "STOCKMESH:role=read-only"]);
        let (node, location) = (NodeName::new("Lager Zürich").ok(), Location::new("ulm").ok());
        assert_eq!(all, Ok(Certified { node, location, read_only: true }));
        assert!(!read(&["stockmesh:colour=red", "stockmesh:node=a", "stockmesh:node=a"]).unwrap().read_only);
    }

    #[test]
    fn what_cannot_be_gone_by_is_an_error_and_not_left_out() {
        for (uris, word) in [
            (&["stockmesh:role=observer"][..], "the role \"observer\""),
            (&["stockmesh:role=READ-ONLY"][..], "the role \"READ-ONLY\""),
            (&["stockmesh:role="][..], "the role \"\""),
            (&["stockmesh:role=read-only", "stockmesh:role=full"][..], "contradicts"),
            (&["stockmesh:node=a", "stockmesh:node=b"][..], "contradicts"),
            (&["stockmesh:location="][..], "location"),
            (&["stockmesh:node=%20"][..], "not blank"),
            (&["stockmesh:node=%ff"][..], "key=value"),
            (&["stockmesh:node=%1"][..], "key=value"),
            (&["stockmesh:node=%zz"][..], "key=value"),
            (&["stockmesh:role"][..], "key=value"),
        ] {
            let error = read(uris).unwrap_err();
            assert!(error.contains(word), "{uris:?}: {error}");
        }
        assert!(Certified::of_certificate(b"").is_err() && Certified::of_certificate(&[0x30, 0]).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// A flipped byte never stops the reader, and no certificate that is cut short is taken for one that says nothing.
        #[test]
        fn no_damaged_certificate_stops_the_reader(cut: prop::sample::Index, at: prop::sample::Index, byte: u8) {
            let mut der = certificate(&["stockmesh:node=berlin-1", "stockmesh:role=read-only"]);
            let length = cut.index(der.len());
            prop_assert!(Certified::of_certificate(&der[..length]).is_err());
            let at = at.index(der.len());
            der[at] = byte;
            let _ = Certified::of_certificate(&der);
        }
    }
}
