//! Finding nodes: names, sources of the embedder, and addresses that lead nowhere, elsewhere, or back to the node itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use stockmesh::discovery::{Candidate, Discovery, Dns, Found};
use stockmesh::{DialStatus, Store};
use tokio::net::UdpSocket;

use crate::support::proxy::{Proxy, Weather};
use crate::support::writers::Ledger;
use crate::support::{Mesh, address, dial, links_up, own_address, refused_with, wait_linked, wait_until};

/// Tells the same again and again, at once, and counts how often it is asked.
#[derive(Debug, Default)]
struct Fixed {
    candidates: Vec<SocketAddr>,
    fails: bool,
    asked: Arc<AtomicU64>,
}

impl Discovery for Fixed {
    fn name(&self) -> String {
        "fixed".into()
    }

    fn next(&mut self) -> Found<'_> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {
            let candidates = self.candidates.iter().copied().map(Candidate::from).collect();
            if self.fails { Err("the register is closed".into()) } else { Ok(candidates) }
        })
    }
}

fn fixed(candidates: &[SocketAddr]) -> Fixed {
    Fixed { candidates: candidates.to_vec(), ..Fixed::default() }
}

fn dial_of(store: &Store, address: SocketAddr) -> Option<DialStatus> {
    store.status().dials.into_iter().find(|dial| dial.address == address)
}

/// A name is resolved at once, and again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_leads_to_a_node_and_is_resolved_again() {
    let mesh = Mesh::new();
    let known = mesh.node("known").await;
    let names = Dns::new(format!("localhost:{}", address(&known).port())).unwrap().every(Duration::from_secs(1));
    let lost = Dns::new("nodes.invalid:7400").unwrap();
    let seeker = mesh.builder("seeker").discover(lost).discover(names).open().await.unwrap();
    wait_linked(&[seeker.clone(), known.clone()], 1).await;
    wait_until("the name is resolved again", || seeker.status().sources[1].told >= 3).await;
    wait_until("the other one has failed", || seeker.status().sources[0].last_error.is_some()).await;
    let sources = seeker.status().sources;
    assert!(sources[1].candidates > 0 && sources[1].last_error.is_none(), "{sources:?}");
    // The other one is shown with the reason, and tried on.
    assert!(sources[0].last_error.as_ref().unwrap().contains("nodes.invalid:7400 cannot be resolved"), "{sources:?}");
    let ledger = Ledger::default();
    ledger.write_at_all(&[seeker.clone(), known.clone()], 30_000, 20).await;
    ledger.assert_whole(&[seeker, known]).await;
}

/// Of several sources one good address is enough, whatever the others say.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_good_candidate_of_several_sources_is_enough() {
    let mesh = Mesh::new();
    let known = mesh.node("known").await;
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let bad = ["0.0.0.0:0", "[2001:db8::1]:7400"].map(|text| text.parse().unwrap());
    let sources = [
        fixed(&[silent.local_addr().unwrap(), silent.local_addr().unwrap()]),
        fixed(&bad),
        Fixed { fails: true, ..Fixed::default() },
        fixed(&[address(&known)]),
    ];
    let mut builder = mesh.builder("seeker");
    for source in sources {
        builder = builder.discover(source);
    }
    let seeker = builder.open().await.unwrap();
    wait_linked(&[seeker.clone(), known], 1).await;
    wait_until("each source has told something", || {
        let sources = seeker.status().sources;
        sources.iter().all(|source| source.told > 0 || source.last_error.is_some())
    })
    .await;
    let sources = seeker.status().sources;
    assert!(sources[1].last_error.as_ref().unwrap().contains("0.0.0.0:0 is no address"), "{sources:?}");
    assert_eq!(sources[2].last_error.as_deref(), Some("the register is closed"));
    wait_until("the silent one is named", || {
        dial_of(&seeker, silent.local_addr().unwrap())
            .is_some_and(|dial| dial.last_error.is_some_and(|error| error.contains("no answer")))
    })
    .await;
}

/// A source that never waits is not asked in a busy loop, and one that fails is not either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_are_asked_at_a_pace() {
    let mesh = Mesh::new();
    let (eager, failing) = (Fixed::default(), Fixed { fails: true, ..Fixed::default() });
    let asked = [Arc::clone(&eager.asked), Arc::clone(&failing.asked)];
    let store = mesh.builder("seeker").discover(eager).discover(failing).open().await.unwrap();
    wait_until("both are asked again", || asked.iter().all(|asked| asked.load(Ordering::SeqCst) >= 2)).await;
    let begun = std::time::Instant::now();
    let before = asked.each_ref().map(|asked| asked.load(Ordering::SeqCst));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let most = begun.elapsed().as_secs() + 2;
    for (asked, before) in asked.iter().zip(before) {
        let more = asked.load(Ordering::SeqCst) - before;
        assert!(more <= most, "{more} times in {:?}", begun.elapsed());
    }
    drop(store);
}

/// A node that is listed among the candidates itself dials itself once, and takes no harm: it is no copy of itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_dials_itself_notices_it_and_stops() {
    let mesh = Mesh::new();
    // It cannot know beforehand that this address leads to it.
    let builder = mesh.builder("node").listen("0.0.0.0:0".parse().unwrap());
    let store = builder.open().await.unwrap();
    let port = address(&store).port();
    let proxy = Proxy::start(SocketAddr::from(([127, 0, 0, 1], port)), Weather::default(), 1).await;
    let own = [proxy.address(), format!("127.0.0.1:{port}")];
    own.iter().for_each(|own| store.add_peer(own).unwrap());
    let leads_back = || {
        let peers = store.status().peers;
        let told = |error: &String| error.contains("leads back to this node itself");
        peers.iter().filter(|peer| peer.last_error.as_ref().is_some_and(told)).count()
    };
    wait_until("it notices for both addresses", || leads_back() == 2).await;
    let (passed, refusals) = (proxy.passed(), store.status().refusals.len());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(leads_back(), 2);
    assert_eq!(store.status().refusals.len(), refusals, "it dialled itself again");
    // What the closing connection still sends.
    assert!(proxy.passed() < passed + 50, "{} datagrams", proxy.passed() - passed);
    assert!(store.status().former_replicas.is_empty(), "it took itself for a copy");
    assert_eq!(links_up(&store), 0);

    // The same as a candidate; and where another node is behind the same name, that one is found.
    let other = mesh.node("other").await;
    let port = address(&other).port();
    let names = [SocketAddr::from(([127, 0, 0, 1], port)), address(&other)];
    let seeker =
        mesh.builder("seeker").listen("0.0.0.0:0".parse().unwrap()).discover(fixed(&names)).open().await.unwrap();
    dial(&seeker, &other);
    wait_linked(&[seeker, other], 1).await;
}

/// The same of candidates: each is dialled once, and shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_address_among_the_candidates_is_dialled_once() {
    let mesh = Mesh::new();
    let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let own = SocketAddr::from(([127, 0, 0, 1], port));
    let listen = SocketAddr::from(([0, 0, 0, 0], port));
    let store = mesh.builder("node").listen(listen).discover(fixed(&[own])).open().await.unwrap();
    let noticed =
        || dial_of(&store, own).is_some_and(|dial| dial.last_error.is_some_and(|error| error.contains("itself")));
    wait_until("it notices", noticed).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(dial_of(&store, own).unwrap().attempts, 1);
    assert!(store.status().former_replicas.is_empty());
}

/// A candidate of another cluster, one that refuses and one that is silent: tried for ever, with growing pauses, and shown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_candidates_are_dialled_at_growing_pauses() {
    let mesh = Mesh::new();
    let other = mesh.builder("other").cluster("other").open().await.unwrap();
    let stranger = Mesh::of_authority("strangers").node("stranger").await;
    let silent = UdpSocket::bind(own_address()).await.unwrap();
    let wrong = [address(&other), address(&stranger), silent.local_addr().unwrap()];
    let seeker = mesh.builder("seeker").discover(fixed(&wrong)).open().await.unwrap();
    let told = |address: SocketAddr, words: &str| {
        dial_of(&seeker, address).is_some_and(|dial| dial.last_error.is_some_and(|error| error.contains(words)))
    };
    wait_until("all are named with the reason", || {
        told(wrong[0], "is of cluster") && told(wrong[1], "authority") && told(wrong[2], "no answer")
    })
    .await;
    assert!(refused_with(&other, &["is of cluster"]));
    let begun = std::time::Instant::now();
    let before = wrong.map(|address| dial_of(&seeker, address).unwrap().attempts);
    wait_until("they are tried on", || {
        wrong.iter().zip(before).all(|(address, before)| dial_of(&seeker, *address).unwrap().attempts > before)
    })
    .await;
    for address in wrong {
        let dial = dial_of(&seeker, address).unwrap();
        // Pauses double from 0.1 s to 10 s, less up to a half: no more than 9 in the first half minute.
        assert!(dial.attempts <= 9 + begun.elapsed().as_secs() / 5, "{dial:?} after {:?}", begun.elapsed());
    }
    // One that becomes good is found.
    let port = wrong[2];
    drop(silent);
    let late = mesh.builder("late").listen(port).open().await.unwrap();
    wait_linked(&[seeker, late], 1).await;
}

/// Nodes of one local network find each other without any address; those of another cluster are not dialled.
#[cfg(feature = "mdns")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_a_local_network_find_each_other() {
    let mesh = Mesh::new();
    let other = mesh.builder("other").cluster("other").mdns(true).open().await.unwrap();
    let mut stores = Vec::new();
    for name in ["one", "two", "three"] {
        stores.push(mesh.builder(name).mdns(true).open().await.unwrap());
    }
    wait_linked(&stores, 2).await;
    let ledger = Ledger::default();
    ledger.write_at_all(&stores, 31_000, 10).await;
    ledger.assert_whole(&stores).await;
    assert!(other.status().refusals.is_empty() && other.status().dials.is_empty());
}

/// A new node at the address of one that left is found, also if that one is remembered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_new_is_met_where_another_left() {
    let mesh = Mesh::new();
    let socket = UdpSocket::bind(own_address()).await.unwrap();
    let place = socket.local_addr().unwrap();
    let seeker = mesh.builder("seeker").discover(fixed(&[place])).open().await.unwrap();
    seeker.learn_member(stockmesh::ReplicaId::from_random(9), place, "gone", stockmesh::MemberState::Left);
    wait_until("nobody is there", || dial_of(&seeker, place).is_some_and(|dial| dial.last_error.is_some())).await;
    drop(socket);
    let new = mesh.builder("new").listen(place).open().await.unwrap();
    wait_linked(&[seeker, new], 1).await;
}
