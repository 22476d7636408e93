//! Whole sessions without faults, agreements, doubt, and stamps beyond the drift bound.

use proptest::collection::vec;
use proptest::prelude::*;
use stockmesh_proto::check::DriftCheck;
use stockmesh_proto::limits::SUMMARIES_PER_FRAME_MAX;
use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::Operation;
use stockmesh_proto::reconcile::{Agreement, Effect, Session, StateView};
use stockmesh_proto::wire::{FrameKind, Message, Push};
use stockmesh_proto::{ShardIndex, VersionVector};

use crate::support::conversation::{ACCEPTER, Conversation, OPENER, reconcile, settings};
use crate::support::generate::operations;
use crate::support::replica::Replica;
use crate::support::{config, euros, location, replica_id, shard_count, sku};

const DRIFT: DriftCheck = DriftCheck { now_ms: 1_000, drift_ms_max: 60_000 };

/// One thing that happens to the two replicas before they meet.
#[derive(Clone, Debug)]
enum Before {
    Write {
        right: bool,
        operations: Vec<Operation>,
        pushed: bool,
    },
    /// A third replica writes; its push reaches one side or both, or is lost.
    Third {
        operations: Vec<Operation>,
        left: bool,
        right: bool,
    },
    Meet,
}

fn before() -> impl Strategy<Value = Before> {
    prop_oneof![
        4 => (any::<bool>(), operations(), any::<bool>())
            .prop_map(|(right, operations, pushed)| Before::Write { right, operations, pushed }),
        4 => (operations(), any::<bool>(), any::<bool>())
            .prop_map(|(operations, left, right)| Before::Third { operations, left, right }),
        1 => Just(Before::Meet),
    ]
}

fn push_all(pushes: &[Push], to: &mut Replica) {
    for push in pushes {
        to.receive(push, DRIFT).unwrap();
    }
}

/// Two replicas with some history, in eight shards.
fn histories(steps: &[Before]) -> (Replica, Replica) {
    let [mut left, mut right, mut third] = [1, 2, 3].map(|bits| Replica::new(replica_id(bits), shard_count(8)));
    for (now_ms, step) in (1_000..).zip(steps) {
        match step {
            Before::Write { right: is_right, operations, pushed } => {
                let (writer, peer) = if *is_right { (&mut right, &mut left) } else { (&mut left, &mut right) };
                let (_, pushes) = writer.write(operations, now_ms);
                if *pushed {
                    push_all(&pushes, peer);
                }
            }
            Before::Third { operations, left: to_left, right: to_right } => {
                let (_, pushes) = third.write(operations, now_ms);
                if *to_left {
                    push_all(&pushes, &mut left);
                }
                if *to_right {
                    push_all(&pushes, &mut right);
                }
            }
            Before::Meet => {
                reconcile(&mut left, &mut right, now_ms);
            }
        }
    }
    (left, right)
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn a_finished_session_leaves_both_sides_equal_after_one_and_a_half_round_trips(
        steps in vec(before(), 0..12),
        bytes_target in prop_oneof![Just(0_usize), Just(200), Just(1 << 16)],
    ) {
        let (mut left, mut right) = histories(&steps);
        let were_equal = left.contents() == right.contents();
        let mut conversation =
            Conversation::open(&left, &right, settings(left.count, bytes_target, 60_000), None);
        let outcome = conversation.run(&mut left, &mut right, 5_000);
        prop_assert_eq!(left.contents(), right.contents());
        prop_assert_eq!(outcome.equal, were_equal);
        prop_assert!(outcome.peer_holds_all());
        left.check_sums();
        right.check_sums();
        prop_assert_eq!(left.slots_repaired + right.slots_repaired + left.own_futures + right.own_futures, 0);
        if were_equal {
            prop_assert_eq!(conversation.turns(), 2);
        } else {
            // Three turns carry everything; the fourth is the receipt alone.
            prop_assert_eq!(conversation.turns(), 4);
            let receipt: Vec<_> = conversation.transcript.iter().rev().take(2).copied().collect();
            prop_assert_eq!(receipt, vec![(ACCEPTER, FrameKind::Done), (OPENER, FrameKind::End)]);
        }
        prop_assert!(reconcile(&mut right, &mut left, 5_000).equal);
    }

    /// Whatever an agreement says, true or stale, states are equal afterwards (it costs half a round trip at most),
    /// and claims are once everything is summarised.
    #[test]
    fn any_agreement_leaves_equal_states(
        steps in vec(before(), 0..12),
        agreed in vec(before(), 0..6),
        bytes_target in prop_oneof![Just(0_usize), Just(1 << 16)],
    ) {
        let (mut left, mut right) = histories(&steps);
        let (stranger, _) = histories(&agreed);
        for agreement in [Agreement::of(&stranger.tree(), left.count), Agreement::of(&left.tree(), left.count)] {
            let settings = settings(left.count, bytes_target, 60_000);
            let (mut left, mut right) = (left.clone(), right.clone());
            let mut conversation = Conversation::open(&left, &right, settings, Some(&agreement));
            conversation.run(&mut left, &mut right, 5_000);
            prop_assert!(conversation.turns() <= 4);
            prop_assert_eq!(left.contents().0, right.contents().0);
            prop_assert_eq!(left.tree(), right.tree());
            reconcile(&mut right, &mut left, 5_000);
            prop_assert_eq!(left.contents(), right.contents());
        }
        reconcile(&mut left, &mut right, 5_000);
    }
}

const SHARD: ShardIndex = ShardIndex(0);

fn replica(bits: u64) -> Replica {
    Replica::new(replica_id(bits), shard_count(1))
}

fn receive(name: &str, units: i64) -> Operation {
    Operation::Adjust { sku: sku(name), location: location("x"), units, reason: Reason::Found }
}

fn price(name: &str) -> Operation {
    Operation::SetPrice { sku: sku(name), price: euros(100) }
}

/// A copy of a replica that lost one product, and does not know it.
fn damaged(replica: &Replica, lost: &str, bits: u64) -> Replica {
    let mut copy = Replica::new(replica_id(bits), replica.count);
    let mut state = replica.extract(SHARD, &VersionVector::new(), None, usize::MAX);
    state.products.retain(|(sku, _)| sku.as_str() != lost);
    copy.merge(SHARD, &state.products);
    copy.shard_mut(SHARD).claim(&state.version);
    copy
}

/// Equal vectors and different fingerprints: the shard is exchanged in full, both ways, and what was lost is counted
/// (rule F4).
#[test]
fn a_shard_in_doubt_is_named_and_repaired_in_both_directions() {
    for opens in [true, false] {
        let mut writer = replica(1);
        writer.write(&[receive("A", 5), price("B"), receive("C", 1)], 1_000);
        let mut left = damaged(&writer, "A", 2);
        let mut right = damaged(&writer, "C", 3);
        let (opener, accepter) = if opens { (&mut left, &mut right) } else { (&mut right, &mut left) };
        reconcile(opener, accepter, 1_000);
        assert_eq!(accepter.notes, [Effect::InDoubt { shard: SHARD }]);
        assert_eq!((opener.slots_repaired, accepter.slots_repaired), (1, 1));
        assert_eq!(opener.contents(), writer.contents());
        assert_eq!(accepter.contents(), writer.contents());
    }
}

#[test]
fn the_opener_finds_doubt_in_a_shard_that_it_was_asked_about() {
    let mut writer = replica(1);
    writer.write(&[receive("A", 5), price("B")], 1_000);
    let (mut left, mut right) = (damaged(&writer, "A", 2), damaged(&writer, "B", 3));
    let agreement = Agreement::of(&left.tree(), left.count);
    let mut conversation = Conversation::open(&left, &right, settings(left.count, 1 << 16, 60_000), Some(&agreement));
    conversation.run(&mut left, &mut right, 1_000);
    assert_eq!((left.notes.as_slice(), right.notes.as_slice()), (&[Effect::InDoubt { shard: SHARD }][..], &[][..]));
    assert_eq!(left.contents(), writer.contents());
    assert_eq!(right.contents(), writer.contents());
}

/// A push after a gap also makes equal vectors stand beside different fingerprints. The shard is exchanged in full,
/// but nothing counts as repaired: that tells a gap from damage.
#[test]
fn a_gap_at_equal_vectors_repairs_nothing() {
    let (mut writer, mut left, mut right) = (replica(1), replica(2), replica(3));
    writer.write(&[receive("A", 5)], 1_000);
    let (_, pushes) = writer.write(&[receive("B", 1)], 1_000);
    push_all(&pushes, &mut right);
    reconcile(&mut left, &mut right, 1_000);
    assert_eq!(left.contents(), right.contents());
    assert_eq!(left.slots_repaired + right.slots_repaired, 0);
    assert_eq!(left.shard(SHARD).slots_unclaimed(), 1);
}

/// Equal fingerprint means equal state: each side may claim what the other claims (rule R6).
#[test]
fn equal_states_join_their_claims() {
    for opens in [true, false] {
        let (mut writer, mut left, mut right) = (replica(1), replica(2), replica(3));
        let (_, first) = writer.write(&[price("A")], 1_000);
        let (_, second) = writer.write(&[price("A")], 1_000);
        push_all(&first, &mut right);
        push_all(&second, &mut right);
        push_all(&second, &mut left);
        assert_eq!(left.tree(), right.tree());
        assert!(left.shard(SHARD).version().is_empty());
        let (opener, accepter) = if opens { (&mut left, &mut right) } else { (&mut right, &mut left) };
        reconcile(opener, accepter, 1_000);
        assert_eq!(left.contents(), right.contents());
        assert_eq!(left.shard(SHARD).version().get(writer.id), 2);
    }
}

/// An opening of more shards than one frame may summarise goes on in the next, and names each once.
#[test]
fn summaries_beyond_one_frame_go_on_in_the_next() {
    let empty = Replica::new(replica_id(1), shard_count(4096));
    let mut session = Session::open(settings(shard_count(4096), 1 << 16, 60_000), &empty, None);
    let mut frames = Vec::new();
    while let Some(message) = session.poll_transmit(&empty) {
        if let Message::Summary(summaries) = message {
            frames.push(summaries.into_iter().map(|summary| summary.shard).collect::<Vec<_>>());
        }
    }
    assert!(frames.len() > 1 && frames.iter().all(|frame| frame.len() <= SUMMARIES_PER_FRAME_MAX));
    assert_eq!(frames.concat(), shard_count(4096).indexes().collect::<Vec<_>>());
}

/// Rule C4: the chunk with the stamp is refused, and with it the claim of its shard; what came before stays. When the
/// clock has caught up, it is accepted.
#[test]
fn a_stamp_beyond_the_bound_is_refused_and_accepted_later() {
    for opens in [true, false] {
        let (mut fast, mut slow) = (replica(1), replica(2));
        fast.write(&[receive("A", 5)], 1_000);
        fast.write(&[price("B")], 61_001);
        fast.write(&[receive("C", 7)], 61_001);
        let settings = settings(fast.count, 0, 60_000);
        let (opener, accepter) = if opens { (&slow, &fast) } else { (&fast, &slow) };
        let mut conversation = Conversation::open(opener, accepter, settings, None);
        let (opener, accepter) = if opens { (&mut slow, &mut fast) } else { (&mut fast, &mut slow) };
        let outcome = conversation.run(opener, accepter, 1_000);
        assert_eq!(outcome.peer_holds_all(), opens, "the opener is told what the peer refused");
        assert_eq!(slow.notes, [Effect::Refused { shard: SHARD, ahead_ms: 60_001 }]);
        assert_eq!((slow.product_of("A").on_hand(), slow.product_of("C").on_hand()), (5, 0));
        assert!(slow.product_of("B").is_empty());
        assert!(slow.shard(SHARD).version().is_empty(), "no claim without the whole delta");
        assert!(slow.state.clock.latest().milliseconds() <= 61_000, "a refused stamp does not move the clock");
        assert!(reconcile(&mut fast, &mut slow, 1_001).peer_holds_all(), "one millisecond later it is in bounds");
        assert_eq!(fast.contents(), slow.contents());
    }
}

/// The same for pushes: refused whole.
#[test]
fn a_push_with_a_stamp_beyond_the_bound_is_refused_whole() {
    let (mut fast, mut slow) = (replica(1), replica(2));
    let (_, pushes) = fast.write(&[receive("A", 5), price("B")], 61_001);
    assert_eq!(slow.receive(&pushes[0], DRIFT), None);
    assert_eq!(slow.state.shards[0].products(), 0);
    assert_eq!(slow.receive(&pushes[0], DriftCheck { now_ms: 1_001, ..DRIFT }), Some((true, true)));
    assert_eq!(fast.contents(), slow.contents());
}
