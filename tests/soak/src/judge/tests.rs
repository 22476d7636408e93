//! Made-up processes: one that is well, and one for each way of growing.

use super::{LONG_LIVED, Sample, Verdict, processes};
use crate::sample::Figures;

/// Samples, five seconds apart, of an hour.
const SAMPLES: u32 = 720;
const SECONDS: f64 = 5.0;

/// How a process grows, in MiB an hour.
#[derive(Clone, Copy, Default)]
struct Growth {
    resident: f64,
    allocated: f64,
    /// By how much the resident memory goes up and down for no reason, over some eight minutes.
    restless_mib: f64,
    /// Descriptors that are open from the half on.
    descriptors: u64,
}

fn bytes(mib: f64) -> u64 {
    (mib * super::MIB) as u64
}

/// One that works as the store's processes do: its journal is written and folded again and again, and is in the engine's cache
/// as long as it is there.
fn process(node: usize, growth: Growth) -> Vec<Sample> {
    let sample = |number: u32| {
        let at_seconds = f64::from(number) * SECONDS;
        let hours = at_seconds / 3_600.0;
        let journal_mib = (at_seconds / 15.0) % 16.0;
        let figures = Figures {
            journal_bytes: bytes(journal_mib),
            heap_bytes: bytes(24.0 + journal_mib + growth.allocated * hours),
            has_folded: true,
            ..Figures::default()
        };
        let unrest = growth.restless_mib * (at_seconds / 80.0).sin();
        Sample {
            at_seconds,
            node,
            life: 1,
            age_seconds: at_seconds,
            rss_bytes: bytes(70.0 + unrest + growth.resident * hours),
            descriptors: 13 + if number < SAMPLES / 2 { 0 } else { growth.descriptors },
            threads: 4,
            processor_seconds: 0.0,
            allocated_bytes: 0,
            apparent_bytes: 0,
            figures: Some(figures),
        }
    };
    (0..SAMPLES).map(sample).collect()
}

fn judged(samples: &[Sample]) -> Vec<String> {
    let mut verdict = Verdict::default();
    processes(samples, &mut verdict);
    verdict.broken
}

/// What is broken if one of the processes grows so, and the others are well.
fn broken(node: usize, growth: Growth) -> Vec<String> {
    let growth_of = |other: usize| if other == node { growth } else { Growth::default() };
    judged(&(0..=LONG_LIVED).flat_map(|node| process(node, growth_of(node))).collect::<Vec<_>>())
}

#[test]
fn who_grows_as_far_as_it_may_is_well() {
    assert!(broken(0, Growth::default()).is_empty());
    let allowed = Growth { resident: 6.0, allocated: 7.0, restless_mib: 0.5, descriptors: 0 };
    assert!(broken(0, allowed).is_empty());
}

#[test]
fn what_the_store_keeps_is_seen_though_the_allocator_hides_it() {
    let growth = Growth { allocated: 8.0, ..Growth::default() };
    assert_eq!(broken(0, growth), ["what is allocated is seen to be flat"]);
    // Of one that is killed now and then an hour is not to be had: that it is resident memory has to show.
    assert!(broken(LONG_LIVED, growth).is_empty());
}

#[test]
fn resident_memory_that_grows_is_seen_of_each() {
    let growth = Growth { resident: 8.5, ..Growth::default() };
    assert_eq!(broken(0, growth), ["memory is flat", "memory is seen to be flat"]);
    assert_eq!(broken(LONG_LIVED, growth), ["memory is flat"]);
    assert_eq!(broken(0, Growth { resident: 60.0, ..Growth::default() })[1], "memory is small");
}

#[test]
fn who_cannot_be_seen_to_be_flat_is_not_taken_for_it() {
    let growth = Growth { resident: 6.0, restless_mib: 6.0, ..Growth::default() };
    assert_eq!(broken(0, growth), ["memory is seen to be flat"]);
}

#[test]
fn a_descriptor_that_stays_open_is_seen() {
    assert_eq!(broken(0, Growth { descriptors: 1, ..Growth::default() }), ["descriptors are flat"]);
}

/// Of one that is not there, or was never warm, nothing is known to be flat.
#[test]
fn who_lives_long_must_be_there_to_be_flat() {
    let of =
        |nodes: std::ops::Range<usize>| nodes.flat_map(|node| process(node, Growth::default())).collect::<Vec<_>>();
    let unseen = ["memory is seen to be flat", "what is allocated is seen to be flat"];
    assert_eq!(judged(&of(1..LONG_LIVED + 1)), unseen);
    assert_eq!(judged(&of(LONG_LIVED..LONG_LIVED + 1)), unseen);
    assert!(judged(&of(0..LONG_LIVED)).is_empty());
    assert_eq!(judged(&[]), ["memory is flat", "descriptors are flat"]);
}
