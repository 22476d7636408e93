//! Who is asked when a replica is retired, while members come, go and tell what they know (rule Q1).

use std::time::{Duration, Instant};

use quinn::SendStream;
use stockmesh::{MemberState, NeedOnly, ReplicaId, RetireError, Store};
use stockmesh_proto::wire::{Fence, Fenced, Hello, Message, Retire, Retired};

use super::peer::{push_of, stock};
use super::{MUG, own_rights, rights_of, wait_available};
use crate::support::raw::{Raw, hello, read, write};
use crate::support::{Mesh, PATIENCE, links_up, wait_until};

const LONG: Duration = Duration::from_secs(20);

/// A node, a dead replica of which it knows 9 units, and a member that takes part in retiring it, by hand.
pub(super) async fn heir_and_member(mesh: &Mesh) -> (Store, ReplicaId, Raw) {
    let heir = mesh.builder("heir").grant_policy(NeedOnly).open().await.unwrap();
    let dead = ReplicaId::from_random(7);
    let member = member_of(mesh, &heir, None).await;
    let _pushes = member.push_bytes(&push_of(dead, MUG, 1, stock(dead, 1, 9)), false).await;
    wait_available(std::slice::from_ref(&heir), 9).await;
    (heir, dead, member)
}

/// A member that takes part in retiring replicas, under this id.
pub(super) async fn member_of(mesh: &Mesh, heir: &Store, replica: Option<ReplicaId>) -> Raw {
    let mut member = Raw::silent(mesh, crate::support::address(heir)).await;
    member.replica = replica.unwrap_or(member.replica);
    let (mut send, mut receive) = member.connection.open_bi().await.unwrap();
    write(&mut send, &Message::Hello(Hello { features_known: 17, ..hello(member.replica) })).await;
    assert!(matches!(read(&mut receive).await, Some(Message::Hello(_))));
    member.node = Some(heir.replica_id());
    member
}

/// The next question of the heir. Reconciliations are left without an answer meanwhile.
pub(super) async fn asked(member: &Raw) -> (SendStream, Fence) {
    loop {
        let accepted = tokio::time::timeout(PATIENCE, member.connection.accept_bi()).await;
        let (send, mut receive) = accepted.expect("the heir asks").unwrap();
        if let Some(Message::Fence(fence)) = read(&mut receive).await {
            return (send, fence);
        }
    }
}

/// Frame by frame as a member sees it: first it is only asked, then it fences, then the heir pulls what it knows, and takes
/// nothing over before all of that is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_is_asked_then_fences_then_tells_what_it_knows() {
    let mesh = Mesh::new();
    let (heir, dead, member) = heir_and_member(&mesh).await;
    let retiring = tokio::spawn(heir.retire(dead).deadline(Duration::from_secs(5)).into_future());
    let own = heir.replica_id();
    for is_trial in [true, false] {
        let (mut send, fence) = asked(&member).await;
        assert_eq!(fence, Fence { retired: dead, heir: own, is_trial, gave_way: Vec::new() });
        write(&mut send, &Message::Fenced(Fenced { heir: Some(own), is_alive: false })).await;
        assert_eq!(rights_of(&heir, dead), 9, "nothing is taken over yet");
    }
    // What the member knows cannot be pulled, so all stays as it is.
    let refused = retiring.await.unwrap().unwrap_err();
    assert!(matches!(&refused, RetireError::Unreachable { members } if *members == [member.replica]), "{refused}");
    assert_eq!((rights_of(&heir, dead), own_rights(&heir)), (9, 0));
}

/// Rights that turn up while members are asked are somebody's who may come back too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_turns_out_to_have_rights_meanwhile_is_asked_too() {
    let mesh = Mesh::new();
    let (heir, dead, member) = heir_and_member(&mesh).await;
    let retiring = tokio::spawn(heir.retire(dead).deadline(Duration::from_secs(3)).into_future());
    let (mut send, fence) = asked(&member).await;
    assert!(fence.is_trial);
    let away = ReplicaId::from_random(8);
    let _pushes = member.push_bytes(&push_of(away, MUG, 1, stock(away, 1, 5)), false).await;
    wait_available(std::slice::from_ref(&heir), 14).await;
    write(&mut send, &Message::Fenced(Fenced { heir: Some(fence.heir), is_alive: false })).await;
    let refused = retiring.await.unwrap().unwrap_err();
    assert!(matches!(&refused, RetireError::Unreachable { members } if *members == [away]), "{refused}");
    assert_eq!(own_rights(&heir), 0);
}

/// A member that was left out on purpose is asked while it is linked, and not waited for once it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_left_out_and_goes_is_not_waited_for() {
    let mesh = Mesh::new();
    let (heir, dead, member) = heir_and_member(&mesh).await;
    let begun = Instant::now();
    let retiring = tokio::spawn(heir.retire(dead).without([member.replica]).deadline(LONG).into_future());
    let _unanswered = asked(&member).await;
    member.connection.close(0_u32.into(), b"goes");
    assert_eq!(retiring.await.unwrap().unwrap().units, 9);
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
}

/// A member that went and comes back, while others are asked still, is asked again: it goes on taking writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_before_all_are_asked_is_asked_again() {
    let mesh = Mesh::new();
    let (heir, dead, slow) = heir_and_member(&mesh).await;
    let member = member_of(&mesh, &heir, None).await;
    let _retiring = tokio::spawn(heir.retire(dead).without([member.replica]).deadline(LONG).into_future());
    let ((mut send, fence), _unanswered) = (asked(&slow).await, asked(&member).await);
    member.connection.close(0_u32.into(), b"goes");
    wait_until("the link ends", || links_up(&heir) == 1).await;
    // As long as it takes to notice that nobody waits for it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let member = member_of(&mesh, &heir, Some(member.replica)).await;
    write(&mut send, &Message::Fenced(Fenced { heir: Some(fence.heir), is_alive: false })).await;
    let (_, fence) = asked(&member).await;
    assert!(fence.is_trial, "nobody is fenced before it was asked");
}

/// An answer that was cut off is no refusal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ends_without_an_answer_is_asked_again() {
    let mesh = Mesh::new();
    let (heir, dead, member) = heir_and_member(&mesh).await;
    let retiring = tokio::spawn(heir.retire(dead).deadline(LONG).into_future());
    let (mut send, first) = asked(&member).await;
    send.finish().unwrap();
    let (mut send, again) = asked(&member).await;
    assert_eq!(first, again);
    // A refusal is one, and nothing is gained by asking again.
    write(&mut send, &Message::Fenced(Fenced { heir: None, is_alive: false })).await;
    let refused = retiring.await.unwrap().unwrap_err();
    assert!(matches!(&refused, RetireError::Unreachable { members } if *members == [member.replica]), "{refused}");
}

/// The next wish of a node that this member retire a replica, as the heir.
async fn wished(heir: &Raw) -> (SendStream, Retire) {
    let wish = async {
        loop {
            let (send, mut receive) = heir.connection.accept_bi().await.unwrap();
            if let Some(Message::Retire(wanted)) = read(&mut receive).await {
                return (send, wanted);
            }
        }
    };
    tokio::time::timeout(PATIENCE, wish).await.expect("the node asks")
}

/// Has the node expect it back.
fn is_member(store: &Store, member: &Raw) {
    store.learn_member(member.replica, member.address().parse().unwrap(), "by hand", MemberState::Alive);
}

/// Its links come and go in a cluster of few, and each time it goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_heir_elsewhere_is_asked_again_over_its_next_link() {
    let mesh = Mesh::new();
    let (store, dead, heir) = heir_and_member(&mesh).await;
    let retiring = tokio::spawn(store.retire(dead).heir(heir.replica).deadline(LONG).into_future());
    let (_unanswered, first) = wished(&heir).await;
    assert_eq!(first.retired, dead);
    is_member(&store, &heir);
    heir.connection.close(0_u32.into(), b"ends");
    let mut again = Raw::silent_as(&mesh, crate::support::address(&store), &heir.issued).await;
    again.replica = heir.replica;
    let hello = Hello { features_known: 17, ..hello(again.replica) };
    assert!(matches!(again.greet(hello).await, Some(Message::Hello(_))));
    let (mut send, second) = wished(&again).await;
    assert!(second.deadline_ms < first.deadline_ms, "less time is left: {second:?}");
    assert_eq!(second, Retire { deadline_ms: second.deadline_ms, ..first });
    write(&mut send, &Message::Retired(Retired { places: 1, units: 9, held: 0, refused: None })).await;
    let retired = retiring.await.unwrap().unwrap();
    assert_eq!((retired.heir, retired.units), (heir.replica, 9));
}

/// An heir that never comes back is waited for no longer than said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_heir_elsewhere_that_goes_is_named_at_the_deadline() {
    let mesh = Mesh::new();
    let (store, dead, heir) = heir_and_member(&mesh).await;
    let (begun, deadline) = (Instant::now(), Duration::from_secs(2));
    let retiring = tokio::spawn(store.retire(dead).heir(heir.replica).deadline(deadline).into_future());
    let _unanswered = wished(&heir).await;
    is_member(&store, &heir);
    heir.connection.close(0_u32.into(), b"ends");
    let refused = tokio::time::timeout(LONG, retiring).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(&refused, RetireError::Heir { heir: named, .. } if *named == heir.replica), "{refused}");
    assert!(begun.elapsed() >= deadline, "{:?}", begun.elapsed());
}

/// Each would end links that the other needs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_calls_for_one_replica_at_one_node_the_second_waits() {
    let mesh = Mesh::new();
    let (heir, dead, member) = heir_and_member(&mesh).await;
    let retire = || tokio::spawn(heir.retire(dead).deadline(LONG).into_future());
    let first = retire();
    let (mut send, _fence) = asked(&member).await;
    let second = retire();
    let early = tokio::time::timeout(Duration::from_secs(1), asked(&member)).await;
    assert!(early.is_err(), "the second call does not wait: {early:?}");
    let refusal = Message::Fenced(Fenced { heir: None, is_alive: false });
    write(&mut send, &refusal).await;
    assert!(matches!(first.await.unwrap(), Err(RetireError::Unreachable { .. })));
    // The first did not do it, so the second tries.
    let (mut send, fence) = asked(&member).await;
    assert!(fence.is_trial && !second.is_finished());
    let waits = heir.retire(dead).deadline(Duration::from_millis(300)).await;
    assert!(matches!(&waits, Err(RetireError::Heir { heir: own, .. }) if *own == heir.replica_id()), "{waits:?}");
    write(&mut send, &refusal).await;
    assert!(matches!(second.await.unwrap(), Err(RetireError::Unreachable { .. })));
}

/// Who takes a new id meanwhile asks nobody under the old one any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_heir_that_takes_a_new_id_says_so_at_once() {
    let mesh = Mesh::new();
    let (heir, dead, member) = heir_and_member(&mesh).await;
    let (own, begun) = (heir.replica_id(), Instant::now());
    let retiring = tokio::spawn(heir.retire(dead).deadline(LONG).into_future());
    let _unanswered = asked(&member).await;
    // Another node is linked under its id, it is told (rule H3).
    member.connection.close(6_u32.into(), b"taken");
    let refused = retiring.await.unwrap().unwrap_err();
    assert!(matches!(&refused, RetireError::Heir { heir, .. } if *heir == own), "{refused}");
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    assert_ne!(heir.replica_id(), own);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retiring_ends_with_the_store() {
    let mesh = Mesh::new();
    let (heir, dead, member) = heir_and_member(&mesh).await;
    // Else it would be asked for as long as it is linked.
    is_member(&heir, &member);
    let begun = Instant::now();
    let retiring = tokio::spawn(heir.retire(dead).deadline(LONG).into_future());
    let _unanswered = asked(&member).await;
    heir.close().await.unwrap();
    let refused = retiring.await.unwrap().unwrap_err();
    assert!(matches!(refused, RetireError::Stopped), "{refused}");
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
}
