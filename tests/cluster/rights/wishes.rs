//! Peers that ask a node to retire a replica as its heir, and how many such wishes it bears (rule Q5); and what other heirs
//! change of who is asked (rules Q1, Q3).

use std::time::Duration;

use quinn::RecvStream;
use stockmesh::{MemberState, ReplicaId, RetireError, Store};
use stockmesh_proto::wire::{Fenced, Message, Retire, Retired};

use super::asked::{asked, heir_and_member, member_of};
use super::heirs::{answers, named};
use super::peer::{push_of, stock};
use super::{MUG, wait_available};
use crate::support::raw::{Raw, read, write};
use crate::support::{Mesh, PATIENCE, dial, full_mesh, links_up, wait_linked, wait_until};

/// Longer than a test takes: the heir waits for members that do not answer.
const LONG_MS: u64 = 50_000;
/// How many wishes of one peer a node bears.
const WISHES_MAX: u64 = 4;
/// Long enough for some frames, whatever else the machine does.
const DEADLINE: Duration = Duration::from_secs(10);
/// As long as a refusal takes to come, and many times that.
const ANSWER_TIME: Duration = Duration::from_secs(1);

async fn wish(asker: &Raw, retired: ReplicaId) -> RecvStream {
    let wish = Retire { retired, without: Vec::new(), deadline_ms: LONG_MS, hold_ms: 1_000 };
    let (_send, receive) = asker.session_bytes(&Message::Retire(wish).encode().unwrap(), true).await;
    receive
}

/// Why a wish is refused at once, if it is.
async fn refused(answer: &mut RecvStream) -> Option<String> {
    refused_within(ANSWER_TIME, answer).await
}

async fn refused_within(time: Duration, answer: &mut RecvStream) -> Option<String> {
    match tokio::time::timeout(time, read(answer)).await.ok()? {
        Some(Message::Retired(Retired { refused: Some(refused), .. })) => Some(refused.reason),
        answer => panic!("{answer:?}"),
    }
}

/// One peer does not take the places of all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wishes_of_one_peer_are_bounded() {
    let mesh = Mesh::new();
    let (heir, dead, silent) = heir_and_member(&mesh).await;
    let (greedy, other) = (member_of(&mesh, &heir, None).await, member_of(&mesh, &heir, None).await);
    let mut waiting = Vec::new();
    for number in 0..WISHES_MAX {
        let next = ReplicaId::from_random(100 + number);
        let _pushes = silent.push_bytes(&push_of(next, MUG, 1, stock(next, 1, 1)), false).await;
        wait_available(std::slice::from_ref(&heir), 10 + i128::from(number)).await;
        waiting.push(wish(&greedy, next).await);
    }
    for answer in &mut waiting {
        assert_eq!(refused(answer).await, None);
    }
    let reason = refused_within(PATIENCE, &mut wish(&greedy, dead).await).await;
    assert_eq!(reason.as_deref(), Some("it has too many such requests"));
    assert_eq!(refused(&mut wish(&other, dead).await).await, None);
}

/// Who asks again over its next link, since the last one ended, does not use up its wishes by that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wishes_that_are_told_again_count_once() {
    let mesh = Mesh::new();
    let (heir, dead, _silent) = heir_and_member(&mesh).await;
    let mut asker = member_of(&mesh, &heir, None).await;
    for _ in 0..2 * WISHES_MAX {
        assert_eq!(refused(&mut wish(&asker, dead).await).await, None);
        asker.connection.close(0_u32.into(), b"ends");
        wait_until("the link ends", || links_up(&heir) == 1).await;
        asker = member_of(&mesh, &heir, Some(asker.replica)).await;
    }
    assert_eq!(refused(&mut wish(&asker, dead).await).await, None);
}

/// A member with rights, linked with the heir.
async fn member_with_rights(mesh: &Mesh, heir: &Store) -> Raw {
    let before = super::available(heir);
    let member = member_of(mesh, heir, None).await;
    let _pushes = member.push_bytes(&push_of(member.replica, MUG, 1, stock(member.replica, 1, 5)), false).await;
    wait_available(std::slice::from_ref(heir), before + 5).await;
    member
}

/// It dies, and another member has the heir fence it.
async fn die(dying: Raw, fenced_by: &Raw, heir: &Store) {
    let links = links_up(heir);
    dying.connection.close(0_u32.into(), b"dies");
    wait_until("the link ends", || links_up(heir) < links).await;
    assert_eq!(named(fenced_by, dying.replica, false, &[]).await, Some(fenced_by.replica));
}

/// It dies while it is waited for, and is retired by another heir: what it told others since they were asked it does not tell
/// the heir any more (rule Q3). If that cannot be done again, those are named that were never asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_are_asked_once_more_if_one_is_waited_for_no_more() {
    let mesh = Mesh::new();
    let (heir, dead, first) = heir_and_member(&mesh).await;
    let dying = member_with_rights(&mesh, &heir).await;
    let retiring = tokio::spawn(heir.retire(dead).deadline(DEADLINE).into_future());
    assert!(answers(&first, heir.replica_id()).await.is_trial);
    let _unanswered = asked(&dying).await;
    let late = member_of(&mesh, &heir, None).await;
    die(dying, &first, &heir).await;
    assert!(asked(&first).await.1.is_trial, "all are asked again");
    let error = retiring.await.unwrap().unwrap_err();
    assert!(matches!(&error, RetireError::Unreachable { members } if *members == [late.replica]), "{error:?}");
}

/// The same of one that was not there as they were asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_are_asked_once_more_if_one_came_and_went_meanwhile() {
    let mesh = Mesh::new();
    let (heir, dead, first) = heir_and_member(&mesh).await;
    let second = member_of(&mesh, &heir, None).await;
    let retiring = tokio::spawn(heir.retire(dead).deadline(PATIENCE).into_future());
    assert!(answers(&first, heir.replica_id()).await.is_trial);
    let (mut send, _fence) = asked(&second).await;
    let dying = member_with_rights(&mesh, &heir).await;
    // As long as it takes to notice that it is there.
    tokio::time::sleep(Duration::from_secs(1)).await;
    die(dying, &first, &heir).await;
    write(&mut send, &Message::Fenced(Fenced { heir: Some(heir.replica_id()), is_alive: false })).await;
    assert!(asked(&first).await.1.is_trial, "all are asked again");
    retiring.abort();
}

/// Another heir had it fenced, and did not come to its end: it goes on selling, and what it knows counts (rule Q1).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_lives_behind_an_open_fence_is_asked() {
    let mesh = Mesh::new();
    let open = |name: &'static str| mesh.builder(name).only_peers().grant_policy(stockmesh::NeedOnly).open();
    let stores = [open("heir").await.unwrap(), open("middle").await.unwrap()];
    full_mesh(&stores);
    let far = open("far").await.unwrap();
    dial(&far, &stores[1]);
    wait_linked(std::slice::from_ref(&far), 1).await;
    let heir = &stores[0];
    let replica = far.replica_id();
    let far_lives = || {
        let members = heir.members();
        members.iter().any(|member| member.replica == replica && member.state == MemberState::Alive)
    };
    wait_until("it is known to live", far_lives).await;
    let dead = ReplicaId::from_random(7);
    let other = member_of(&mesh, heir, None).await;
    let _pushes = other.push_bytes(&push_of(dead, MUG, 1, stock(dead, 1, 9)), false).await;
    wait_available(&stores, 9).await;
    assert_eq!(named(&other, replica, false, &[]).await, Some(other.replica));
    other.connection.close(0_u32.into(), b"does not come to its end");
    wait_until("the link ends", || links_up(heir) == 1).await;

    let retire = heir.retire(dead).without([other.replica]).deadline(Duration::from_secs(3));
    let error = tokio::time::timeout(PATIENCE, retire.into_future()).await.unwrap().unwrap_err();
    assert!(matches!(&error, RetireError::Unreachable { members } if *members == [replica]), "{error:?}");
    // Once it is down, nobody waits for it, as with others whom the members had fenced.
    drop(far);
    assert_eq!(heir.retire(dead).without([other.replica]).await.unwrap().units, 9);
}
