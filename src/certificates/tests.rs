use x509_parser::prelude::{ASN1Time, GeneralName, X509Certificate};

use super::*;

fn year() -> Validity {
    Validity::from_days(365).unwrap()
}

fn authority() -> Authority {
    Authority::new("test", year()).unwrap()
}

fn refusal<T>(result: Result<T, CertificateError>) -> String {
    result.err().unwrap().to_string()
}

fn inspect(pem: &str, look: impl Fn(&X509Certificate<'_>)) {
    let block = Pem::iter_from_buffer(pem.as_bytes()).next().unwrap().unwrap();
    look(&block.parse_x509().unwrap());
}

#[test]
fn a_node_certificate_serves_both_ends_and_carries_the_fixed_name() {
    let issued = authority().issue("berlin", &["10.0.0.7", "b.example"], year()).unwrap();
    inspect(&issued.certificate_pem, |certificate| {
        let usage = certificate.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && usage.client_auth && !certificate.is_ca());
        let names = certificate.subject_alternative_name().unwrap().unwrap().value;
        let expected = [
            GeneralName::DNSName("stockmesh"),
            GeneralName::DNSName("berlin"),
            GeneralName::IPAddress(&[10, 0, 0, 7]),
            GeneralName::DNSName("b.example"),
            GeneralName::URI("stockmesh:node=berlin"),
        ];
        assert_eq!(names.general_names, expected);
        let now = ASN1Time::now().timestamp();
        let begin = certificate.validity().not_before.timestamp();
        assert!(now - begin >= 86_400 && now - begin < 86_500, "{begin}");
    });
    assert!(issued.key_pem.contains("PRIVATE KEY"));
}

#[test]
fn a_name_that_is_no_dns_name_is_left_out_of_the_alternative_names() {
    for name in ["Lager Nord", "Zürich", "10.0.0.1", "stockmesh"] {
        let issued = authority().issue(name, &[], year()).unwrap();
        inspect(&issued.certificate_pem, |certificate| {
            let names = certificate.subject_alternative_name().unwrap().unwrap().value;
            let names: Vec<_> =
                names.general_names.iter().filter(|name| !matches!(name, GeneralName::URI(_))).collect();
            assert_eq!(names, [&GeneralName::DNSName("stockmesh")], "{name}");
        });
    }
}

#[test]
fn a_saved_authority_issues_what_the_first_would() {
    let first = authority();
    let again = Authority::from_pem(first.certificate_pem(), &first.key_pem()).unwrap();
    let issued = again.issue("berlin", &[], year()).unwrap();
    let block = Pem::iter_from_buffer(first.certificate_pem().as_bytes()).next().unwrap().unwrap();
    let parent = block.parse_x509().unwrap();
    inspect(&issued.certificate_pem, |certificate| {
        assert_eq!(certificate.issuer(), parent.subject());
        certificate.verify_signature(Some(parent.public_key())).unwrap();
    });
}

#[test]
fn an_expired_certificate_can_be_asked_for() {
    let end = SystemTime::now() - DAY;
    let past = Validity::between(end - DAY, end).unwrap();
    let issued = authority().issue("berlin", &[], past).unwrap();
    inspect(&issued.certificate_pem, |certificate| {
        assert!(!certificate.validity().is_valid());
    });
}

#[test]
fn wrong_arguments_are_named() {
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    for name in ["", "  ", "a\nb", &long] {
        assert!(refusal(Authority::new(name, year())).starts_with("name "), "{name}");
        assert!(refusal(authority().issue(name, &[], year())).starts_with("name "));
    }
    for host in ["", "a b", "host:7400", "-"] {
        let refused = refusal(authority().issue("a", &[host], year()));
        assert!(refused.starts_with(&format!("host {host:?}: must be")), "{refused}");
    }
    let many = vec!["a.example"; MAX_HOSTS + 1];
    assert!(refusal(authority().issue("a", &many, year())).starts_with("hosts \"33\""));
    assert!(refusal(Validity::from_days(0)).starts_with("days \"0\""));
    assert!(refusal(Validity::from_days(MAX_VALIDITY_DAYS + 1)).starts_with("days "));
    let now = SystemTime::now();
    assert!(refusal(Validity::between(now, now)).starts_with("not_after"));
    assert!(refusal(Validity::between(UNIX_EPOCH - DAY, now)).starts_with("not_before"));
    let far = UNIX_EPOCH + Duration::from_secs(YEAR_10000_SECONDS);
    assert!(refusal(Validity::between(now, far)).starts_with("not_after"));
}

#[test]
fn a_wrong_pem_is_named() {
    let (one, other) = (authority(), authority());
    let certificate = "certificate of the authority: ";
    let key = "key of the authority: ";
    let refused = |a: &str, b: &str| refusal(Authority::from_pem(a, b));
    assert!(refused("", &one.key_pem()).starts_with(certificate));
    assert!(refused(&one.key_pem(), &one.key_pem()).starts_with(certificate));
    assert!(refused(one.certificate_pem(), one.certificate_pem()).starts_with(key));
    assert!(refused(one.certificate_pem(), &other.key_pem()).contains("must be the key of"));
    let twice = one.certificate_pem().repeat(2);
    assert!(refused(&twice, &one.key_pem()).contains("must be one X.509 certificate"));
    let node = one.issue("a", &[], year()).unwrap();
    assert!(refused(&node.certificate_pem, &node.key_pem).contains("must allow its holder"));
    let long = "x".repeat(MAX_PEM_BYTES + 1);
    assert!(refused(&long, &one.key_pem()).contains("must not be longer"));
}
