//! How much memory decoding takes, measured by the allocator: hostile frames must not make it take much.
//!
//! A test crate of its own with a single test, since the measure is of the whole process.
#![allow(clippy::unwrap_used)]

use peak_alloc::PeakAlloc;
use stockmesh_proto::wire::{BatchRecord, Message, SnapshotRecord};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const FRAME_BYTES: usize = 1 << 20;
/// Most bytes that decoding may take for each byte of the frame, value and scratch together. The densest frames are
/// of products with one short slot each: a product takes some 15 bytes on the wire and, with its list of slots, some
/// 190 in memory, which exist once as read and once as checked, in lists that double as they grow.
const FACTOR: usize = 48;
/// What any frame may take, however short it is: lists reserve at most 256 elements before they arrive.
const BASE_BYTES: usize = 256 << 10;

/// Decodes as everything that the bytes could be, and returns the most memory that it took beyond what was in use.
fn peak(frame: &[u8]) -> usize {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    drop(Message::decode(frame));
    drop(BatchRecord::decode(frame));
    drop(SnapshotRecord::decode(frame));
    ALLOCATOR.peak_usage() - before
}

fn check(what: &str, frame: &[u8], must_be_read: bool) {
    let (length, peak) = (frame.len(), peak(frame));
    println!("{what}: {length} bytes take {peak}, {} for each", peak / length);
    assert!(length <= FRAME_BYTES, "{what}");
    assert_eq!(Message::decode(frame).is_ok(), must_be_read, "{what}: {:?}", Message::decode(frame).err());
    assert!(peak <= BASE_BYTES + FACTOR * length, "{what}: {length} bytes took {peak}");
}

fn array(length: usize) -> Vec<u8> {
    [vec![0xdd], u32::try_from(length).unwrap().to_be_bytes().to_vec()].concat()
}

/// A part with one location, one replica and these products.
fn part(products: &[u8]) -> Vec<u8> {
    let head = [20, 0x95, 0x00, 0xc0, 0x93, 0x91, 0xa1, b'x', 0x91, 0x01];
    [&head, products, &[0xc2, 0xc3]].concat()
}

/// A SKU of three letters, rising with the number.
fn name(number: usize) -> Vec<u8> {
    let letter = |place: u32| b'0' + u8::try_from(number / 60_usize.pow(place) % 60).unwrap();
    vec![0xa3, letter(2), letter(1), letter(0)]
}

fn list(count: usize, element: impl Fn(usize) -> Vec<u8>) -> Vec<u8> {
    [array(count), (0..count).flat_map(element).collect()].concat()
}

#[test]
fn decoding_takes_a_bounded_multiple_of_the_frame() {
    let slot = [0x97, 0, 0, 1, 0, 0, 0, 0];
    let listed = |number| [vec![0x95], name(number), vec![0x90, 0x90, 0xc0, 0x94, 0, 1, 1, 0xc3]].concat();
    check("products with a mark alone", &part(&list(65_536, listed)), true);
    let stock = |number| [vec![0x95], name(number), vec![0x91], slot.to_vec(), vec![0x90, 0xc0, 0xc0]].concat();
    check("products with one slot", &part(&list(61_000, stock)), true);
    let price = [0x90, 0x90, 0x96, 0, 1, 1, 1, 2, 0xa3, b'E', b'U', b'R', 0xc0];
    let priced = |number| [vec![0x95], name(number), price.to_vec()].concat();
    check("products with a price alone", &part(&list(58_000, priced)), true);
    // Slots of one place in one product are out of order, which is found only when all are read.
    let full = |number| [vec![0x95], name(number), list(4_096, |_| slot.to_vec()), vec![0x90, 0xc0, 0xc0]].concat();
    check("products with 4,096 slots", &part(&list(31, full)), false);
    let grant = [0x95, 0, 0, 0, 1, 1];
    let grants = |number| [vec![0x95], name(number), vec![0x90], list(2_048, |_| grant.to_vec()), vec![0xc0, 0xc0]];
    check("products with 2,048 grants", &part(&list(84, |number| grants(number).concat())), false);
    // Of the one replica that there is, which nobody may be: found when the first is looked at, and all were read before.
    let inheritance = [0x99, 0, 0, 0, 1, 0, 0, 0, 0, 0xc2];
    let inherited = |number| {
        let list = list(1_024, |_| inheritance.to_vec());
        [vec![0x96], name(number), vec![0x90, 0x90, 0xc0, 0xc0], list].concat()
    };
    check("products with 1,024 inheritances", &part(&list(101, inherited)), false);
    // Names that just do not fit into a small string.
    let long = |number: usize| [vec![0xb8], name(number)[1..].repeat(8)].concat();
    let names = [&[20, 0x95, 0x00, 0xc0, 0x93], &list(41_000, long)[..], &[0x90, 0x90, 0xc2, 0xc3]].concat();
    check("long names of locations", &names, true);
    let entry = |number: usize| [vec![0x92, 0xcd], u16::try_from(number + 1).unwrap().to_be_bytes().to_vec(), vec![1]];
    let vector = |_| [vec![0x93, 0, 0x92, 0, 0], list(4_096, |number| entry(number).concat())].concat();
    check("summaries with full vectors", &[vec![17], list(51, vector)].concat(), true);
    check("summaries with empty vectors", &[vec![17], list(1_024, |_| vec![0x93, 0, 0x92, 0, 0, 0x90])].concat(), true);
    let push_shard = |_| vec![0x94, 0, 1, 1, 0x90];
    check("shards of a push", &[vec![32, 0x95, 1, 0x90, 0x90, 0x90], list(4_096, push_shard)].concat(), true);

    // Headers of five bytes that announce a lot, at each place where a list may stand.
    for announced in [256, 4_096, 65_536, usize::try_from(u32::MAX).unwrap()] {
        let header = array(announced);
        let short = [
            vec![16, 0x92, 0x92, 0, 0],
            vec![17],
            [vec![17], vec![0x91, 0x93, 0, 0x92, 0, 0]].concat(),
            vec![20, 0x95, 0, 0xc0, 0x93],
            vec![20, 0x95, 0, 0xc0, 0x93, 0x90],
            vec![20, 0x95, 0, 0xc0, 0x93, 0x90, 0x90],
            vec![20, 0x95, 0, 0xc0, 0x93, 0x90, 0x90, 0x91, 0x95, 0xa1, b'A'],
            vec![20, 0x95, 0, 0xc0, 0x93, 0x90, 0x90, 0x91, 0x95, 0xa1, b'A', 0x90],
            vec![20, 0x95, 0, 0xc0, 0x93, 0x90, 0x90, 0x91, 0x96, 0xa1, b'A', 0x90, 0x90, 0xc0, 0xc0],
            vec![20, 0x95, 0],
            vec![32, 0x95, 1],
            vec![32, 0x95, 1, 0x90],
            vec![32, 0x95, 1, 0x90, 0x90],
            vec![32, 0x95, 1, 0x90, 0x90, 0x90],
            vec![32, 0x95, 1, 0x90, 0x90, 0x90, 0x91, 0x94, 0, 1, 1],
            vec![0x93, 1, 1],
        ];
        for head in short {
            check("a header", &[&head, &header[..]].concat(), false);
        }
        for kind in [16, 17, 20, 32] {
            check("3 KB of nested headers", &[vec![kind], header.repeat(600)].concat(), false);
            check("a frame of nested headers", &[vec![kind], header.repeat(FRAME_BYTES / 5 - 1)].concat(), false);
        }
        // As long strings and binaries, which exist only if their bytes do.
        check("a long name", &[20, 0x95, 0, 0xc0, 0x93, 0x91, 0xdb, 0xff, 0xff, 0xff, 0xff, b'x'], false);
    }
    check("3 KB of nested arrays", &[vec![20], vec![0x91; 3_000]].concat(), false);
}
