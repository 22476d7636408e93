//! The little of DER (X.690) that is read here, by hand: a parser of X.509 would be a dozen crates for every embedder, to
//! read a few fields of a certificate that the TLS library has judged before.

/// The tag of a sequence.
const SEQUENCE: u8 = 0x30;
/// The version, which may be left out.
const VERSION: u8 = 0xa0;

/// The fields of a certificate from its validity on (RFC 5280, section 4.1). `None` if it is no certificate.
pub(super) fn fields_from_validity(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = sequence(certificate)?;
    let (mut fields, _) = sequence(certificate)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, signature algorithm and issuer stand before it.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    Some(fields)
}

/// The content of a sequence, and what follows it.
pub(super) fn sequence(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(tag, ..)| *tag == SEQUENCE).map(|(_, content, rest)| (content, rest))
}

/// The tag and the content of the first element, and what follows it.
pub(super) fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, bytes) = bytes.split_first()?;
    let (&first, bytes) = bytes.split_first()?;
    let (length, bytes) = match first {
        0..=0x7f => (usize::from(first), bytes),
        0x81..=0x84 => {
            let (length, bytes) = bytes.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().try_fold(0_usize, |sum, &byte| Some(sum.checked_mul(256)? | usize::from(byte)))?, bytes)
        }
        _ => return None,
    };
    let (content, rest) = bytes.split_at_checked(length)?;
    Some((tag, content, rest))
}
