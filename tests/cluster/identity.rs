//! Certificates that change while the nodes run: nothing is lost, and nobody stays who should not.

use std::time::{Duration, SystemTime};

use stockmesh::certificates::Validity;
use stockmesh::{CertificateFingerprint, Change, Filter, Identity, ReloadError, Store};

use crate::support::proxy::{Proxy, Weather};
use crate::support::writers::Ledger;
use crate::support::{
    Mesh, PATIENCE, address, agree, dial, full_mesh, links_up, metrics, on_hand, peer_error_with, refused_with,
    wait_linked, wait_until, wait_within,
};

/// The certificate of the peer at this location, as `store` sees it.
fn certificate_of(store: &Store, location: &str) -> Option<CertificateFingerprint> {
    let status = store.status();
    let peer = status.peers.iter().find(|peer| peer.location.as_ref().is_some_and(|known| known.as_str() == location));
    peer.and_then(|peer| peer.certificate)
}

/// A new certificate of `of` for a node that trusts all of `trusted`.
fn identity(of: &Mesh, name: &str, trusted: &[&Mesh]) -> Identity {
    let issued = of.issue(name);
    let authorities: String = trusted.iter().map(|mesh| mesh.authority_pem()).collect();
    Identity::from_pem_bytes(authorities.as_bytes(), issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_under_writes_loses_nothing() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(3).await;
    full_mesh(&stores);
    wait_linked(&stores, 2).await;
    let replicas: Vec<_> = stores.iter().map(Store::replica_id).collect();
    let ledger = Ledger::default();
    let writing: Vec<_> = stores.iter().zip(0..).map(|(store, seed)| ledger.keep_writing(store, seed)).collect();
    // The first is dialled by all, the last dials all; and then the first once more.
    for round in [0, 2, 1, 0] {
        let name = format!("node-{round}");
        let renewed = identity(&mesh, &name, &[&mesh]);
        let fingerprint = renewed.fingerprint();
        stores[round].reload_identity(renewed).unwrap();
        wait_until("all are linked under the new certificate", || {
            let others = stores.iter().enumerate().filter(|(number, _)| *number != round);
            others.map(|(_, store)| certificate_of(store, &name)).all(|seen| seen == Some(fingerprint))
                && links_up(&stores[round]) == 2
        })
        .await;
    }
    for writing in writing {
        writing.stop().await;
    }
    ledger.assert_whole(&stores).await;
    let now: Vec<_> = stores.iter().map(Store::replica_id).collect();
    assert_eq!(now, replicas, "nobody took a renewed node for an impostor");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_rotate_at_once() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(2).await;
    full_mesh(&stores);
    wait_linked(&stores, 1).await;
    let renewed = ["node-0", "node-1"].map(|name| identity(&mesh, name, &[&mesh]));
    let fingerprints = renewed.each_ref().map(Identity::fingerprint);
    for (store, identity) in stores.iter().zip(renewed) {
        store.reload_identity(identity).unwrap();
    }
    wait_until("both see the new certificate", || {
        certificate_of(&stores[0], "node-1") == Some(fingerprints[1])
            && certificate_of(&stores[1], "node-0") == Some(fingerprints[0])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_authority_is_refused_loudly_until_the_peers_trust_it() {
    let (old, new) = (Mesh::new(), Mesh::of_authority("next"));
    let stores = old.nodes(2).await;
    dial(&stores[1], &stores[0]);
    wait_linked(&stores, 1).await;
    stores[1].reload_identity(identity(&new, "node-1", &[&new])).unwrap();
    let words = ["of another authority", "same authority"];
    wait_until("both read why", || peer_error_with(&stores[1], &words) && refused_with(&stores[0], &words)).await;
    assert_eq!((links_up(&stores[0]), links_up(&stores[1])), (0, 0));
    stores[0].product("MUG-01").unwrap().receive(5).await.unwrap();
    stores[0].reload_identity(identity(&new, "node-0", &[&new])).unwrap();
    wait_until("they link again", || links_up(&stores[1]) == 1 && on_hand(&stores[1], "MUG-01") == 5).await;
}

/// With the same certificate, only links to those that are not trusted any more are closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn links_to_peers_that_are_still_trusted_go_on() {
    let (old, new) = (Mesh::new(), Mesh::of_authority("next"));
    let both = [&old, &new];
    let issued = old.issue("hub");
    let trusting = |trusted: &[&Mesh]| {
        let authorities: String = trusted.iter().map(|mesh| mesh.authority_pem()).collect();
        let (certificate, key) = (issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes());
        Identity::from_pem_bytes(authorities.as_bytes(), certificate, key).unwrap()
    };
    // They would find each other, through the hub.
    let hub = old.builder("hub").only_peers().identity(trusting(&both)).open().await.unwrap();
    let mut peers = Vec::new();
    // Of each authority one that dials, and one that is dialled.
    for (mesh, name) in [(&old, "old-dials"), (&old, "old"), (&new, "new-dials"), (&new, "new")] {
        let builder = old.builder(name).only_peers();
        peers.push(builder.identity(identity(mesh, name, &both)).open().await.unwrap());
    }
    for (peer, number) in peers.iter().zip(0..) {
        if number % 2 == 0 { dial(peer, &hub) } else { dial(&hub, peer) }
    }
    wait_until("all are linked", || links_up(&hub) == 4).await;
    let sent_at = |store: &Store| store.status().peers.iter().filter_map(|peer| peer.last_error.clone()).count();
    hub.reload_identity(trusting(&[&old])).unwrap();
    let words = ["does not trust the peer's certificate", "any more"];
    wait_until("those of the new authority are told", || peer_error_with(&peers[2], &words)).await;
    wait_until("and have no link", || links_up(&peers[2]) == 0 && links_up(&peers[3]) == 0).await;
    assert_eq!((links_up(&peers[0]), links_up(&peers[1]), links_up(&hub)), (1, 1, 2));
    assert_eq!(sent_at(&peers[0]), 0, "its link was never closed");
    hub.reload_identity(trusting(&both)).unwrap();
    wait_until("all are linked again", || links_up(&hub) == 4).await;
    wait_until("all agree", || peers.iter().all(|peer| agree(&[hub.clone(), peer.clone()]))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_network_or_that_is_closed_says_so() {
    let mesh = Mesh::new();
    let alone = Store::builder().in_memory().open().await.unwrap();
    assert_eq!(alone.reload_identity(identity(&mesh, "a", &[&mesh])), Err(ReloadError::NoNetwork));
    let node = mesh.node("node").await;
    node.close().await.unwrap();
    assert_eq!(node.reload_identity(identity(&mesh, "a", &[&mesh])), Err(ReloadError::Closed));
}

/// The peer holds the old link for open until it counts as dead, and refuses the new one as an impostor's till then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_farewell_was_lost_keeps_its_replica_id() {
    let mesh = Mesh::new();
    let stores = mesh.nodes(2).await;
    let replica = stores[1].replica_id();
    let proxy = Proxy::start(address(&stores[0]), Weather::default(), 1).await;
    stores[1].add_peer(proxy.address()).unwrap();
    wait_linked(&stores, 1).await;
    proxy.go_dark();
    stores[1].reload_identity(identity(&mesh, "node-1", &[&mesh])).unwrap();
    dial(&stores[1], &stores[0]);
    let words = ["is linked with another certificate"];
    wait_until("it is refused at first", || refused_with(&stores[1], &words)).await;
    // Under both addresses.
    // The old link's idle time, then the pause between dials, and the dial itself.
    wait_within(2 * PATIENCE, "it is linked in the end", || links_up(&stores[1]) == 2).await;
    assert_eq!(stores[1].replica_id(), replica);
    assert!(stores[1].status().former_replicas.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_soon_is_told() {
    let mesh = Mesh::new();
    let until = |days: u32| {
        let issued = mesh.issue_for("node", Validity::from_days(days).unwrap());
        let end = SystemTime::now() + Duration::from_secs(u64::from(days) * 86_400);
        (mesh.identity(&issued), end)
    };
    let near = |told: Option<SystemTime>, end: SystemTime| {
        let told = told.unwrap();
        told <= end && told >= end - Duration::from_secs(5)
    };
    let (ten, end) = until(10);
    let store = mesh.builder("node").identity(ten).open().await.unwrap();
    assert!(near(store.status().identity_expires, end));
    let next =
        async |changes: &mut stockmesh::Changes| tokio::time::timeout(Duration::from_secs(10), changes.next()).await;
    let mut changes = store.subscribe(Filter::all().events_only());
    let told = next(&mut changes).await;
    assert!(matches!(told, Ok(Some(Change::IdentityExpires { at })) if near(Some(at), end)), "{told:?}");

    // One that lasts is not told, neither to those who listen nor to those who begin to.
    let (lasting, _) = until(32);
    store.reload_identity(lasting).unwrap();
    let mut begun = store.subscribe(Filter::all());
    store.product("MUG-01").unwrap().receive(1).await.unwrap();
    assert!(matches!(next(&mut begun).await, Ok(Some(Change::Product(_)))));
    // One that does not is told to those who listen.
    let (soon, end) = until(29);
    store.reload_identity(soon).unwrap();
    for changes in [&mut changes, &mut begun] {
        let told = next(changes).await;
        assert!(matches!(told, Ok(Some(Change::IdentityExpires { at })) if near(Some(at), end)), "{told:?}");
    }
    // One that is past is not taken.
    let refused = store.reload_identity(mesh.identity(&mesh.issue_expired("node")));
    assert!(matches!(refused, Err(ReloadError::Expired { .. })), "{refused:?}");
    assert!(near(store.status().identity_expires, end));
}

/// Replaces a list as its operator should: as a whole.
fn write_list(path: &std::path::Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_node_is_out_until_it_is_taken_off_the_list() {
    let mesh = Mesh::new();
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("revoked.txt");
    std::fs::write(&list, "# nobody yet\n").unwrap();
    let mut stores = Vec::new();
    for name in ["stays", "dials", "stolen"] {
        // The stolen one would not heed the list.
        let builder = if name == "stolen" { mesh.builder(name) } else { mesh.builder(name).revocations(&list) };
        stores.push(builder.open().await.unwrap());
    }
    // One dials the stolen node, the other is dialled by it.
    dial(&stores[1], &stores[0]);
    dial(&stores[1], &stores[2]);
    dial(&stores[2], &stores[0]);
    wait_linked(&stores, 2).await;
    let stolen = certificate_of(&stores[0], "stolen").unwrap();
    let ledger = Ledger::default();
    let writing = [ledger.keep_writing(&stores[0], 1), ledger.keep_writing(&stores[1], 2)];

    write_list(&list, &format!("{stolen} # gone since Monday\n"));
    wait_within(Duration::from_secs(5), "its links are closed", || links_up(&stores[2]) == 0).await;
    let words = ["is on a list of revoked certificates", "needs a new one"];
    wait_until("all read why", || refused_with(&stores[0], &words) && peer_error_with(&stores[1], &words)).await;
    wait_until("the stolen one too", || refused_with(&stores[2], &words) && peer_error_with(&stores[2], &words)).await;
    stores[0].product("SECRET").unwrap().receive(1).await.unwrap();
    wait_until("the others go on", || on_hand(&stores[1], "SECRET") == 1).await;
    let dials_before = stores[2].status().refusals.len();
    wait_until("it tries once more", || stores[2].status().refusals.len() > dials_before).await;
    assert_eq!((links_up(&stores[0]), links_up(&stores[1]), links_up(&stores[2])), (1, 1, 0));
    assert_eq!(on_hand(&stores[2], "SECRET"), 0);

    // A list that cannot be read lets nobody in.
    metrics::record();
    let counted = metrics::counter("stockmesh_revocations_errors_total");
    write_list(&list, "all is well\n");
    wait_until("both say so", || metrics::counter("stockmesh_revocations_errors_total") >= counted + 2).await;
    assert_eq!(links_up(&stores[2]), 0);

    write_list(&list, "");
    wait_until("it is let in again", || links_up(&stores[2]) == 2).await;
    for writing in writing {
        writing.stop().await;
    }
    ledger.assert_whole(&stores).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_list_is_named_at_open() {
    let mesh = Mesh::new();
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("revoked.txt");
    let error = async || mesh.builder("node").revocations(&list).open().await.unwrap_err().to_string();
    let missing = error().await;
    assert!(missing.contains("revoked.txt cannot be read"), "{missing}");
    std::fs::write(&list, format!("{}\n\nberlin\n", "ab".repeat(32))).unwrap();
    let bad = error().await;
    assert!(bad.contains("revoked.txt, line 3: \"berlin\" must be a SHA-256 fingerprint"), "{bad}");
    let alone = Store::builder().in_memory().revocations(&list).open().await.unwrap_err().to_string();
    assert!(alone.contains("needs an `identity`"), "{alone}");
}
