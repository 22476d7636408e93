//! Several nodes retire the same replica at once: one of them ends it (rule Q1).

use std::time::{Duration, Instant};

use stockmesh::{ReplicaId, RetireError, Retired, Store, WriteError};
use stockmesh_proto::hold::HoldId;
use stockmesh_proto::product::{InheritanceSlot, Product, Taken};
use stockmesh_proto::wire::{Fence, Fenced, Message, TakeHold};
use stockmesh_proto::{Location, Sku};

use super::asked::{asked, heir_and_member, member_of};
use super::peer::{push_of, shard_of, stock};
use super::retired::node;
use super::{MUG, SHOP, own_rights, rights_of, rights_to, wait_available};
use crate::support::raw::{Raw, read, write};
use crate::support::{Mesh, PATIENCE, full_mesh, wait_converged, wait_linked, wait_until};

const LONG: Duration = Duration::from_secs(20);

/// An id below those of nodes, which are drawn at random, and one above them.
fn low() -> ReplicaId {
    ReplicaId::from_random(1)
}

fn high() -> ReplicaId {
    ReplicaId::from_random(u64::MAX)
}

/// Whom a node names when a peer by hand asks it.
pub(super) async fn named(peer: &Raw, retired: ReplicaId, is_trial: bool, gave_way: &[ReplicaId]) -> Option<ReplicaId> {
    let fence = Fence { retired, heir: peer.replica, is_trial, gave_way: gave_way.to_vec() };
    let (_send, mut receive) = peer.session_bytes(&Message::Fence(fence).encode().unwrap(), true).await;
    match read(&mut receive).await {
        Some(Message::Fenced(Fenced { heir, is_alive: false })) => heir,
        answer => panic!("{answer:?}"),
    }
}

/// The next question to a peer by hand, and its answer: who is the heir.
pub(super) async fn answers(peer: &Raw, heir: ReplicaId) -> Fence {
    let (mut send, fence) = asked(peer).await;
    write(&mut send, &Message::Fenced(Fenced { heir: Some(heir), is_alive: false })).await;
    fence
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_that_retire_the_same_at_once_one_ends_it() {
    let mesh = Mesh::new();
    let stores = [node(&mesh, "a").await, node(&mesh, "b").await, node(&mesh, "c").await];
    full_mesh(&stores);
    wait_linked(&stores, 2).await;
    let raw = member_of(&mesh, &stores[0], None).await;
    let mut all = 0;
    let dead: Vec<ReplicaId> = (100..110).map(ReplicaId::from_random).collect();
    for dead in dead.iter().copied() {
        let _pushes = raw.push_bytes(&push_of(dead, MUG, 1, stock(dead, 1, 9)), false).await;
        all += 9;
        wait_available(&stores, all).await;
    }
    raw.connection.close(0_u32.into(), b"leaves it to them");
    let mut without = dead.clone();
    without.push(raw.replica);
    for (round, dead) in dead.into_iter().enumerate() {
        let retire = |store: &Store| store.retire(dead).without(without.clone()).deadline(PATIENCE).into_future();
        let [a, b, c] = &stores;
        let ended: [Result<Retired, RetireError>; 3] = tokio::join!(retire(a), retire(b), retire(c)).into();
        let heirs: Vec<&Retired> = ended.iter().flatten().collect();
        assert!(matches!(&heirs[..], [heir] if heir.units == 9), "round {round}: {ended:?}");
        let is_told = |error: &RetireError| matches!(error, RetireError::OtherHeir { .. });
        assert!(ended.iter().filter_map(|ended| ended.as_ref().err()).all(is_told), "round {round}: {ended:?}");
    }
    wait_converged(&stores).await;
    assert_eq!(stores.iter().map(own_rights).sum::<i128>(), all);
}

/// Of calls for the same at one node each ends well, and one of them takes over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_one_node_take_over_once() {
    let mesh = Mesh::new();
    let stores = [node(&mesh, "a").await, node(&mesh, "b").await, node(&mesh, "c").await];
    full_mesh(&stores);
    wait_linked(&stores, 2).await;
    let raw = member_of(&mesh, &stores[0], None).await;
    let dead = ReplicaId::from_random(100);
    let _pushes = raw.push_bytes(&push_of(dead, MUG, 1, stock(dead, 1, 9)), false).await;
    wait_available(&stores, 9).await;
    raw.connection.close(0_u32.into(), b"leaves it to them");
    let [heir, asker, _] = &stores;
    let here = || heir.retire(dead).without([raw.replica]).deadline(PATIENCE).into_future();
    let elsewhere = asker.retire(dead).heir(heir.replica_id()).without([raw.replica]).deadline(PATIENCE);
    let (one, two, three) = tokio::join!(here(), here(), elsewhere);
    assert_eq!(one.unwrap().units + two.unwrap().units + three.unwrap().units, 9);
    wait_converged(&stores).await;
    assert_eq!(stores.iter().map(own_rights).sum::<i128>(), 9);
}

/// Who has begun gives way to a lower id, to nobody else, and ends its own attempt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_heir_gives_way_to_a_lower_id_alone() {
    let mesh = Mesh::new();
    let (heir, dead, member) = heir_and_member(&mesh).await;
    let (lower, higher) = (member_of(&mesh, &heir, Some(low())).await, member_of(&mesh, &heir, Some(high())).await);
    let own = heir.replica_id();
    let retiring = tokio::spawn(heir.retire(dead).deadline(LONG).into_future());
    for peer in [&member, &lower, &higher] {
        assert!(answers(peer, own).await.is_trial);
    }
    for peer in [&member, &lower, &higher] {
        let (_, fence) = asked(peer).await;
        assert!(!fence.is_trial);
    }
    assert_eq!(named(&higher, dead, false, &[own]).await, Some(own));
    assert_eq!(named(&lower, dead, true, &[]).await, Some(low()));
    assert_eq!(named(&higher, dead, true, &[]).await, Some(own), "a trial changes nothing");
    assert!(!retiring.is_finished());
    let begun = Instant::now();
    assert_eq!(named(&lower, dead, false, &[]).await, Some(low()));
    let refused = retiring.await.unwrap().unwrap_err();
    assert!(matches!(refused, RetireError::OtherHeir { heir, .. } if heir == low()), "{refused}");
    // Begun anew, the one to whom the word was given is asked first.
    let retiring = tokio::spawn(heir.retire(dead).deadline(LONG).into_future());
    // Questions of the first attempt may wait here still.
    let fence = loop {
        let fence = answers(&lower, low()).await;
        if fence.is_trial {
            break fence;
        }
    };
    assert_eq!(fence.gave_way, []);
    let refused = retiring.await.unwrap().unwrap_err();
    assert!(matches!(refused, RetireError::OtherHeir { heir, .. } if heir == low()), "{refused}");
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
}

/// Who gave its word may have it back from whoever has it, which may know by now that it cannot come to the end; and nobody
/// else is asked before that one said so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_that_was_given_is_given_back() {
    let mesh = Mesh::new();
    let (heir, dead, member) = heir_and_member(&mesh).await;
    let rival = member_of(&mesh, &heir, Some(high())).await;
    let own = heir.replica_id();
    assert_eq!(named(&rival, dead, false, &[]).await, Some(high()));
    let retiring = tokio::spawn(heir.retire(dead).deadline(LONG).into_future());
    assert!(answers(&rival, own).await.is_trial);
    assert_eq!(named(&rival, dead, true, &[]).await, Some(high()), "for a trial alone nothing is taken back");
    for peer in [&member, &rival] {
        assert!(answers(peer, own).await.is_trial);
    }
    assert!(!answers(&rival, own).await.is_trial);
    for peer in [&member, &rival] {
        let (_, fence) = asked(peer).await;
        assert!(!fence.is_trial);
    }
    assert_eq!(named(&rival, dead, true, &[]).await, Some(own));
    assert!(!retiring.is_finished());
}

/// It is waited for no longer than the caller says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_is_asked_back_for_as_long_as_is_said() {
    let mesh = Mesh::new();
    let (heir, dead, _member) = heir_and_member(&mesh).await;
    let rival = member_of(&mesh, &heir, Some(high())).await;
    assert_eq!(named(&rival, dead, false, &[]).await, Some(high()));
    let begun = Instant::now();
    let retiring = heir.retire(dead).deadline(Duration::from_millis(300)).into_future();
    let ((_unanswered, fence), refused) = tokio::join!(asked(&rival), retiring);
    assert!(fence.is_trial);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, RetireError::OtherHeir { heir, .. } if heir == high()), "{refused}");
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
}

/// One that is not there is named, and not waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_word_is_not_asked_back_of_one_that_is_gone() {
    let mesh = Mesh::new();
    let (heir, dead, _member) = heir_and_member(&mesh).await;
    let rival = member_of(&mesh, &heir, Some(high())).await;
    assert_eq!(named(&rival, dead, false, &[]).await, Some(high()));
    rival.connection.close(0_u32.into(), b"dies");
    wait_until("the link ends", || crate::support::links_up(&heir) == 1).await;
    let begun = Instant::now();
    let refused = heir.retire(dead).deadline(LONG).await.unwrap_err();
    assert!(matches!(refused, RetireError::OtherHeir { heir, .. } if heir == high()), "{refused}");
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
}

/// A member stays with the heir that it noted until it is told that this one gave way, whatever the ids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_follows_an_heir_that_gave_way() {
    let mesh = Mesh::new();
    let (member, dead, first) = heir_and_member(&mesh).await;
    let (lower, higher) = (member_of(&mesh, &member, Some(low())).await, member_of(&mesh, &member, Some(high())).await);
    let name = Some(first.replica);
    assert_eq!(named(&first, dead, false, &[]).await, name);
    assert_eq!(named(&lower, dead, false, &[]).await, name);
    assert_eq!(named(&lower, dead, false, &[high(), member.replica_id()]).await, name);
    assert_eq!(named(&lower, dead, true, &[first.replica]).await, Some(low()));
    assert_eq!(named(&lower, dead, false, &[]).await, name, "a trial changes nothing");
    assert_eq!(named(&lower, dead, false, &[first.replica]).await, Some(low()));
    assert_eq!(named(&first, dead, false, &[]).await, Some(low()));
    assert_eq!(named(&higher, dead, false, &[first.replica, low()]).await, Some(high()));
}

/// Who is told of another heir asks that one, and then the member again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_heir_is_asked_before_those_who_name_it() {
    let mesh = Mesh::new();
    let (heir, dead, member) = heir_and_member(&mesh).await;
    let rival = member_of(&mesh, &heir, None).await;
    let own = heir.replica_id();
    let retiring = tokio::spawn(heir.retire(dead).deadline(LONG).into_future());
    assert_eq!(answers(&member, rival.replica).await.gave_way, []);
    assert_eq!(answers(&rival, own).await.gave_way, []);
    let again = answers(&member, own).await;
    assert_eq!((again.is_trial, again.gave_way), (true, vec![rival.replica]));
    // Their word for a trial is none for the fence itself.
    let fence = answers(&member, rival.replica).await;
    assert_eq!((fence.is_trial, fence.gave_way), (false, Vec::new()));
    assert_eq!(answers(&rival, rival.replica).await.gave_way, []);
    let refused = retiring.await.unwrap().unwrap_err();
    assert!(matches!(refused, RetireError::OtherHeir { heir, .. } if heir == rival.replica), "{refused}");
}

/// Somebody who is not asked, or a member that does not follow, ends the attempt at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_heir_that_cannot_be_asked_is_named() {
    let mesh = Mesh::new();
    let (heir, dead, member) = heir_and_member(&mesh).await;
    let rival = member_of(&mesh, &heir, None).await;
    let begun = Instant::now();
    let retiring = tokio::spawn(heir.retire(dead).deadline(LONG).into_future());
    answers(&rival, heir.replica_id()).await;
    answers(&member, high()).await;
    let refused = retiring.await.unwrap().unwrap_err();
    assert!(matches!(refused, RetireError::OtherHeir { heir, .. } if heir == high()), "{refused}");

    let retiring = tokio::spawn(heir.retire(dead).deadline(LONG).into_future());
    answers(&rival, heir.replica_id()).await;
    answers(&member, rival.replica).await;
    assert_eq!(answers(&member, rival.replica).await.gave_way, [rival.replica]);
    let refused = retiring.await.unwrap().unwrap_err();
    assert!(matches!(refused, RetireError::OtherHeir { heir, .. } if heir == rival.replica), "{refused}");
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
}

/// What an heir that died did not take over of another one is open, as far as this node knows. It must not take it over
/// before all others told what they know: they may have seen that heir do it, and sell (rules Q3, Q4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_taken_over_behind_an_heir_whose_fence_is_open() {
    let mesh = Mesh::new();
    let (store, first, member) = heir_and_member(&mesh).await;
    let heir = ReplicaId::from_random(8);
    // The heir took over elsewhere: its fence is known to be closed.
    let taken = Taken { added: 3, rights: 3, is_heir: true, ..Taken::default() };
    let location = Location::new(SHOP).unwrap();
    let slot = InheritanceSlot { location, from: first, to: heir, sequence: 1, taken };
    let mut pushes = push_of(first, "PEN", 1, stock(first, 1, 3));
    pushes.extend(push_of(heir, "PEN", 1, Product::of_inheritance(slot)));
    let _pushes = member.push_bytes(&pushes, false).await;
    wait_until("it is known", || store.version_vectors().iter().any(|vector| vector.contains_key(&heir))).await;
    assert_eq!((rights_of(&store, first), own_rights(&store)), (9, 0));

    let retiring = tokio::spawn(store.retire(heir).deadline(LONG).into_future());
    assert!(answers(&member, store.replica_id()).await.is_trial);
    let (mut send, _fence) = asked(&member).await;
    // Its own fence is noted by now. What turns up of the retired is looked at every two seconds.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((rights_of(&store, first), own_rights(&store)), (9, 0), "the member has not told what it knows");
    write(&mut send, &Message::Fenced(Fenced { heir: None, is_alive: false })).await;
    let refused = retiring.await.unwrap().unwrap_err();
    assert!(matches!(refused, RetireError::Unreachable { .. }), "{refused}");

    // Once it is left out on purpose, all of it is taken over.
    member.connection.close(0_u32.into(), b"leaves it to the others");
    wait_until("the link ends", || crate::support::links_up(&store) == 0).await;
    store.retire(heir).without([member.replica]).await.unwrap();
    wait_until("all is taken over", || own_rights(&store) == 9).await;
}

/// The last word is where fences are noted: what a takeover decided is refused there, unless this node is the last heir (rule
/// E7), which it stays whoever asks next (rule Q1).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_taken_over_by_who_is_not_the_last_heir() {
    let mesh = Mesh::new();
    let (store, first, other) = heir_and_member(&mesh).await;
    let refused = |result: Result<(), WriteError>| {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("is not the heir of"), "{error}");
    };
    // Of one that lives, and of one whose heir is another node, or may become it.
    refused(store.inherit(MUG, SHOP, first).await);
    assert_eq!(named(&other, first, false, &[]).await, Some(other.replica));
    refused(store.inherit(MUG, SHOP, first).await);
    assert_eq!((rights_of(&store, first), own_rights(&store)), (9, 0));

    // That one took over elsewhere and died, and this node is its heir.
    let taken = Taken { added: 3, rights: 3, is_heir: true, ..Taken::default() };
    let (location, to) = (Location::new(SHOP).unwrap(), other.replica);
    let slot = InheritanceSlot { location, from: first, to, sequence: 1, taken };
    let mut pushes = push_of(first, "PEN", 1, stock(first, 1, 3));
    pushes.extend(push_of(to, "PEN", 1, Product::of_inheritance(slot)));
    let _pushes = other.push_bytes(&pushes, false).await;
    wait_until("it is known", || store.version_vectors().iter().any(|vector| vector.contains_key(&to))).await;
    other.connection.close(0_u32.into(), b"dies");
    wait_until("the link ends", || crate::support::links_up(&store) == 0).await;
    assert_eq!(store.retire(to).await.unwrap().units, 3);
    wait_until("all is taken over", || own_rights(&store) == 9).await;
    // It agrees to no third one, and takes over what turns up from here on.
    let third = member_of(&mesh, &store, None).await;
    assert_eq!(named(&third, first, false, &[]).await, Some(store.replica_id()));
    let _pushes = third.push_bytes(&push_of(first, "CUP", 1, stock(first, 1, 5)), false).await;
    wait_until("it is taken over", || rights_to(&store, "CUP", store.replica_id()) == 5).await;
    store.inherit(MUG, SHOP, first).await.unwrap();
}

/// Rule Q1: what a retired heir was seen to have taken over while another one had this node's word counts once this node notes
/// itself: others may have noted that heir for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_seen_of_a_retired_heir_counts_once_an_heir_notes_itself() {
    let mesh = Mesh::new();
    let (store, dead, member) = heir_and_member(&mesh).await;
    let rival = member_of(&mesh, &store, Some(high())).await;
    let (own, retired) = (store.replica_id(), ReplicaId::from_random(8));
    let _pushes = member.push_bytes(&push_of(retired, "CUP", 1, stock(retired, 1, 1)), false).await;
    wait_until("it is known", || store.version_vectors().iter().any(|vector| vector.contains_key(&retired))).await;
    assert_eq!(named(&member, retired, false, &[]).await, Some(member.replica));
    assert_eq!(named(&rival, dead, false, &[]).await, Some(high()));
    let taken = Taken { added: 1, rights: 1, is_heir: true, ..Taken::default() };
    let (sku, location) = (Sku::new("PEN").unwrap(), Location::new(SHOP).unwrap());
    let slot = InheritanceSlot { location: location.clone(), from: dead, to: retired, sequence: 1, taken };
    let hold = HoldId { replica: member.replica, shard: shard_of("PEN"), sequence: 1 };
    let products = vec![(sku.clone(), Product::of_inheritance(slot))];
    let take = TakeHold { hold, sku, location, units: 1, expires_ms: u64::MAX, products };
    let (_send, mut receive) = member.session_bytes(&Message::Take(take).encode().unwrap(), true).await;
    assert!(matches!(read(&mut receive).await, Some(Message::Taken(_))));
    assert_eq!(named(&rival, dead, true, &[]).await, Some(high()), "by its word");

    let retiring = tokio::spawn(store.retire(dead).deadline(LONG).into_future());
    answers(&rival, own).await;
    for peer in [&member, &rival] {
        assert!(answers(peer, own).await.is_trial);
    }
    assert!(!answers(&rival, own).await.is_trial);
    // Who retires that one goes on for it.
    let refused = retiring.await.unwrap().unwrap_err();
    assert!(matches!(refused, RetireError::OtherHeir { heir, .. } if heir == member.replica), "{refused}");
}

/// Rule Q1: who took over behind another heir had closed the fence of that one; also if slots of both come at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_of_several_heirs_tell_who_goes_on_for_whom() {
    let (mesh, first, heir) = (Mesh::new(), ReplicaId::from_random(7), low());
    let store = node(&mesh, "a").await;
    let next = member_of(&mesh, &store, None).await;
    let mut pushes = push_of(first, MUG, 1, stock(first, 1, 9));
    pushes.extend(push_of(heir, MUG, 1, stock(heir, 1, 1)));
    let _pushes = next.push_bytes(&pushes, false).await;
    wait_available(std::slice::from_ref(&store), 10).await;
    assert_eq!(named(&next, heir, false, &[]).await, Some(next.replica));
    let took_over = |by: ReplicaId, sequence| {
        let taken = Taken { added: 1, rights: 1, is_heir: true, ..Taken::default() };
        let location = Location::new(SHOP).unwrap();
        Product::of_inheritance(InheritanceSlot { location, from: first, to: by, sequence, taken })
    };
    // At once, as in an exchange; here with a hold.
    let mut both = took_over(heir, 1);
    both.absorb(&took_over(next.replica, 1));
    let (sku, location) = (Sku::new("PEN").unwrap(), Location::new(SHOP).unwrap());
    let hold = HoldId { replica: next.replica, shard: shard_of("PEN"), sequence: 1 };
    let products = vec![(sku.clone(), both)];
    let take = TakeHold { hold, sku, location, units: 1, expires_ms: u64::MAX, products };
    let (_send, mut receive) = next.session_bytes(&Message::Take(take).encode().unwrap(), true).await;
    assert!(matches!(read(&mut receive).await, Some(Message::Taken(_))));
    next.connection.close(0_u32.into(), b"dies");
    wait_until("the link ends", || crate::support::links_up(&store) == 0).await;

    let third = member_of(&mesh, &store, None).await;
    assert_eq!(named(&third, next.replica, false, &[]).await, Some(third.replica));
    let fourth = member_of(&mesh, &store, None).await;
    for dead in [first, heir, next.replica] {
        assert_eq!(named(&fourth, dead, true, &[]).await, Some(third.replica));
    }
}
