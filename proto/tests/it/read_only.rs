//! Read-only members in a reconciliation (rule K3): they get what they lack, and nothing of theirs is taken.

use proptest::prelude::*;
use stockmesh_proto::VersionVector;
use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::Operation;
use stockmesh_proto::reconcile::{Direction, Session, SessionError};
use stockmesh_proto::wire::{FrameKind, Message, Part};

use crate::support::conversation::{ACCEPTER, Conversation, OPENER, settings};
use crate::support::generate::operations;
use crate::support::replica::Replica;
use crate::support::{config, location, replica_id, shard_count, sku};

/// Two replicas: each wrote something, and each knows a part of what a third one wrote.
fn histories(writes: &[Vec<Operation>; 3], pushed: [bool; 2]) -> (Replica, Replica) {
    let [mut full, mut reader, mut third] = [1, 2, 3].map(|bits| Replica::new(replica_id(bits), shard_count(8)));
    let (_, pushes) = third.write(&writes[0], 1_000);
    for (replica, pushed) in [(&mut full, pushed[0]), (&mut reader, pushed[1])] {
        for push in pushes.iter().filter(|_| pushed) {
            replica.receive(push, stockmesh_proto::check::DriftCheck { now_ms: 1_000, drift_ms_max: 60_000 });
        }
    }
    full.write(&writes[1], 1_001);
    // From before it became a read-only member, or since it lies.
    reader.write(&writes[2], 1_002);
    (full, reader)
}

/// The sides of one session, the read-only one as told.
fn conversation(opener: &Replica, accepter: &Replica, reader: usize) -> Conversation {
    let settings = settings(shard_count(8), 1 << 9, 60_000);
    let mut conversation = Conversation::open(opener, accepter, settings, None);
    conversation.sessions = [OPENER, ACCEPTER].map(|side| {
        let direction = if side == reader { Direction::PullOnly } else { Direction::ServeOnly };
        let session = if side == OPENER { Session::open(settings, opener, None) } else { Session::accept(settings) };
        session.with_direction(direction)
    });
    conversation
}

proptest! {
    #![proptest_config(config(128))]

    #[test]
    fn a_read_only_member_gets_all_and_gives_nothing(
        writes in [operations(), operations(), operations()],
        pushed in any::<[bool; 2]>(),
        reader_opens in any::<bool>(),
    ) {
        let (mut full, mut reader) = histories(&writes, pushed);
        let before = full.contents();
        let reader_side = if reader_opens { OPENER } else { ACCEPTER };
        let conversation = if reader_opens {
            let mut conversation = conversation(&reader, &full, OPENER);
            conversation.run(&mut reader, &mut full, 2_000);
            conversation
        } else {
            let mut conversation = conversation(&full, &reader, ACCEPTER);
            conversation.run(&mut full, &mut reader, 2_000);
            conversation
        };
        prop_assert_eq!(conversation.sessions[reader_side].outcome().slots_sent, 0);
        prop_assert_eq!(full.contents(), before, "nothing of the reader was taken");
        prop_assert_eq!(full.own_futures, 0);
        for shard in shard_count(8).indexes() {
            let products = full.shard(shard).extract(&VersionVector::new(), std::ops::Bound::Unbounded, usize::MAX);
            prop_assert_eq!(reader.merge(shard, &products.products).slots_changed, 0, "the reader has all of it");
            prop_assert!(reader.shard(shard).version().dominates(full.shard(shard).version()));
        }
        // It ends in a receipt, or in `Equal`: the side that opened knows that the session is over.
        prop_assert!(conversation.transcript.iter().any(|(_, kind)| matches!(kind, FrameKind::Done | FrameKind::Equal)));
    }
}

/// The peer does not keep to it: a slot, or a chunk that promises more, ends the session, and nothing is merged.
#[test]
fn slots_of_a_read_only_member_end_the_session() {
    let full = Replica::new(replica_id(1), shard_count(8));
    let mut reader = Replica::new(replica_id(2), shard_count(8));
    let (_, pushes) = reader.write(
        &[Operation::Adjust { sku: sku("MUG"), location: location("a"), units: 5, reason: Reason::Found }],
        1_000,
    );
    let shard = pushes[0].shards[0].shard;
    let version = Some(reader.shard(shard).version().clone());
    let part = |products, last| Message::Part(Part { shard, version: version.clone(), products, full: false, last });
    for message in [part(pushes[0].shards[0].products.clone(), true), part(Vec::new(), false)] {
        let settings = settings(shard_count(8), 1 << 16, 60_000);
        let mut session = Session::open(settings, &full, None).with_direction(Direction::ServeOnly);
        while session.poll_transmit(&full).is_some() {}
        assert_eq!(session.handle(message, &full, 1_000), Err(SessionError::ReadOnly(shard)));
    }
    let settings = settings(shard_count(8), 1 << 16, 60_000);
    let mut session = Session::open(settings, &full, None).with_direction(Direction::ServeOnly);
    while session.poll_transmit(&full).is_some() {}
    let effects = session.handle(part(Vec::new(), true), &full, 1_000).unwrap();
    assert_eq!(effects, [], "its vector is read, and not claimed");
}
