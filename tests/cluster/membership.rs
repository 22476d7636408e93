//! Who belongs to the cluster, and who of them lives, over real QUIC.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stockmesh::{Change, FaultyNetwork, Filter, Member, MemberState, ReplicaId, Store};
use stockmesh_proto::Location;
use stockmesh_proto::member::{Generation, Labels, ListedMember, MemberRecord, Software, Standing};
use stockmesh_proto::membership::{Effect, Membership, Timing};
use stockmesh_proto::wire::{Hello, MemberList, Message};

use crate::support::proxy::{Proxy, Weather};
use crate::support::raw::{Raw, hello, read, write};
use crate::support::{
    Mesh, PATIENCE, address, dial, full_mesh, metrics, own_address, refused_with, wait_linked, wait_until,
};

/// How `observer` sees a replica.
fn seen(observer: &Store, replica: ReplicaId) -> Option<Member> {
    observer.members().into_iter().find(|member| member.replica == replica)
}

fn state(observer: &Store, replica: ReplicaId) -> Option<MemberState> {
    seen(observer, replica).map(|member| member.state)
}

async fn wait_state(observers: &[&Store], replica: ReplicaId, wanted: MemberState) -> Duration {
    let reached = || observers.iter().all(|observer| state(observer, replica) == Some(wanted));
    wait_until(&format!("{replica} is seen as {wanted:?}"), reached).await
}

async fn wait_all_alive(stores: &[Store]) {
    for store in stores {
        let others: Vec<_> = stores.iter().filter(|other| other.replica_id() != store.replica_id()).collect();
        wait_state(&others, store.replica_id(), MemberState::Alive).await;
    }
}

/// Five nodes know each other with all that they say of themselves. One is cut off without a word: all others see it
/// down in time, and an application is told. When it is back it lives again, in a later generation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_falls_silent_is_noticed_by_all_and_comes_back() {
    metrics::record();
    let mesh = Mesh::new();
    // There is no way but by the proxies: as a member it could be dialled where it really is.
    let mut stores = Vec::new();
    for name in ["a", "b", "c", "d"] {
        stores.push(mesh.builder(name).only_peers().open().await.unwrap());
    }
    full_mesh(&stores);
    let mut proxies = Vec::new();
    let victim = mesh.builder("victim").only_peers().label("rack", "7").open().await.unwrap();
    for (number, store) in stores.iter().enumerate() {
        let proxy = Proxy::start(address(store), Weather::default(), number as u64).await;
        victim.add_peer(proxy.address()).unwrap();
        proxies.push(proxy);
    }
    let all = [stores.clone(), vec![victim.clone()]].concat();
    wait_all_alive(&all).await;
    let member = seen(&stores[0], victim.replica_id()).unwrap();
    assert_eq!(member.address, address(&victim));
    assert_eq!((member.location.as_str(), member.labels.get("rack").map(String::as_str)), ("victim", Some("7")));
    assert!(member.version.starts_with("stockmesh ") && !member.read_only, "{member:?}");

    let mut changes = stores[1].subscribe(Filter::all().events_only());
    let failures = metrics::counter("stockmesh_member_failures_total");
    proxies.iter().for_each(Proxy::go_dark);
    let others: Vec<&Store> = stores.iter().collect();
    let took = wait_state(&others, victim.replica_id(), MemberState::Down).await;
    println!("all noticed after {took:?}; the bound on an idle machine is {:?}", Timing::Lan.noticed_within());
    assert!(metrics::counter("stockmesh_member_failures_total") >= failures + 4);
    for store in &stores {
        let down = store.members().iter().filter(|member| member.state == MemberState::Down).count();
        assert_eq!(down, 1, "nobody else is taken for dead");
    }
    let told = async {
        loop {
            match changes.next().await {
                Some(Change::Member(told)) if told.replica == victim.replica_id() => return told.state,
                Some(_) => {}
                None => panic!("the changes ended"),
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, told).await.unwrap(), MemberState::Down);

    // It has been told that it is dead, or noticed it: a new generation.
    let mesh_again = victim.clone();
    stores.iter().for_each(|store| dial(&mesh_again, store));
    wait_state(&others, victim.replica_id(), MemberState::Alive).await;
    let again = seen(&stores[0], victim.replica_id()).unwrap();
    assert!(again.generation > member.generation, "{again:?}");
    wait_all_alive(&all).await;
}

/// Who leaves shows as left; who closes without a word of leaving shows as down, well before time runs out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_and_closing_are_told_apart() {
    let mesh = Mesh::new();
    let mut stores = mesh.nodes(4).await;
    full_mesh(&stores);
    wait_all_alive(&stores).await;
    let (leaving, closing) = (stores.pop().unwrap(), stores.pop().unwrap());
    leaving.leave_membership().await;
    wait_state(&[&stores[0], &stores[1], &closing], leaving.replica_id(), MemberState::Left).await;
    leaving.close().await.unwrap();
    closing.close().await.unwrap();
    let took = wait_state(&[&stores[0], &stores[1]], closing.replica_id(), MemberState::Down).await;
    println!("a closed node is down after {took:?}");
    assert_eq!(state(&stores[0], leaving.replica_id()), Some(MemberState::Left), "it stays so");
}

/// Rules N7, Q7: as soon as it has been told, whoever is linked knows who left, also if the datagrams that say so were lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_is_told_also_if_its_datagrams_are_lost() {
    let (mesh, network) = (Mesh::new(), FaultyNetwork::default());
    let mut stores = mesh.nodes(2).await;
    stores.push(mesh.builder("leaves").network(&network).open().await.unwrap());
    full_mesh(&stores);
    wait_linked(&stores, 2).await;
    wait_all_alive(&stores).await;
    let leaving = stores.pop().unwrap();
    network.go_dark(true);
    let begun = Instant::now();
    tokio::join!(leaving.leave_membership(), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        network.go_dark(false);
    });
    for store in &stores {
        assert_eq!(state(store, leaving.replica_id()), Some(MemberState::Left), "{:?}", begun.elapsed());
    }
}

/// A node that restarts is the same member in a later generation, and knows at once whom it knew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_lives_again_in_a_later_generation() {
    let mesh = Mesh::new();
    let directory = tempfile::tempdir().unwrap();
    let open = async || mesh.builder("restarts").data_dir(directory.path()).open().await.unwrap();
    let stores = mesh.nodes(2).await;
    full_mesh(&stores);
    let restarting = open().await;
    stores.iter().for_each(|store| dial(&restarting, store));
    let replica = restarting.replica_id();
    wait_state(&[&stores[0], &stores[1]], replica, MemberState::Alive).await;
    wait_all_alive(&[stores.clone(), vec![restarting.clone()]].concat()).await;
    let first = seen(&stores[0], replica).unwrap().generation;
    restarting.close().await.unwrap();
    drop(restarting);
    wait_state(&[&stores[0], &stores[1]], replica, MemberState::Down).await;

    // Else it might be linked with them before this has looked.
    stores.iter().for_each(Store::go_offline);
    let restarted = open().await;
    for store in &stores {
        let kept = seen(&restarted, store.replica_id()).expect("it is known from disk");
        assert_eq!((kept.state, kept.address), (MemberState::Down, address(store)));
    }
    stores.iter().for_each(Store::go_online);
    dial(&restarted, &stores[0]);
    wait_state(&[&stores[0], &stores[1]], replica, MemberState::Alive).await;
    let second = seen(&stores[0], replica).unwrap().generation;
    assert!(second > first, "{first} {second}");
    wait_state(&[&restarted], stores[0].replica_id(), MemberState::Alive).await;
    wait_state(&[&restarted], stores[1].replica_id(), MemberState::Alive).await;
}

/// A node that lost its data is another member at the same address: the former is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_replica_at_the_same_address_replaces_the_former() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(2).await;
    full_mesh(&stores);
    let former = mesh.builder("reborn").listen(own_address()).open().await.unwrap();
    stores.iter().for_each(|store| dial(&former, store));
    let (replica, port) = (former.replica_id(), address(&former));
    wait_state(&[&stores[0], &stores[1]], replica, MemberState::Alive).await;
    former.close().await.unwrap();
    drop(former);
    wait_until("the port is free", || UdpSocket::bind(port).is_ok()).await;
    let reborn = mesh.builder("reborn").listen(port).open().await.unwrap();
    stores.iter().for_each(|store| dial(&reborn, store));
    wait_state(&[&stores[0], &stores[1]], reborn.replica_id(), MemberState::Alive).await;
    let is_gone = || stores.iter().all(|store| seen(store, replica).is_none());
    wait_until("the former is forgotten", is_gone).await;
}

/// A node that goes offline on purpose counts as down for others, takes nobody for dead itself, and refutes its death
/// when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_offline_refutes_its_death() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(3).await;
    full_mesh(&stores);
    wait_all_alive(&stores).await;
    let away = &stores[2];
    let first = seen(&stores[0], away.replica_id()).unwrap().generation;
    away.go_offline();
    wait_state(&[&stores[0], &stores[1]], away.replica_id(), MemberState::Down).await;
    assert!(away.members().iter().all(|member| member.state == MemberState::Alive), "{:?}", away.members());
    away.go_online();
    wait_state(&[&stores[0], &stores[1]], away.replica_id(), MemberState::Alive).await;
    assert!(seen(&stores[0], away.replica_id()).unwrap().generation > first);
    wait_all_alive(&stores).await;
}

/// A node that listens on all interfaces learns from its peers where it is reached.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_learns_its_address_from_peers_and_says_what_it_is_told_to() {
    let mesh = Mesh::new();
    let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let dialler = mesh.builder("dialler").listen(any).open().await.unwrap();
    let said: SocketAddr = "198.51.100.7:7400".parse().unwrap();
    let fixed = mesh.builder("fixed").listen(any).advertise(said).open().await.unwrap();
    let local = |store: &Store| SocketAddr::from(([127, 0, 0, 1], address(store).port()));
    dialler.add_peer(local(&fixed).to_string()).unwrap();
    let sees = |observer: &Store, other: &Store| seen(observer, other.replica_id()).map(|member| member.address);
    wait_until("each knows where the other is", || {
        sees(&fixed, &dialler) == Some(local(&dialler)) && sees(&dialler, &fixed) == Some(said)
    })
    .await;
    for bad in [any, "192.0.2.1:0".parse().unwrap()] {
        let error = mesh.builder("bad").advertise(bad).open().await.unwrap_err();
        assert!(error.to_string().contains("advertise"), "{error}");
    }
    let error = mesh.builder("bad").label("k", "v".repeat(33)).open().await.unwrap_err();
    assert!(error.to_string().contains("32 bytes"), "{error}");
}

fn record_of(replica: ReplicaId, generation: u64) -> MemberRecord {
    MemberRecord {
        replica,
        generation: Generation::new(generation).unwrap(),
        address: "192.0.2.66:6666".parse().unwrap(),
        location: Location::new("hostile").unwrap(),
        labels: Labels::default(),
        software: Software::new("raw").unwrap(),
        read_only: false,
        left: false,
    }
}

/// A linked peer that takes part in membership, as far as the test lets it.
async fn linked_liar(mesh: &Mesh, to: &Store) -> Raw {
    let raw = Raw::silent(mesh, address(to)).await;
    let (mut send, mut receive) = raw.connection.open_bi().await.unwrap();
    write(&mut send, &Message::Hello(Hello { features_known: 4, ..hello(raw.replica) })).await;
    let Some(Message::Hello(answer)) = read(&mut receive).await else { panic!("the hello was refused") };
    assert_eq!(answer.observed.map(|seen| seen.to_string()), Some(raw.address()));
    raw
}

/// What a member with this record says at first to a peer.
fn first_words(record: MemberRecord, peer: ReplicaId) -> Vec<u8> {
    let generation = record.generation;
    let mut member = Membership::new(record, Timing::Lan, 1, Duration::ZERO);
    member.reserved(generation, Duration::ZERO);
    let effects = member.linked(peer, Duration::ZERO);
    let sent = effects.into_iter().find_map(|effect| match effect {
        Effect::Send { bytes, .. } => Some(bytes),
        _ => None,
    });
    sent.unwrap()
}

/// Peers with good certificates that lie, send garbage, or flood: each loses its link and is named; two honest nodes
/// know each other all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn liars_garbage_and_floods_cost_their_own_link_alone() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(2).await;
    full_mesh(&stores);
    wait_all_alive(&stores).await;
    let (victim, healthy) = (&stores[0], &stores[1]);

    // An honest word first: it is taken.
    let honest = linked_liar(&mesh, victim).await;
    let word = first_words(record_of(honest.replica, 7), victim.replica_id());
    honest.connection.send_datagram(word.into()).unwrap();
    wait_state(&[victim, healthy], honest.replica, MemberState::Alive).await;

    let impostor = linked_liar(&mesh, victim).await;
    let stolen = first_words(record_of(healthy.replica_id(), 1 << 40), victim.replica_id());
    impostor.connection.send_datagram(stolen.into()).unwrap();
    let reason = impostor.closed().await;
    assert!(reason.contains(&format!("claims to be from replica {}", healthy.replica_id())), "{reason}");
    wait_until("the impostor is named", || {
        refused_with(victim, &["claims to be from replica", &impostor.replica.to_string()])
    })
    .await;

    let garbage = linked_liar(&mesh, victim).await;
    garbage.connection.send_datagram(vec![0xff; 100].into()).unwrap();
    assert!(garbage.closed().await.contains("cannot be read"));
    wait_until("the garbage is named", || refused_with(victim, &["datagram of membership cannot be read"])).await;

    let flood = linked_liar(&mesh, victim).await;
    let word = first_words(record_of(flood.replica, 7), victim.replica_id());
    let flooding = async {
        while flood.connection.send_datagram_wait(word.clone().into()).await.is_ok() {}
        flood.closed().await
    };
    let reason = tokio::time::timeout(PATIENCE, flooding).await.expect("the flood ends");
    assert!(reason.contains("more datagrams of membership than allowed"), "{reason}");

    let question = linked_liar(&mesh, victim).await;
    let listed = ListedMember {
        record: Arc::new(record_of(question.replica, 1)),
        incarnation: 0,
        standing: Standing::Alive,
        down_for_s: 0,
    };
    let page = MemberList { digest: 1, last: true, members: vec![listed] };
    let frame = Message::Members(page).encode().unwrap();
    let _stream = question.session_bytes(&frame, true).await;
    assert!(question.closed().await.contains("a question for members holds members"));

    let members = [seen(victim, healthy.replica_id()).unwrap(), seen(healthy, victim.replica_id()).unwrap()];
    assert_eq!(members[0].address, address(healthy));
    // A slow machine may have one of them be suspected for a while.
    let is_alive = |member: &Member| matches!(member.state, MemberState::Alive | MemberState::Suspect);
    assert!(members.iter().all(is_alive), "{members:?}");
    // The flood's link was closed for a rule that it broke, and it is dead for all it says: not so the honest one.
    assert!(honest.connection.close_reason().is_none());
}

/// A linked member's own word counts more than what others tell of it, also in lists: a lie about it makes it take a
/// generation beyond the one that was made up, with its true address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lie_in_a_list_does_not_displace_a_linked_member() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(2).await;
    full_mesh(&stores);
    wait_linked(&stores, 1).await;
    wait_all_alive(&stores).await;
    let (victim, healthy) = (&stores[0], &stores[1]);
    let before = seen(victim, healthy.replica_id()).unwrap();
    let liar = linked_liar(&mesh, victim).await;
    let made_up = before.generation + 1_000;
    let is_beyond = || {
        let member = seen(victim, healthy.replica_id()).unwrap();
        assert_eq!(member.address, address(healthy), "the lie is never believed");
        member.generation > made_up && member.state == MemberState::Alive
    };
    // One that comes right after another question to the victim of the lie changes nothing at all.
    for _ in 0..40 {
        tell_list(&liar, record_of(healthy.replica_id(), made_up)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if is_beyond() {
            break;
        }
    }
    wait_until("the other goes beyond the lie", is_beyond).await;
}

/// Asks for the list of members as a node does, and then tells this record.
async fn tell_list(liar: &Raw, record: MemberRecord) {
    let (mut send, mut receive) = liar.connection.open_bi().await.unwrap();
    write(&mut send, &Message::Members(MemberList { digest: 1, last: true, members: vec![] })).await;
    let Some(Message::Members(list)) = read(&mut receive).await else { panic!("no list") };
    assert!(list.last && list.members.len() >= 2, "the node itself and the other: {list:?}");
    let record = Arc::new(record);
    let lie = ListedMember { record, incarnation: 0, standing: Standing::Alive, down_for_s: 0 };
    write(&mut send, &Message::Members(MemberList { digest: 1, last: true, members: vec![lie] })).await;
    send.finish().unwrap();
}

/// Asks for the list of members, and returns the digest of the answer and how many members it held.
async fn ask_list(raw: &Raw, digest: u64) -> (u64, usize) {
    let (mut send, mut receive) = raw.connection.open_bi().await.unwrap();
    write(&mut send, &Message::Members(MemberList { digest, last: true, members: vec![] })).await;
    send.finish().unwrap();
    let Some(Message::Members(list)) = read(&mut receive).await else { panic!("no list") };
    (list.digest, list.members.len())
}

/// A question costs the node work even if the answer is that both know the same: so it counts too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_for_the_list_count_whatever_the_answer() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(1).await;
    let raw = linked_liar(&mesh, &stores[0]).await;
    for _ in 0..10 {
        // So slowly that the questions that differ would all be answered.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (digest, count) = ask_list(&raw, 1).await;
        if count == 0 {
            continue;
        }
        for _ in 0..20 {
            ask_list(&raw, digest).await;
        }
        if ask_list(&raw, 1).await.1 == 0 {
            return;
        }
    }
    panic!("the node answers any number of questions");
}
