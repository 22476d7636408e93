//! Until when a certificate counts: the one field that is read here, since the TLS library tells none.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::der::{element, fields_from_validity, sequence};

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Until when a certificate in DER counts (RFC 5280, section 4.1). `None` if it is none, or ends before 1970.
pub(super) fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (validity, _) = sequence(fields_from_validity(certificate)?)?;
    let (_, _, after) = element(validity)?;
    let (tag, text, _) = element(after)?;
    time(tag, text)
}

fn time(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let (year, rest) = match tag {
        UTC_TIME => {
            let (year, rest) = (number(text.get(..2)?)?, text.get(2..)?);
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        GENERALIZED_TIME => (number(text.get(..4)?)?, text.get(4..)?),
        _ => return None,
    };
    if rest.len() != 11 || rest.last() != Some(&b'Z') || year < 1970 {
        return None;
    }
    let mut parts = [0; 5];
    for (part, digits) in parts.iter_mut().zip(rest.chunks_exact(2)) {
        *part = number(digits)?;
    }
    let [month, day, hour, minute, second] = parts;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let months = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month).ok()?.checked_sub(1)?;
    if !(1..=*months.get(before)?).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Leap days before the year, of which 477 are before 1970.
    let past = year - 1;
    let leap_days = past / 4 - past / 100 + past / 400 - 477;
    let days = 365 * (year - 1970) + leap_days + months.iter().take(before).sum::<u64>() + day - 1;
    UNIX_EPOCH.checked_add(Duration::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
}

fn number(digits: &[u8]) -> Option<u64> {
    let digit = |sign: u8| sign.is_ascii_digit().then(|| u64::from(sign - b'0'));
    digits.iter().try_fold(0, |sum, &sign| Some(sum * 10 + digit(sign)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(tag: u8, text: &str) -> Option<u64> {
        time(tag, text.as_bytes()).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs())
    }

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(seconds(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(seconds(GENERALIZED_TIME, "20240229120000Z"), Some(1_709_208_000));
        assert_eq!(seconds(GENERALIZED_TIME, "20000301000000Z"), Some(951_868_800));
        assert_eq!(seconds(GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799));
        let wrong = [
            "",
            "Z",
            "20230229000000Z",
            "20240001000000Z",
            "20241301000000Z",
            "20240100000000Z",
            "20240101240000Z",
            "20240101006000Z",
            "20240101000060Z",
            "20240101000000",
            "2024010100000+Z",
            "19691231235959Z",
            "20240101000000+0100",
        ];
        for text in wrong {
            assert_eq!(seconds(GENERALIZED_TIME, text), None, "{text}");
        }
        assert_eq!(seconds(4, "20240101000000Z"), None);
    }

    fn certificate(not_after_seconds: u64) -> Vec<u8> {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.not_after = (UNIX_EPOCH + Duration::from_secs(not_after_seconds)).into();
        parameters.not_before = UNIX_EPOCH.into();
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_a_certificate_says_is_read(end in 0..253_402_300_800_u64) {
            prop_assert_eq!(not_after(&certificate(end)), Some(UNIX_EPOCH + Duration::from_secs(end)));
        }

        #[test]
        fn no_damaged_certificate_stops_the_reader(cut: prop::sample::Index, at: prop::sample::Index, byte: u8) {
            let mut der = certificate(2_000_000_000);
            let at = at.index(der.len());
            der[at] = byte;
            let _ = not_after(&der);
            // Cut within what is read, it is noticed.
            let _ = not_after(&der[..cut.index(der.len())]);
        }
    }
}
