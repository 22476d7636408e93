//! The two traps of reconciliation, scripted: both too rare for random tests alone. Each test also does it the wrong
//! way by hand, and shows that replicas part for good, so the test is known to bite.

use stockmesh_proto::check::DriftCheck;
use stockmesh_proto::movement::Reason;
use stockmesh_proto::operation::Operation;
use stockmesh_proto::reconcile::{Effect, StateView};
use stockmesh_proto::wire::{FrameKind, PushShard, Scope};
use stockmesh_proto::{ShardIndex, VersionVector};

use crate::support::conversation::{ACCEPTER, Conversation, OPENER, reconcile, settings};
use crate::support::oracle::Log;
use crate::support::replica::Replica;
use crate::support::{euros, location, replica_id, shard_count, sku};

const SHARD: ShardIndex = ShardIndex(0);
const NOW_MS: u64 = 1_000;
const DRIFT: DriftCheck = DriftCheck { now_ms: NOW_MS, drift_ms_max: 60_000 };

fn replica(bits: u64) -> Replica {
    Replica::new(replica_id(bits), shard_count(1))
}

fn price(name: &str, cents: u64) -> Operation {
    Operation::SetPrice { sku: sku(name), price: euros(cents) }
}

fn receive(name: &str, units: i64) -> Operation {
    Operation::Adjust { sku: sku(name), location: location("x"), units, reason: Reason::Found }
}

/// A writer whose price of B is superseded at the relay by the other's, and a product A that comes before it.
struct Superseded {
    writer: Replica,
    other: Replica,
    relay: Replica,
    receiver: Replica,
    log: Log,
}

fn superseded() -> Superseded {
    let (mut writer, mut other, mut relay, receiver) = (replica(1), replica(2), replica(3), replica(4));
    let mut log = Log::default();
    log.note(writer.id, &writer.write(&[price("B", 100), receive("A", 5)], NOW_MS).0);
    log.note(other.id, &other.write(&[price("B", 200)], NOW_MS + 1).0);
    reconcile(&mut relay, &mut writer, NOW_MS);
    reconcile(&mut relay, &mut other, NOW_MS);
    Superseded { writer, other, relay, receiver, log }
}

/// Starts a session, or a pull of the one shard, in which the receiver gets the first chunk of the relay's delta, product
/// A, and no more.
fn receive_first_chunk(relay: &mut Replica, receiver: &mut Replica, is_pull: bool) -> Conversation {
    let settings = settings(shard_count(1), 0, 60_000);
    let mut conversation = if is_pull {
        Conversation::pull(receiver, relay, settings, Scope::new(vec![SHARD]).unwrap())
    } else {
        Conversation::open(receiver, relay, settings, None)
    };
    while conversation.send(OPENER, receiver) {}
    while conversation.deliver(ACCEPTER, relay, NOW_MS).unwrap() {}
    assert!(conversation.send(ACCEPTER, relay));
    assert_eq!(conversation.transcript.last(), Some(&(ACCEPTER, FrameKind::Part)));
    assert!(conversation.deliver(OPENER, receiver, NOW_MS).unwrap());
    assert_eq!(receiver.product_of("A").on_hand(), 5);
    assert!(receiver.product_of("B").is_empty());
    conversation
}

#[test]
fn trap_advancing_part_way() {
    advance_part_way(false);
}

/// The same in a pull, which is broken off in the same place (rule J2).
#[test]
fn trap_advancing_part_way_in_a_pull() {
    advance_part_way(true);
}

fn advance_part_way(is_pull: bool) {
    let Superseded { mut writer, mut relay, mut receiver, log, .. } = superseded();
    // The link breaks after the first chunk; then relay and the other writer die.
    drop(receive_first_chunk(&mut relay, &mut receiver, is_pull));
    assert!(receiver.shard(SHARD).version().is_empty(), "a shard is claimed with its last chunk only (rule R4)");
    assert_eq!(log.missing(&receiver), None);
    reconcile(&mut receiver, &mut writer, NOW_MS);
    assert_eq!(receiver.contents(), writer.contents());
    assert_eq!(receiver.product_of("B").price().unwrap().value, euros(100));
}

#[test]
fn trap_advancing_part_way_done_wrong_parts_replicas() {
    let Superseded { mut writer, mut relay, mut receiver, log, .. } = superseded();
    drop(receive_first_chunk(&mut relay, &mut receiver, false));
    // Wrong: the claim of the whole delta is joined with its first chunk.
    let claim = relay.summary(SHARD).version;
    receiver.shard_mut(SHARD).claim(&claim);
    assert!(log.missing(&receiver).is_some(), "the oracle sees it");
    reconcile(&mut receiver, &mut writer, NOW_MS);
    assert!(receiver.product_of("B").is_empty(), "the vectors say that nothing is missing");
    assert_ne!(receiver.contents(), writer.contents());
    check_the_net(&mut receiver, &mut writer);
}

/// What is left when a replica went wrong: vectors are equal, fingerprints are not, so the next session finds the shard
/// in doubt and repairs it (rule F4), and says that something was lost. Writes in the meantime would have put it off.
fn check_the_net(left: &mut Replica, right: &mut Replica) {
    reconcile(left, right, NOW_MS);
    assert_eq!(right.notes, [Effect::InDoubt { shard: SHARD }]);
    assert_eq!((left.slots_repaired, right.slots_repaired), (1, 0));
    assert_eq!(left.contents(), right.contents());
}

#[test]
fn a_whole_delta_is_claimed_with_its_last_chunk() {
    for is_pull in [false, true] {
        let Superseded { writer, other, mut relay, mut receiver, log } = superseded();
        let mut conversation = receive_first_chunk(&mut relay, &mut receiver, is_pull);
        conversation.run(&mut receiver, &mut relay, NOW_MS);
        assert_eq!(receiver.contents(), relay.contents());
        assert_eq!(log.missing(&receiver), None);
        let claimed: VersionVector = [(writer.id, 2), (other.id, 1)].into_iter().collect();
        assert_eq!(*receiver.shard(SHARD).version(), claimed);
    }
}

/// The writer commits a price for B; before it is pushed, the other's greater price arrives. Another witness holds the
/// writer's price alone. Then the writer and the other die.
fn superseded_before_the_push() -> (Replica, Replica, Replica, Log, stockmesh_proto::wire::Push) {
    let (mut writer, mut other, mut witness, receiver) = (replica(1), replica(2), replica(3), replica(4));
    let mut log = Log::default();
    let (evaluation, mut pushes) = writer.write(&[price("B", 100), receive("A", 5)], NOW_MS);
    log.note(writer.id, &evaluation);
    reconcile(&mut witness, &mut writer, NOW_MS);
    log.note(other.id, &other.write(&[price("B", 200)], NOW_MS + 1).0);
    reconcile(&mut writer, &mut other, NOW_MS);
    assert_eq!(writer.product_of("B").price().unwrap().value, euros(200));
    (writer, witness, receiver, log, pushes.remove(0))
}

#[test]
fn trap_pushing_from_current_state() {
    let (_, mut witness, mut receiver, log, push) = superseded_before_the_push();
    assert_eq!(receiver.receive(&push, DRIFT), Some((true, true)));
    assert_eq!(log.missing(&receiver), None, "the push holds the writes as they were committed (rule P1)");
    reconcile(&mut receiver, &mut witness, NOW_MS);
    assert_eq!(receiver.contents(), witness.contents());
    assert_eq!(receiver.product_of("B").price().unwrap().value, euros(100));
}

#[test]
fn trap_pushing_from_current_state_done_wrong_parts_replicas() {
    let (writer, mut witness, mut receiver, log, mut push) = superseded_before_the_push();
    // Wrong: the push is built from the slots that still carry the writer's dots.
    let state = writer.shard(SHARD).extract(&VersionVector::new(), std::ops::Bound::Unbounded, usize::MAX);
    let own = state.products.into_iter().map(|(sku, product)| {
        let product = product.filtered(&mut |slot| slot.dot().replica == writer.id);
        (sku, product)
    });
    let products = own.filter(|(_, product)| !product.is_empty()).collect();
    let (from, to) = (push.shards[0].from, push.shards[0].to);
    push.shards = vec![PushShard { shard: SHARD, from, to, products }];
    assert_eq!(receiver.receive(&push, DRIFT), Some((true, true)));
    assert!(log.missing(&receiver).is_some(), "the oracle sees it");
    // A write of the witness makes the vectors differ, else the shard would be in doubt at once.
    witness.write(&[receive("C", 1)], NOW_MS);
    reconcile(&mut receiver, &mut witness, NOW_MS);
    assert!(receiver.product_of("B").is_empty(), "the vectors say that nothing is missing");
    assert_ne!(receiver.contents(), witness.contents());
    check_the_net(&mut receiver, &mut witness);
}

/// A push that does not join on to what is claimed is merged, and claims nothing (rule M3).
#[test]
fn a_push_after_a_gap_claims_nothing_until_the_gap_is_pulled() {
    let (mut writer, mut receiver) = (replica(1), replica(2));
    let mut log = Log::default();
    let (first, _) = writer.write(&[price("B", 100)], NOW_MS);
    log.note(writer.id, &first);
    let (second, pushes) = writer.write(&[receive("A", 5)], NOW_MS);
    log.note(writer.id, &second);
    assert_eq!(receiver.receive(&pushes[0], DRIFT), Some((true, false)));
    assert_eq!(receiver.shard(SHARD).slots_unclaimed(), 1);
    assert!(receiver.shard(SHARD).version().is_empty());
    assert_eq!(receiver.product_of("A").on_hand(), 5);
    assert_eq!(log.missing(&receiver), None);
    reconcile(&mut receiver, &mut writer, NOW_MS);
    assert_eq!(receiver.contents(), writer.contents());
    assert_eq!(receiver.shard(SHARD).slots_unclaimed(), 0);
    // The same push once more changes nothing, and claims nothing twice.
    assert_eq!(receiver.receive(&pushes[0], DRIFT), Some((false, true)));
    assert_eq!(receiver.contents(), writer.contents());
}

/// Done wrong: without a barrier, a write that a crash takes back was seen elsewhere, and its number is used again.
#[test]
fn a_write_that_left_before_it_was_durable_is_noticed_as_an_own_future() {
    let (mut writer, mut receiver) = (replica(1), replica(2));
    writer.write(&[receive("A", 1)], NOW_MS);
    writer.sync();
    let (_, pushes) = writer.write(&[receive("A", 10)], NOW_MS);
    // Wrong: the push leaves before the sync.
    assert_eq!(receiver.receive(&pushes[0], DRIFT), Some((true, false)));
    writer.crash();
    assert_eq!(writer.product_of("A").on_hand(), 1);
    // The number is not claimed at the receiver, since a gap is before it: the slot itself shows the future.
    reconcile(&mut writer, &mut receiver, NOW_MS);
    assert!(writer.own_futures > 0);
}

/// Rule I2: a directory restored from an old copy is told so, with the peer's count, once per shard, on either side.
#[test]
fn a_restored_copy_is_told_of_its_own_future() {
    for opens in [true, false] {
        let (mut writer, mut peer) = (replica(1), replica(2));
        writer.write(&[receive("A", 1)], NOW_MS);
        writer.sync();
        let mut old = writer.clone();
        writer.write(&[receive("A", 1)], NOW_MS);
        reconcile(&mut writer, &mut peer, NOW_MS);
        assert_eq!(writer.notes, []);
        if opens {
            reconcile(&mut old, &mut peer, NOW_MS);
        } else {
            reconcile(&mut peer, &mut old, NOW_MS);
        }
        assert_eq!(old.notes.first(), Some(&Effect::OwnFuture { shard: SHARD, sequence: 2 }), "opens: {opens}");
        assert_eq!(peer.notes, []);
        assert_eq!(old.contents(), peer.contents(), "the old slots are kept and caught up with");
    }
}
