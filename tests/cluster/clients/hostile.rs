//! Clients with a good certificate that break the rules, or ask for too much: it costs them their connection, and the
//! node's peers nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, ConnectionError, Endpoint};
use stockmesh::Filter;
use stockmesh::Store;
use stockmesh::certificates::Issued;
use stockmesh::clients::{ClientError, FailureCode};
use stockmesh_proto::wire::client::{AllHolds, Answer, Request, StatusWanted};
use tokio::task::JoinSet;

use super::{connect, node_and_client, soon};
use crate::support::raw::{self, Grants, frame};
use crate::support::{
    Mesh, PATIENCE, address, dial, metrics, on_hand, refused_with, wait_linked, wait_until, wait_within,
};

const ALPN: &[u8] = b"stockmesh-client/1";

/// A client by hand.
struct Hand {
    _endpoint: Endpoint,
    connection: Connection,
}

impl Hand {
    async fn new(mesh: &Mesh, store: &Store) -> Self {
        Self::with(mesh, store, &mesh.issue("hand")).await
    }

    async fn with(mesh: &Mesh, store: &Store, issued: &Issued) -> Self {
        let connected = raw::connect(mesh, address(store), Some(issued), ALPN, Grants::default()).await;
        let (endpoint, connection) = connected.unwrap();
        Self { _endpoint: endpoint, connection }
    }

    /// Asks something now and then until this is dropped, so that the connection is never idle for long.
    fn kept_busy(self) -> JoinSet<()> {
        let mut asking = JoinSet::new();
        asking.spawn(async move {
            let status = Request::Status(StatusWanted {}).encode().unwrap();
            loop {
                let _ = self.ask(&status, true).await;
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        });
        asking
    }

    /// Sends bytes on a stream of their own, and reads what is answered, if anything.
    async fn ask(&self, bytes: &[u8], finish: bool) -> Option<Answer> {
        let (mut send, mut receive) = self.connection.open_bi().await.ok()?;
        let _ = send.write_all(bytes).await;
        if finish {
            let _ = send.finish();
        }
        let mut prefix = [0; 4];
        receive.read_exact(&mut prefix).await.ok()?;
        let mut body = vec![0; u32::from_be_bytes(prefix) as usize];
        receive.read_exact(&mut body).await.ok()?;
        Some(Answer::decode(&body).unwrap())
    }

    async fn closed(&self) -> String {
        match tokio::time::timeout(PATIENCE, self.connection.closed()).await.expect("the connection is closed") {
            ConnectionError::ApplicationClosed(close) => String::from_utf8(close.reason.to_vec()).unwrap(),
            other => panic!("it ended otherwise: {other}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_rule_that_a_client_breaks_costs_it_the_connection() {
    metrics::record();
    let mesh = Mesh::new();
    let (store, honest) = node_and_client(&mesh).await;
    let violations = metrics::counter("stockmesh_client_violations_total");
    let whole = Request::Status(StatusWanted {}).encode().unwrap();
    let cases: [(&str, Vec<u8>, bool, &str); 6] = [
        ("oversized", [&(20_u32 << 10).to_be_bytes()[..], &[2; 100]].concat(), false, "exceeds the limit of 16384"),
        ("no length", vec![0; 8], true, "the frame is empty"),
        ("half a frame", whole[..whole.len() - 1].to_vec(), true, "ended within a frame"),
        ("half a prefix", vec![0, 0], true, "ended within a frame"),
        ("a frame that drips", vec![0, 0, 0], false, "not complete after 10 s"),
        ("an empty stream", Vec::new(), true, "ended empty"),
    ];
    let mut running = JoinSet::new();
    let mut hands = Vec::new();
    for (name, bytes, finish, word) in cases {
        let hand = Arc::new(Hand::new(&mesh, &store).await);
        hands.push(Arc::clone(&hand));
        running.spawn(async move {
            let (mut send, _receive) = hand.connection.open_bi().await.unwrap();
            send.write_all(&bytes).await.unwrap();
            if finish {
                send.finish().unwrap();
            }
            let reason = hand.closed().await;
            assert!(reason.contains(word), "{name}: {reason}");
        });
    }
    let hand = Hand::new(&mesh, &store).await;
    let mut stream = hand.connection.open_uni().await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert!(hand.closed().await.contains("one direction"));
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    wait_until("each is counted", || metrics::counter("stockmesh_client_violations_total") >= violations + 7).await;
    assert!(refused_with(&store, &["a client broke a rule", "one direction"]));
    honest.status().await.unwrap();
}

/// What cannot be read, but breaks no rule of frames, is answered: it may come from a newer client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_understood_is_answered() {
    let mesh = Mesh::new();
    let (store, _client) = node_and_client(&mesh).await;
    let hand = Hand::new(&mesh, &store).await;
    let failure = async |bytes: Vec<u8>| match soon(hand.ask(&bytes, true)).await {
        Some(Answer::Failed(failure)) => *failure,
        other => panic!("{other:?}"),
    };
    let unknown = failure(frame(77, &[0x80])).await;
    assert_eq!(unknown.code, FailureCode::Unsupported);
    assert!(unknown.text.as_str().contains("kind 77"), "{}", unknown.text);
    // A body of another shape, a SKU that is none, and the frame of a peer.
    for bytes in [frame(16, &[0x90]), frame(17, b"\x82\xa3sku\xa0\xa5units\x01"), frame(2, &[0x91; 5_000])] {
        let invalid = failure(bytes).await;
        assert_eq!(invalid.code, FailureCode::Invalid);
        assert!(invalid.text.as_str().contains("nothing was applied"), "{}", invalid.text);
    }
    let unknown_field = frame(2, b"\x81\xa3new\x92\x01\x02");
    assert!(matches!(soon(hand.ask(&unknown_field, true)).await, Some(Answer::StatusIs(_))), "fields may be added");
    // The peers' protocol has no place here, nor this one there.
    assert_eq!(failure(frame(32, &[0xc0])).await.code, FailureCode::Unsupported);
    let peer = raw::Raw::linked(&mesh, address(&store)).await;
    let request = Request::Status(StatusWanted {}).encode().unwrap();
    let _streams = peer.session_bytes(&request, true).await;
    peer.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_clients_are_sent_away_and_come_back_unnoticed() {
    let mesh = Mesh::new();
    let (store, client) = node_and_client(&mesh).await;
    let mut watching = client.watch(&Filter::all()).await.unwrap();
    let other = connect(&mesh, &store).await;
    let hand = Hand::new(&mesh, &store).await;
    let reason = hand.closed().await;
    assert!(reason.contains("nothing was asked for 15 s"), "{reason}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    other.status().await.unwrap();
    // A subscription is no idleness, though nothing happens.
    store.product("MUG-01").unwrap().receive(1).await.unwrap();
    soon(watching.next()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_clients_and_of_their_subscriptions_is_bounded() {
    let mesh = Mesh::new();
    let (store, client) = node_and_client(&mesh).await;
    let mut watching = Vec::new();
    for _ in 0..8 {
        watching.push(client.watch(&Filter::all()).await.unwrap());
    }
    match client.watch(&Filter::all()).await {
        Err(ClientError::Refused { code: FailureCode::Busy, text }) => assert!(text.contains("limit"), "{text}"),
        other => panic!("{other:?}"),
    }
    watching.pop();
    let freed = async {
        while client.watch(&Filter::all()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(freed).await;
    drop(watching);
    // One certificate gets a quarter of the places.
    let issued = mesh.issue("greedy");
    let mut hands = Vec::new();
    for _ in 0..64 {
        hands.push(Hand::with(&mesh, &store, &issued).await.kept_busy());
    }
    let one_more = Hand::with(&mesh, &store, &issued).await;
    let reason = one_more.closed().await;
    assert!(reason.contains("64 clients with the certificate"), "{reason}");
    client.status().await.unwrap();
    // All together get all of them.
    for name in ["a", "b", "c", "d"] {
        let issued = mesh.issue(name);
        for _ in 0..64 {
            if let Ok((endpoint, connection)) =
                raw::connect(&mesh, address(&store), Some(&issued), ALPN, Grants::default()).await
            {
                hands.push(Hand { _endpoint: endpoint, connection }.kept_busy());
            }
        }
    }
    let full = "this node has 256 clients already";
    wait_until("there is no place left", || refused_with(&store, &[full])).await;
    // Peers are not counted among them.
    let peer = mesh.node("paris").await;
    dial(&peer, &store);
    wait_linked(&[store.clone(), peer], 1).await;
}

/// Floods of requests, of answers that nobody reads, and of connections: two peers trade on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_costs_the_peers_nothing() {
    let mesh = Arc::new(Mesh::new());
    let (store, client) = node_and_client(&mesh).await;
    let mut batch = store.batch();
    for number in 0..5_000 {
        batch = batch.receive(&format!("SKU-{number:05}"), 1).unwrap();
    }
    batch.commit().await.unwrap();
    let peer = mesh.node("paris").await;
    dial(&peer, &store);
    wait_linked(&[store.clone(), peer.clone()], 1).await;
    let mut flood = JoinSet::new();
    for number in 0..12 {
        let (mesh, store) = (Arc::clone(&mesh), store.clone());
        flood.spawn(async move {
            let list = frame(5, &[0x80]);
            let requests = [
                Request::Status(StatusWanted {}).encode().unwrap(),
                Request::Holds(AllHolds {}).encode().unwrap(),
                list,
                frame(99, &[0x80]),
            ];
            let bytes = requests[number % 4].clone();
            loop {
                let hand = Hand::new(&mesh, &store).await;
                let mut unread = Vec::new();
                while let Ok(Ok((mut send, receive))) =
                    tokio::time::timeout(Duration::from_secs(1), hand.connection.open_bi()).await
                {
                    let _ = send.write_all(&bytes).await;
                    let _ = send.finish();
                    unread.push(receive);
                    if unread.len() > 64 {
                        unread.clear();
                    }
                }
            }
        });
    }
    let begun = Instant::now();
    let mut written = 0;
    // On a slow machine a few take longer.
    while begun.elapsed() < Duration::from_secs(6) || written <= 10 {
        written += 1;
        store.product("PING").unwrap().receive(1).await.unwrap();
        let arrived = || on_hand(&peer, "PING") == written;
        wait_within(Duration::from_secs(5), "a write passes between the peers", arrived).await;
    }
    flood.shutdown().await;
    soon(client.status()).await.unwrap();
}
