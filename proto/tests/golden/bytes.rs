//! Messages and records.

use std::collections::BTreeSet;

use stockmesh_proto::limits;
use stockmesh_proto::wire::{FrameKind, Message, WireError, frame_length, split_kind};

use crate::files::{crate_file, difference, frozen_body, hex, unhex};
use crate::values::{part_inheritances, part_middle};
use crate::vectors::{Value, Vector, vectors};

#[test]
fn each_value_has_its_frozen_bytes() {
    let differences: String = vectors()
        .iter()
        .filter_map(|Vector { name, what, rules, value }| {
            let lines: Vec<String> = value.encode().chunks(32).map(hex).collect();
            difference(name, what, rules, &lines)
        })
        .collect();
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn the_frozen_bytes_read_as_the_value() {
    for Vector { name, rules, value, .. } in vectors() {
        let Some(body) = frozen_body(&name) else { panic!("vectors/{name}.txt is missing (rules {rules})") };
        let bytes = unhex(&body);
        match value.is(value.content(&bytes)) {
            Ok(same) => assert!(same, "vectors/{name}.txt reads as another value (rules {rules})"),
            Err(error) => panic!("vectors/{name}.txt cannot be read (rules {rules}): {error}"),
        }
        if matches!(value, Value::Message(_) | Value::Request(_) | Value::Answer(_)) {
            // Rule W1: four bytes of length, which count the kind byte and the body.
            let prefix = <[u8; 4]>::try_from(&bytes[..4]).unwrap();
            assert_eq!(frame_length(prefix, limits::FRAME_BYTES_MAX).unwrap(), bytes.len() - 4, "{name}");
        }
    }
}

/// Rule W3: a frame that ends too early, or goes on after its content, is refused.
#[test]
fn a_byte_missing_or_too_many_is_an_error() {
    for Vector { name, value, .. } in vectors() {
        let bytes = value.encode();
        let content = value.content(&bytes);
        for length in 0..content.len() {
            assert!(value.is(&content[..length]).is_err(), "{name} reads with {length} of {} bytes", content.len());
        }
        for extra in u8::MIN..=u8::MAX {
            let longer = [content, &[extra]].concat();
            assert!(
                matches!(value.is(&longer), Err(WireError::Trailing(1))),
                "{name} reads with {extra:#04x} after its end"
            );
        }
    }
}

/// Section 6.2: each of these is the vector `part-middle` with one rule broken.
#[test]
fn a_list_of_products_that_breaks_a_rule_is_refused() {
    let whole = hex(&Message::Part(part_middle()).encode().unwrap()[4..]);
    assert!(Message::decode(&unhex(&whole)).is_ok());
    for (rule, right, wrong) in [
        ("a location's number is in its list", "a14191970000", "a14191970100"),
        ("a replica's number is in its list", "a14191970000", "a14191970001"),
        ("a replica is not 0", "cf0123456789abcdef", "cf0000000000000000"),
        ("a sequence is not 0", "970000290a", "970000000a"),
        ("no more is released than held", "290a000000", "290a000001"),
        ("products rise strictly by SKU", "a142", "a141"),
        ("a product has a slot", "a14191970000290a00000090c0c0", "a1419090c0c0"),
        ("stock rises strictly", "9197000029", "929700002900000000970000290a000000"),
        ("a name holds no control character", "a66265726c696e", "a6620a726c696e"),
        ("a name is UTF-8", "a66265726c696e", "a662ff726c696e"),
        ("a name is not empty", "a142", "a0"),
        ("a counter is no float", "290a", "29ca41200000"),
        ("a counter is not below 0", "290a", "29ff"),
        (
            "an array has no more fields than it should",
            "95a14191970000290a00000090c0c0",
            "96a14191970000290a00000090c0c0c0",
        ),
        (
            "an array has no fewer fields than it should",
            "95a14191970000290a00000090c0c0",
            "94a14191970000290a00000090c0",
        ),
        ("a list is within its limit", "91cf0123456789abcdef", "dd00001001cf0123456789abcdef"),
        ("a currency is of ISO 4217", "90c0c0c2c2", "90960001000000a3585a5ac0c2c2"),
        ("a price has at most 9 decimals", "90c0c0c2c2", "9096000100000aa3455552c0c2c2"),
    ] {
        let body = whole.replacen(right, wrong, 1);
        if body == whole {
            panic!("the case {rule:?} changes nothing");
        }
        assert!(matches!(Message::decode(&unhex(&body)), Err(WireError::Malformed(_))), "not refused: {rule}");
    }
    // What these cases are made of is accepted where no rule is broken.
    let priced = whole.replacen("90c0c0c2c2", "90960001000009a3455552c0c2c2", 1);
    assert!(Message::decode(&unhex(&priced)).is_ok());
}

/// Section 6.2: each of these is the vector `part-inheritances` with one rule broken.
#[test]
fn a_list_of_inheritances_that_breaks_a_rule_is_refused() {
    let whole = hex(&Message::Part(part_inheritances()).encode().unwrap()[4..]);
    let read = |body: &str| Message::decode(&unhex(body));
    assert!(read(&whole).is_ok());
    // All four of the first product, which has other slots.
    let list = &whole[whole.find("94990100").unwrap()..whole.find("96a142").unwrap()];
    for (rule, right, wrong) in [
        ("a location's number is in its list", "99010003", "99070003"),
        ("the retired one's number is in its list", "99010003", "99010803"),
        ("the heir's number is in its list", "99010003", "99010008"),
        ("a sequence is not 0", "990100030300000000c3", "990100030000000000c3"),
        ("nobody inherits from himself", "99010003", "99010303"),
        ("inheritances rise strictly", "990100030300000000c3", "990000030300000000c3"),
        ("an inheritance has no fewer fields than it should", "990100030300000000c3", "9801000303000000c3"),
        ("an inheritance has no more fields than it should", "990100030300000000c3", "9a0100030300000000c3c3"),
        ("a mark is a flag", "990100030300000000c3", "99010003030000000001"),
        ("a counter is not below 0", "990100030300000000c3", "9901000303ff000000c3"),
        ("a list of inheritances is not empty", list, "90"),
        ("a product with the list says so", "96a1429090c0c091", "95a1429090c0c091"),
        ("a product that says so has the list", "96a1429090c0c091", "97a1429090c0c091"),
        ("a list of inheritances is a list", "96a1429090c0c091", "96a1429090c0c0c0"),
        ("it is within its limit", "96a1429090c0c091", "96a1429090c0c0dd00010001"),
    ] {
        assert_eq!(whole.matches(right).count(), 1, "the case {rule:?} is not about one place");
        let broken = read(&whole.replacen(right, wrong, 1));
        assert!(matches!(broken, Err(WireError::Malformed(_) | WireError::Trailing(_))), "not refused: {rule}");
    }
}

/// Rule W2: a vector for every kind that the code knows, and no kind unknown to this test.
#[test]
fn every_kind_has_a_vector() {
    let known: BTreeSet<u8> = (u8::MIN..=u8::MAX).filter(|byte| split_kind(&[*byte]).is_ok()).collect();
    let kinds = [1, 2, 16, 17, 18, 19, 20, 21, 22, 23, 24, 32, 48, 49, 64, 65, 66, 80, 96, 97, 98, 99, 100, 101];
    assert_eq!(known, BTreeSet::from(kinds));
    let covered: BTreeSet<u8> = vectors()
        .iter()
        .filter(|vector| matches!(vector.value, Value::Message(_)))
        .map(|v| v.value.encode()[4])
        .collect();
    assert_eq!(covered, known);
    assert_eq!(split_kind(&[1]).unwrap().0, FrameKind::Hello);
    assert!(matches!(split_kind(&[3]), Err(WireError::UnknownKind(3))));
    assert!(matches!(split_kind(&[]), Err(WireError::Empty)));
}

/// A file that no test reads freezes nothing, and a vector without a file is not frozen.
#[test]
fn files_and_vectors_are_the_same() {
    let files: BTreeSet<String> = std::fs::read_dir(crate_file("vectors"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let tables = ["shard-of", "stamps", "replica-ids", "slot-hashes", "fingerprints", "content-hashes", "hold-id"]
        .map(String::from);
    let wanted: BTreeSet<String> =
        vectors().into_iter().map(|vector| vector.name).chain(tables).map(|name| format!("{name}.txt")).collect();
    assert_eq!(files, wanted);
}
