//! Messages between applications, and pings.

use stockmesh::{Delivery, SendError, Store};
use stockmesh_proto::limits::MESSAGE_BYTES_MAX;

use crate::support::{Mesh, full_mesh, wait_linked};

async fn linked(count: usize) -> Vec<Store> {
    let stores = Mesh::new().nodes(count).await;
    full_mesh(&stores);
    wait_linked(&stores, count - 1).await;
    stores
}

/// A message comes once, with its sender, and the sender hears that it came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_delivered_once_and_confirmed() {
    let stores = linked(2).await;
    let (one, two) = (&stores[0], &stores[1]);
    assert_eq!(
        one.send(two.replica_id(), "early").await,
        Err(SendError::NobodyListens { peer: two.replica_id() }),
        "nobody reads yet"
    );
    let (mut first, mut second) = (two.messages(), two.messages());
    for text in ["a", "", "c"] {
        one.send(two.replica_id(), text).await.unwrap();
    }
    let longest = vec![7; MESSAGE_BYTES_MAX];
    one.send(two.replica_id(), longest.clone()).await.unwrap();
    for reader in [&mut first, &mut second] {
        for expected in [b"a".to_vec(), Vec::new(), b"c".to_vec(), longest.clone()] {
            let Some(Delivery::Message(message)) = reader.next().await else { panic!("no message") };
            assert_eq!((message.from, message.location.as_str()), (one.replica_id(), "node-0"));
            assert_eq!(*message.bytes, *expected);
        }
    }
    // Nothing more is there: what follows is the next that is sent.
    two.send(one.replica_id(), "back").await.unwrap_err();
    one.send(two.replica_id(), "last").await.unwrap();
    let Some(Delivery::Message(message)) = first.next().await else { panic!("no message") };
    assert_eq!(*message.bytes, *b"last");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_tells_who_received_it() {
    let stores = linked(4).await;
    let mut readers: Vec<_> = stores[1..3].iter().map(Store::messages).collect();
    let broadcast = stores[0].broadcast("all").await.unwrap();
    let mut received: Vec<_> = stores[1..3].iter().map(Store::replica_id).collect();
    received.sort_unstable();
    assert_eq!(broadcast.received.iter().map(|(peer, _)| *peer).collect::<Vec<_>>(), received);
    let deaf = stores[3].replica_id();
    assert_eq!(broadcast.failed, [(deaf, SendError::NobodyListens { peer: deaf })]);
    for reader in &mut readers {
        assert!(matches!(reader.next().await, Some(Delivery::Message(message)) if *message.bytes == *b"all"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_is_named() {
    let stores = linked(2).await;
    let (one, two) = (&stores[0], &stores[1]);
    let peer = two.replica_id();
    assert!(one.ping(peer).await.unwrap() > std::time::Duration::ZERO);
    let error = one.send(peer, vec![0; MESSAGE_BYTES_MAX + 1]).await.unwrap_err();
    assert!(matches!(error, SendError::Invalid(_)) && error.to_string().contains("65536"), "{error}");
    let stranger = stockmesh::ReplicaId::from_random(1);
    assert_eq!(one.ping(stranger).await, Err(SendError::NotLinked { peer: stranger }));
    let alone = Store::builder().in_memory().open().await.unwrap();
    assert_eq!(alone.send(peer, "x").await, Err(SendError::NoNetwork));
    assert_eq!(alone.broadcast("x").await, Err(SendError::NoNetwork));
    assert_eq!(alone.messages().next().await, None);
    let mut reader = two.messages();
    two.close().await.unwrap();
    assert!(one.send(peer, "x").await.is_err());
    assert_eq!(reader.next().await, None, "it ends when the store is closed, whoever still holds it");
    assert_eq!(two.messages().next().await, None);
}

/// Whoever sends too much is told so, message by message, and its link stays. Those that wait too long for their turn, as on
/// a slow machine, have no answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_messages_is_turned_away() {
    let stores = linked(2).await;
    let (one, peer) = (&stores[0], stores[1].replica_id());
    let mut reader = stores[1].messages();
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let one = one.clone();
        sending.spawn(async move { one.send(peer, vec![0; MESSAGE_BYTES_MAX]).await });
    }
    let results = sending.join_all().await;
    let refused = results.iter().filter(|result| **result == Err(SendError::TooMany { peer })).count();
    let received = results.iter().filter(|result| result.is_ok()).count();
    let unanswered = results.iter().filter(|result| matches!(result, Err(SendError::NoAnswer { .. }))).count();
    let all = (refused, received, unanswered);
    assert!(refused > 0 && received > 0, "refused, received, without an answer: {all:?}");
    assert_eq!(refused + received + unanswered, 400, "{results:?}");
    let (mut seen, mut missed) = (0, 0);
    while seen + missed < received {
        match reader.next().await {
            Some(Delivery::Message(_)) => seen += 1,
            Some(Delivery::Lagged { missed: more }) => missed += usize::try_from(more).unwrap(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(crate::support::links_up(one), 1);
}
