//! The specification's text.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use stockmesh_proto::hold::HoldId;
use stockmesh_proto::movement::{Movement, MovementKind};
use stockmesh_proto::wire::client::{Answer, Request};
use stockmesh_proto::wire::{WireError, split_kind};
use stockmesh_proto::{Location, ReplicaId, Sku, limits};

use crate::files::crate_file;
use crate::values::{REASONS, movement, movement_kinds, retirement_kinds};

/// Section 2 of the specification states the limits of the code.
#[test]
fn the_specification_states_the_limits() {
    let text = std::fs::read_to_string(crate_file("PROTOCOL.md")).unwrap();
    let wide = |number: usize| u64::try_from(number).unwrap();
    for (name, value) in [
        ("SKU_BYTES_MAX", wide(limits::SKU_BYTES_MAX)),
        ("LOCATION_BYTES_MAX", wide(limits::LOCATION_BYTES_MAX)),
        ("CLUSTER_ID_BYTES_MAX", wide(limits::CLUSTER_ID_BYTES_MAX)),
        ("REFERENCE_BYTES_MAX", wide(limits::REFERENCE_BYTES_MAX)),
        ("PRICE_SCALE_MAX", u64::from(limits::PRICE_SCALE_MAX)),
        ("PRICE_UNITS_MAX", limits::PRICE_UNITS_MAX),
        ("SHARDS_MIN", u64::from(limits::SHARDS_MIN)),
        ("SHARDS_MAX", u64::from(limits::SHARDS_MAX)),
        ("FINGERPRINT_GROUP_SHARDS", u64::from(limits::FINGERPRINT_GROUP_SHARDS)),
        ("REPLICAS_MAX", wide(limits::REPLICAS_MAX)),
        ("STOCK_SLOTS_MAX", wide(limits::STOCK_SLOTS_MAX)),
        ("STOCK_SLOTS_OPENED_MAX", wide(limits::STOCK_SLOTS_OPENED_MAX)),
        ("GRANT_SLOTS_MAX", wide(limits::GRANT_SLOTS_MAX)),
        ("GRANT_SLOTS_OPENED_MAX", wide(limits::GRANT_SLOTS_OPENED_MAX)),
        ("INHERITANCE_SLOTS_MAX", wide(limits::INHERITANCE_SLOTS_MAX)),
        ("INHERITANCE_SLOTS_OPENED_MAX", wide(limits::INHERITANCE_SLOTS_OPENED_MAX)),
        ("PRODUCT_BYTES_MAX", wide(limits::PRODUCT_BYTES_MAX)),
        ("FRAME_BYTES_MAX", wide(limits::FRAME_BYTES_MAX)),
        ("HELLO_BYTES_MAX", wide(limits::HELLO_BYTES_MAX)),
        ("MESSAGE_BYTES_MAX", wide(limits::MESSAGE_BYTES_MAX)),
        ("OPEN_BYTES_MAX", wide(limits::OPEN_BYTES_MAX)),
        ("CHUNK_PRODUCTS_MAX", wide(limits::CHUNK_PRODUCTS_MAX)),
        ("SUMMARIES_PER_FRAME_MAX", wide(limits::SUMMARIES_PER_FRAME_MAX)),
        ("SESSION_VERSION_ENTRIES_MAX", wide(limits::SESSION_VERSION_ENTRIES_MAX)),
        ("PULL_SHARDS_MAX", wide(limits::PULL_SHARDS_MAX)),
        ("WIRE_DEPTH_MAX", wide(limits::WIRE_DEPTH_MAX)),
        ("PUSH_SHARDS_MAX", wide(limits::PUSH_SHARDS_MAX)),
        ("PUSH_TOLD_MAX", wide(limits::PUSH_TOLD_MAX)),
        ("RETIRE_WITHOUT_MAX", wide(limits::RETIRE_WITHOUT_MAX)),
        ("DRIFT_MS_MAX", limits::DRIFT_MS_MAX),
        ("LABELS_MAX", wide(limits::LABELS_MAX)),
        ("LABEL_BYTES_MAX", wide(limits::LABEL_BYTES_MAX)),
        ("SOFTWARE_BYTES_MAX", wide(limits::SOFTWARE_BYTES_MAX)),
        ("GENERATION_MAX", limits::GENERATION_MAX),
        ("GENERATION_STEP_MAX", limits::GENERATION_STEP_MAX),
        ("MEMBERS_MAX", wide(limits::MEMBERS_MAX)),
        ("MEMBERSHIP_DATAGRAM_BYTES_MAX", wide(limits::MEMBERSHIP_DATAGRAM_BYTES_MAX)),
        ("MEMBERS_PER_FRAME_MAX", wide(limits::MEMBERS_PER_FRAME_MAX)),
        ("MEMBER_DOWN_LISTED_S", u64::from(limits::MEMBER_DOWN_LISTED_S)),
        ("QUANTITY_MAX", limits::QUANTITY_MAX),
        ("HOLD_TTL_MS_MAX", limits::HOLD_TTL_MS_MAX),
        ("HOLDS_ACTIVE_MAX", wide(limits::HOLDS_ACTIVE_MAX)),
        ("HOLDS_RESOLVED_MAX", wide(limits::HOLDS_RESOLVED_MAX)),
        ("HOLDS_RESOLVED_MS", limits::HOLDS_RESOLVED_MS),
        ("REFERENCE_WINDOW_MS_DEFAULT", limits::REFERENCE_WINDOW_MS_DEFAULT),
        ("REFERENCES_MAX_DEFAULT", wide(limits::REFERENCES_MAX_DEFAULT)),
        ("BATCH_OPERATIONS_MAX", wide(limits::BATCH_OPERATIONS_MAX)),
        ("LEDGER_REQUESTS_MAX", wide(limits::LEDGER_REQUESTS_MAX)),
        ("LINKS_MIN", wide(limits::LINKS_MIN)),
        ("LINKS_MAX", wide(limits::LINKS_MAX)),
        ("LINKS_DEFAULT", wide(limits::LINKS_DEFAULT)),
        ("OWN_LINKS_MIN", wide(limits::OWN_LINKS_MIN)),
        ("LEDGER_MOVEMENTS_MAX", wide(limits::LEDGER_MOVEMENTS_MAX)),
        ("CLIENT_REQUEST_BYTES_MAX", wide(limits::CLIENT_REQUEST_BYTES_MAX)),
        ("CLIENT_ANSWER_BYTES_MAX", wide(limits::CLIENT_ANSWER_BYTES_MAX)),
        ("CLIENT_SKUS_MAX", wide(limits::CLIENT_SKUS_MAX)),
        ("CLIENT_LOCATIONS_MAX", wide(limits::CLIENT_LOCATIONS_MAX)),
        ("CLIENT_PEERS_MAX", wide(limits::CLIENT_PEERS_MAX)),
        ("CLIENT_NOTES_MAX", wide(limits::CLIENT_NOTES_MAX)),
        ("CLIENT_PAGE_MAX", wide(limits::CLIENT_PAGE_MAX)),
        ("CLIENT_TEXT_BYTES_MAX", wide(limits::CLIENT_TEXT_BYTES_MAX)),
        ("CLIENT_ERROR_BYTES_MAX", wide(limits::CLIENT_ERROR_BYTES_MAX)),
    ] {
        let row = format!("| `{name}` | {} |", with_commas(value));
        assert!(text.contains(&row), "PROTOCOL.md lacks the row {row}");
    }
}

/// Rule W2: the table of kinds states the code's numbers and limits.
#[test]
fn the_specification_states_every_kind_of_frame() {
    let text = std::fs::read_to_string(crate_file("PROTOCOL.md")).unwrap();
    let mut frame = vec![0; limits::FRAME_BYTES_MAX + 1];
    for byte in u8::MIN..=u8::MAX {
        frame[0] = byte;
        let Ok((kind, _)) = split_kind(&frame[..1]) else { continue };
        let Err(WireError::TooLong { bytes_max, .. }) = split_kind(&frame) else { panic!("{kind:?} has no limit") };
        assert!(split_kind(&frame[..bytes_max]).is_ok() && split_kind(&frame[..=bytes_max]).is_err());
        let limit = with_commas(u64::try_from(bytes_max).unwrap());
        let row = format!("| `{kind:?}` | {byte} (`{byte:02x}`) | {limit} |");
        assert!(text.contains(&row), "PROTOCOL.md lacks the row {row}");
    }
}

/// Rule X2: the table of the kinds between clients and nodes states the code's numbers and limits.
#[test]
fn the_specification_states_every_kind_of_a_client() {
    let text = std::fs::read_to_string(crate_file("PROTOCOL.md")).unwrap();
    for kind in Request::KINDS.iter().chain(Answer::KINDS) {
        let limit = with_commas(u64::try_from(kind.bytes_max).unwrap());
        let row = format!("| `{}` | {} (`{:02x}`) | {limit} |", kind.name, kind.byte, kind.byte);
        assert!(text.contains(&row), "PROTOCOL.md lacks the row {row}");
    }
}

/// Rule D7: the tables of movements state the code's numbers.
#[test]
fn the_specification_states_every_code_of_a_movement() {
    let text = std::fs::read_to_string(crate_file("PROTOCOL.md")).unwrap();
    for (kind, quantity) in movement_kinds().into_iter().chain(retirement_kinds()) {
        let label = kind.label();
        let (code, _) = codes(&movement((kind, quantity)));
        let row = format!("| {code} | {label} |");
        assert!(text.contains(&row), "PROTOCOL.md lacks the row {row}");
    }
    for reason in REASONS {
        let (_, code) = codes(&movement((MovementKind::Adjusted(reason), 1)));
        let row = format!("| {code} | {} |", reason.label());
        assert!(text.contains(&row), "PROTOCOL.md lacks the row {row}");
    }
}

/// Kind and reason of a movement as they are written.
fn codes(movement: &Movement) -> (u8, u8) {
    let bytes = rmp_serde::to_vec(movement).unwrap();
    let (_, _, kind, _, reason, ..): Fields = rmp_serde::from_slice(&bytes).unwrap();
    (kind, reason)
}

type Fields = (Sku, Location, u8, i64, u8, Option<HoldId>, Option<Location>, Option<ReplicaId>);

fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Every rule that a comment or a vector cites is stated in the specification.
#[test]
fn the_specification_states_every_cited_rule() {
    fn walk(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else {
                files.push(path);
            }
        }
    }
    let text = std::fs::read_to_string(crate_file("PROTOCOL.md")).unwrap();
    let mut files = Vec::new();
    for directory in ["src", "tests", "vectors", "../src", "../tests", "../fuzz/src", "../fuzz/fuzz_targets"] {
        walk(&crate_file(directory), &mut files);
    }
    // What is beside the text may be anything: inputs of a fuzzer, prints of a test.
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs" || extension == "txt"));
    let mut cited = BTreeSet::new();
    for file in files {
        let content = std::fs::read_to_string(file).unwrap();
        for line in content.lines().filter(|line| line.to_lowercase().contains("rule")) {
            let words = line.split(|letter: char| !letter.is_ascii_alphanumeric());
            cited.extend(words.filter(|word| is_rule(word)).map(String::from));
        }
    }
    assert!(cited.len() > 30, "{cited:?}");
    for rule in cited {
        assert!(text.contains(&format!("**{rule}.")), "PROTOCOL.md does not state rule {rule}");
    }
}

fn is_rule(word: &str) -> bool {
    let Some((letter, number)) = word.split_at_checked(1) else { return false };
    "LCSFMOPRWHDIBAEQXKJTN".contains(letter) && number.parse().is_ok_and(|number: u8| (1..=99).contains(&number))
}
