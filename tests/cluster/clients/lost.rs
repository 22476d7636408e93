//! Connections that are lost in the middle of a write: it is asked for again under the same reference, at the same
//! replica, and never done twice (rule X6).

use quinn::{Connection, Endpoint};
use stockmesh::ReplicaId;
use stockmesh::clients::{Client, ClientError, Goods};
use stockmesh_proto::wire::client::{Answer, Done, Failure, FailureCode, Request, Sale, Shown, Text, Welcome};
use stockmesh_proto::{ClusterId, Location};

use super::{identity, soon};
use crate::support::raw::{listen, now_ms};
use crate::support::{Mesh, on_hand, own_address};

const ALPN: &[u8] = b"stockmesh-client/1";

/// What a made-up node does with a write.
enum Answering {
    /// Ends the connection without an answer.
    HangUp,
    Answer(Answer),
}

async fn read(stream: &mut quinn::RecvStream) -> Request {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await.unwrap();
    let mut bytes = vec![0; u32::from_be_bytes(prefix) as usize];
    stream.read_exact(&mut bytes).await.unwrap();
    Request::decode(&bytes).unwrap()
}

async fn tell(mut stream: quinn::SendStream, answer: &Answer) {
    stream.write_all(&answer.encode().unwrap()).await.unwrap();
    stream.finish().unwrap();
    let _ = stream.stopped().await;
}

/// Takes one connection, welcomes it as this replica, and does so with the write that comes.
async fn serve_once(endpoint: &Endpoint, replica: ReplicaId, answering: Answering) -> (Request, Connection) {
    let connection = endpoint.accept().await.unwrap().await.unwrap();
    let (send, mut receive) = connection.accept_bi().await.unwrap();
    assert!(matches!(read(&mut receive).await, Request::Hello(_)), "a connection begins with a hello");
    let welcome = Welcome {
        cluster: ClusterId::new("stockmesh").unwrap(),
        replica: Shown(replica),
        location: Location::new("berlin").unwrap(),
        software: Text::new("made up"),
    };
    tell(send, &Answer::Welcome(welcome)).await;
    let (send, mut receive) = connection.accept_bi().await.unwrap();
    let request = read(&mut receive).await;
    match answering {
        Answering::HangUp => connection.close(0_u32.into(), b"power cut"),
        Answering::Answer(answer) => tell(send, &answer).await,
    }
    (request, connection)
}

fn sale_of(request: &Request) -> &Sale {
    match request {
        Request::Sell(sale) => sale,
        other => panic!("{other:?}"),
    }
}

async fn sell(mesh: &Mesh, endpoint: &Endpoint) -> tokio::task::JoinHandle<Result<(), ClientError>> {
    let (to, identity) = (endpoint.local_addr().unwrap().to_string(), identity(mesh, "till"));
    tokio::spawn(async move {
        let client = Client::connect(to, identity).await.unwrap();
        client.sell(&Goods::of("MUG-01").unwrap(), 2).await
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_was_lost_is_asked_for_under_the_same_reference() {
    let mesh = Mesh::new();
    let endpoint = listen(&mesh, ALPN);
    let selling = sell(&mesh, &endpoint).await;
    let replica = ReplicaId::from_random(7);
    let (first, _) = soon(serve_once(&endpoint, replica, Answering::HangUp)).await;
    let done = Answering::Answer(Answer::Done(Done {}));
    let (second, _open) = soon(serve_once(&endpoint, replica, done)).await;
    soon(selling).await.unwrap().unwrap();
    assert!(sale_of(&first).reference.is_some(), "drawn by chance");
    assert_eq!(first, second);
}

/// Whoever knows the reference knows that the first one was not done; whoever did not look at it says nothing of that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_the_second_request_counts_if_it_was_looked_at() {
    let mesh = Mesh::new();
    let replica = ReplicaId::from_random(7);
    let refused = |code| Answering::Answer(Answer::Failed(Box::new(Failure::new(code, "no; nothing was changed"))));
    let endpoint = listen(&mesh, ALPN);
    let selling = sell(&mesh, &endpoint).await;
    let _ = soon(serve_once(&endpoint, replica, Answering::HangUp)).await;
    let _open = soon(serve_once(&endpoint, replica, refused(FailureCode::Refused))).await;
    assert!(matches!(soon(selling).await.unwrap(), Err(ClientError::Refused { .. })));

    let endpoint = listen(&mesh, ALPN);
    let selling = sell(&mesh, &endpoint).await;
    let (first, _) = soon(serve_once(&endpoint, replica, Answering::HangUp)).await;
    let (_, open) = soon(serve_once(&endpoint, replica, refused(FailureCode::Busy))).await;
    // It asks once more; nobody answers for good.
    let serving = tokio::spawn(async move {
        while let Ok((send, mut receive)) = open.accept_bi().await {
            let request = read(&mut receive).await;
            assert!(matches!(request, Request::Sell(_)));
            tell(send, &Answer::Failed(Box::new(Failure::new(FailureCode::Busy, "busy; nothing was changed")))).await;
        }
    });
    match soon(selling).await.unwrap() {
        Err(error @ ClientError::Indeterminate { .. }) => {
            let reference = sale_of(&first).reference.clone().unwrap();
            assert!(error.to_string().contains(reference.as_str()), "{error}");
        }
        other => panic!("{other:?}"),
    }
    serving.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replica_is_not_asked_again() {
    let mesh = Mesh::new();
    let endpoint = listen(&mesh, ALPN);
    let selling = sell(&mesh, &endpoint).await;
    let _ = soon(serve_once(&endpoint, ReplicaId::from_random(7), Answering::HangUp)).await;
    // Another node took the address over: it would sell a second time.
    let done = Answering::Answer(Answer::Done(Done {}));
    let serving = tokio::spawn(async move { serve_once(&endpoint, ReplicaId::from_random(8), done).await });
    match soon(selling).await.unwrap() {
        Err(error @ ClientError::Indeterminate { .. }) => {
            assert!(error.to_string().contains("ask the same node again under the reference client-"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!serving.is_finished(), "it was not asked for a sale");
    serving.abort();
}

/// A node that is closed and opened again while a client sells: what the client counts is what was sold.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_sales_sells_nothing_twice() {
    let mesh = Mesh::new();
    let directory = tempfile::tempdir().unwrap();
    let port = own_address();
    let open = async || {
        let begun = now_ms();
        loop {
            let builder = mesh.builder("berlin").clients(true).listen(port).data_dir(directory.path().join("db"));
            match builder.open().await {
                Ok(store) => return store,
                Err(error) => assert!(now_ms() < begun + 30_000, "{error}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let mut store = open().await;
    store.product("MUG-01").unwrap().receive(10_000).await.unwrap();
    let client = Client::connect(port.to_string(), identity(&mesh, "till")).await.unwrap();
    let (sold_so_far, mut sales) = tokio::sync::watch::channel(0_i128);
    let selling = tokio::spawn(async move {
        let (mut sold, mut unclear) = (0_i128, 0_i128);
        while !sold_so_far.is_closed() {
            match client.sell(&Goods::of("MUG-01").unwrap(), 1).await {
                Ok(()) => sold += 1,
                Err(ClientError::Indeterminate { .. }) => unclear += 1,
                Err(_) => {}
            }
            sold_so_far.send_replace(sold);
        }
        (sold, unclear)
    });
    let sell_more = async |sales: &mut tokio::sync::watch::Receiver<i128>| {
        let before = *sales.borrow();
        soon(sales.wait_for(|sold| *sold >= before + 20)).await.unwrap();
    };
    for _ in 0..3 {
        sell_more(&mut sales).await;
        store.close().await.unwrap();
        drop(store);
        store = open().await;
    }
    sell_more(&mut sales).await;
    drop(sales);
    let (sold, unclear) = soon(selling).await.unwrap();
    let gone = 10_000 - on_hand(&store, "MUG-01");
    assert!((sold..=sold + unclear).contains(&gone), "{sold} sold, {unclear} unclear, {gone} gone");
}
