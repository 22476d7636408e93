//! Replica ids belong to nodes (rule K5), and who shows writes that were never made is named (rule I2).

use std::time::Duration;

use stockmesh::{Change, Filter, NodeName};
use stockmesh_proto::wire::Message;

use crate::hostile::push_of;
use crate::support::raw::{Raw, hello};
use crate::support::{Mesh, address, dial, links_up, on_hand, refused_with, wait_linked, wait_until};

/// Also while its node is away: else it would come back to find its place taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_stays_with_its_node_while_that_is_away() {
    let mesh = Mesh::new();
    let (victim, healthy) = (mesh.node("victim").await, mesh.node("healthy").await);
    dial(&healthy, &victim);
    wait_linked(&[victim.clone(), healthy.clone()], 1).await;
    let replica = healthy.replica_id();
    healthy.go_offline();
    wait_until("it is away", || links_up(&victim) == 0).await;

    for issued in [mesh.issue("mallory"), mesh.issue_with(&[])] {
        let mut impostor = Raw::silent_as(&mesh, address(&victim), &issued).await;
        impostor.replica = replica;
        let _answer = impostor.greet(hello(replica)).await;
        let reason = impostor.closed().await;
        assert!(reason.contains(&format!("replica {replica} is known as that of node healthy")), "{reason}");
    }
    let named = ["is known as that of node healthy", "this is node mallory"];
    wait_until("both are named", || {
        refused_with(&victim, &named) && refused_with(&victim, &["a node whose certificate has no name"])
    })
    .await;
    assert_eq!(links_up(&victim), 0);

    // The node itself is let in, with a renewed certificate too.
    healthy.reload_identity(mesh.identity(&mesh.issue("healthy"))).unwrap();
    healthy.go_online();
    wait_until("it is back", || links_up(&victim) == 1).await;
    assert_eq!(healthy.replica_id(), replica);
}

/// A copy of its directory under another name is one that writes a second history: it takes a new id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renamed_node_takes_a_new_id() {
    let mesh = Mesh::new();
    let directory = tempfile::tempdir().unwrap();
    let peer = mesh.node("peer").await;
    let open = async |name: &str| {
        let builder = mesh.builder(name).location("ulm").data_dir(directory.path().join("db"));
        builder.peer(address(&peer).to_string()).open().await.unwrap()
    };
    let node = open("before").await;
    node.product("MUG").unwrap().receive(3).await.unwrap();
    wait_until("the peer has it", || on_hand(&peer, "MUG") == 3).await;
    let former = node.replica_id();
    node.close().await.unwrap();
    drop(node);
    let node = open("after").await;
    wait_until("it has a new id and a link", || node.replica_id() != former && links_up(&peer) == 1).await;
    assert_eq!(node.status().former_replicas, [former]);
    assert!(refused_with(&peer, &["is known as that of node before", "this is node after"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_forged_writes_is_named_by_the_node_they_are_forged_for() {
    let mesh = Mesh::new();
    let (victim, relay) = (mesh.node("victim").await, mesh.node("relay").await);
    let mut changes = victim.subscribe(Filter::all().events_only());
    let replica = victim.replica_id();
    // Directly, and over a node that believed it.
    let forger = Raw::linked(&mesh, address(&victim)).await;
    let push = Message::Push(push_of(replica, "FORGED", 1, 1_000)).encode().unwrap();
    let _stream = forger.push_bytes(&push, false).await;
    wait_until("it takes a new id", || victim.replica_id() != replica).await;
    let told = tokio::time::timeout(Duration::from_secs(20), changes.next()).await.unwrap();
    let Some(Change::NewIncarnation { former, own, shown_by: Some(witness) }) = told else { panic!("{told:?}") };
    assert_eq!((former, own), (replica, victim.replica_id()));
    assert_eq!((witness.replica, witness.address.to_string()), (forger.replica, forger.address()));
    assert_eq!(witness.node, NodeName::new("hostile").ok());
    let issued = stockmesh::certificates::fingerprint(&forger.issued.certificate_pem).unwrap();
    assert_eq!(witness.certificate, issued);
    assert_eq!(victim.status().incarnations.len(), 1);
    assert_eq!(victim.status().incarnations[0].shown_by.as_ref(), Some(&witness));

    let replica = victim.replica_id();
    let forger = Raw::linked(&mesh, address(&relay)).await;
    let push = Message::Push(push_of(replica, "FORGED", 5, 1_000)).encode().unwrap();
    let _stream = forger.push_bytes(&push, false).await;
    wait_until("the relay believes it", || on_hand(&relay, "FORGED") == 1_000).await;
    dial(&victim, &relay);
    wait_until("it is noticed at the first contact", || victim.status().incarnations.len() == 2).await;
    let shown_by = victim.status().incarnations[1].shown_by.clone().unwrap();
    assert_eq!((shown_by.replica, shown_by.node), (relay.replica_id(), NodeName::new("relay").ok()));
}
