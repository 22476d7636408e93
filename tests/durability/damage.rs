//! Damaged, deleted and rolled-back files: named, never taken for an empty or an older store; with
//! [`DamagePolicy::NewIncarnation`] what is intact is kept and the rest comes from the peers (rules D4, D5).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stockmesh::{DamagePolicy, Fingerprint, InspectError, OpenError, ReplicaId, Store, inspect};

use crate::chance::Chance;
use crate::cluster::{converged, copy, link, node, node_at};
use crate::model::{Change, Model, Write, add, perform};

/// A store's directory with some history, closed, and a peer that holds it all.
struct Damaged {
    _root: tempfile::TempDir,
    path: PathBuf,
    /// A copy from before the last writes.
    older: PathBuf,
    whole: PathBuf,
    peer: Store,
    id: ReplicaId,
    model: Model,
    fingerprint: Fingerprint,
}

fn spread(prefix: &str, units: i64) -> Write {
    (0..200).map(|number| add(format!("{prefix}-{number:03}-{}", "d".repeat(60)), units)).collect()
}

async fn prepare() -> Damaged {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let peer = node("peer").in_memory().open().await.unwrap();
    let store = node_at("damaged", &path("data")).await;
    let mut model = Model::default();
    let mut write = async |store: &Store, write: Write| {
        perform(store, &write).await.unwrap();
        model.apply(&write);
    };
    write(&store, spread("FIRST", 5)).await;
    write(&store, vec![Change::Price("MUG".into(), 100), Change::Listed("MUG".into(), true)]).await;
    store.close().await.unwrap();
    copy(&path("data"), &path("older"));
    let store = node_at("damaged", &path("data")).await;
    link(&store, &peer);
    for round in 0..5 {
        write(&store, spread("FIRST", -1)).await;
        write(&store, spread(&format!("ROUND-{round}"), 3)).await;
        write(&store, vec![add("MUG", 10)]).await;
    }
    write(&peer, spread("FIRST", 2)).await;
    assert_eq!(converged(&[&store, &peer]).await, model);
    let (id, fingerprint) = (store.replica_id(), store.status().fingerprint);
    store.close().await.unwrap();
    copy(&path("data"), &path("whole"));
    let (data, older, whole) = (path("data"), path("older"), path("whole"));
    Damaged { path: data, older, whole, peer, id, model, fingerprint, _root: root }
}

impl Damaged {
    /// A fresh copy of the directory, with its store's bytes changed.
    fn with_store(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
        let path = self.path.with_file_name(name);
        drop(std::fs::remove_dir_all(&path));
        copy(&self.whole, &path);
        let mut bytes = std::fs::read(path.join("store.redb")).unwrap();
        change(&mut bytes);
        std::fs::write(path.join("store.redb"), bytes).unwrap();
        path
    }

    /// The store must be refused as damaged, again and again, and stay as it is. Returns what was said.
    async fn is_refused(&self, path: &Path) -> Vec<String> {
        let before = std::fs::read(path.join("store.redb")).ok();
        let mut said = Vec::new();
        for _ in 0..2 {
            match node("damaged").data_dir(path).open().await {
                Err(OpenError::Damaged { damage }) => said = damage,
                Err(error) => panic!("{}: {error}", path.display()),
                Ok(store) => panic!("{}: opened with {} products", path.display(), store.status().products),
            }
            assert!(!said.is_empty());
            assert!(std::fs::read(path.join("store.redb")).ok() == before, "what is damaged stays as it was found");
        }
        match inspect(path) {
            Ok(looked) => assert_eq!(looked.damage, said),
            Err(InspectError::Storage(_) | InspectError::Settings(_)) => {}
            Err(error) => panic!("{}: {error}", path.display()),
        }
        said
    }

    /// On request it opens under a new id, keeps the damaged file, writes at once, and gets all from its peer.
    async fn heals(&self, path: &Path, former_known: bool) -> usize {
        let before = std::fs::read(path.join("store.redb")).ok();
        let builder = node("damaged").data_dir(path).damage(DamagePolicy::NewIncarnation);
        let store = builder.open().await.unwrap();
        let status = store.status();
        assert_ne!(status.replica, self.id);
        assert!(status.former_replicas == [self.id] || !former_known, "{:?}", status.former_replicas);
        let kept = Model::of(&store);
        // What is kept was written once, so no counter is ahead of what it was, and nothing is made up.
        assert!(kept.0.keys().all(|sku| self.model.0.contains_key(sku)));
        assert_eq!(kept_file(path), before.filter(|bytes| !bytes.is_empty()), "the damaged file is kept");

        let write = vec![add(format!("AFTER-{}", status.replica), 1), add("MUG", 1)];
        perform(&store, &write).await.unwrap();
        let mut expected = Model::of(&self.peer);
        expected.apply(&write);
        assert!(!store.status().catching_up, "nobody is known to catch up with");
        let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        store.add_peer(nobody.local_addr().unwrap().to_string()).unwrap();
        assert!(store.status().catching_up, "something was lost");
        link(&store, &self.peer);
        assert_eq!(converged(&[&store, &self.peer]).await, expected);
        let mut joining = store.joining();
        while joining.next().await.is_some_and(|progress| progress.catching_up) {}
        assert!(!store.status().catching_up);
        store.close().await.unwrap();
        // From now on it is whole, and asks for no policy.
        let store = node_at("damaged", path).await;
        assert_eq!((store.replica_id(), Model::of(&store)), (status.replica, expected));
        store.close().await.unwrap();
        kept.0.len()
    }
}

/// The content of the file that was put aside, if there is one.
fn kept_file(path: &Path) -> Option<Vec<u8>> {
    let files = std::fs::read_dir(path).unwrap().map(|file| file.unwrap().path());
    let is_kept = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("store.damaged-");
    let kept: Vec<_> = files.filter(is_kept).collect();
    assert!(kept.len() <= 1);
    kept.first().map(|path| std::fs::read(path).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_is_named_or_harmless_and_never_wrong() {
    let damaged = prepare().await;
    let length = std::fs::metadata(damaged.whole.join("store.redb")).unwrap().len();
    let mut chance = Chance::new(3);
    let mut tally = BTreeMap::new();
    for number in 0..60 {
        let offset = chance.below(length) as usize;
        let path = damaged.with_store("flipped", |bytes| bytes[offset] ^= 1 << (number % 8));
        let opened = node("damaged").data_dir(&path).open().await;
        let outcome = match opened {
            Ok(store) => {
                // A page that is not in use, or a byte that the engine can do without.
                assert_eq!((Model::of(&store), store.replica_id()), (damaged.model.clone(), damaged.id), "{offset}");
                assert_eq!(store.status().fingerprint, damaged.fingerprint, "byte {offset}");
                store.close().await.unwrap();
                "harmless"
            }
            Err(OpenError::Damaged { damage }) => {
                assert!(!damage.is_empty(), "byte {offset}");
                "named"
            }
            Err(error) => panic!("byte {offset}: {error}"),
        };
        *tally.entry(outcome).or_insert(0) += 1;
    }
    println!("{tally:?} of 60 flipped bits");
    assert!(tally.get("named") > Some(&5), "{tally:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flipped_bits_in_rows_heal_from_a_peer_and_what_is_intact_is_kept() {
    let damaged = prepare().await;
    let mut kept_some = 0;
    // The text of a SKU lies in a row of the journal or of the ledger, so this damages that row and nothing of the engine.
    for (name, text) in [("first", "ROUND-1-007"), ("second", "ROUND-4-150"), ("third", "FIRST-000")] {
        let path = damaged.with_store(name, |bytes| {
            let at = bytes.windows(text.len()).rposition(|window| window == text.as_bytes()).unwrap();
            bytes[at] ^= 1;
        });
        // An old page may hold the text too; then nothing is damaged.
        if let Ok(store) = node("damaged").data_dir(&path).open().await {
            assert_eq!(Model::of(&store), damaged.model);
            continue;
        }
        let said = damaged.is_refused(&path).await.join("; ");
        // Where the engine cannot even find its tables, it says that they are corrupted.
        let words = ["batch", "tree", "journal", "ledger", "corrupted"];
        assert!(words.iter().any(|word| said.contains(word)), "{said}");
        kept_some += usize::from(damaged.heals(&path, true).await > 0);
    }
    assert!(kept_some > 0, "something was intact in at least one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_cut_short_emptied_overwritten_or_deleted_is_named_and_heals() {
    let damaged = prepare().await;
    let half = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    let zeros = |bytes: &mut Vec<u8>| bytes.fill(0);
    let header = |bytes: &mut Vec<u8>| bytes[..512].fill(0xA5);
    type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);
    let cases: [(&str, Damage<'_>); 5] = [
        ("half", &half),
        ("zeros", &zeros),
        ("header", &header),
        ("emptied", &|bytes| bytes.clear()),
        ("short", &|bytes| bytes.truncate(100)),
    ];
    for (name, change) in cases {
        let path = damaged.with_store(name, |bytes| change(bytes));
        damaged.is_refused(&path).await;
        damaged.heals(&path, false).await;
    }
    let path = damaged.with_store("deleted", |_| {});
    std::fs::remove_file(path.join("store.redb")).unwrap();
    let said = damaged.is_refused(&path).await.join("; ");
    assert!(said.contains("missing or empty") && said.contains("was durable"), "{said}");
    damaged.heals(&path, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_was_rolled_back_is_named_and_heals() {
    let damaged = prepare().await;
    let path = damaged.with_store("rolled-back", |_| {});
    std::fs::copy(damaged.older.join("store.redb"), path.join("store.redb")).unwrap();
    let said = damaged.is_refused(&path).await.join("; ");
    assert!(said.contains("the store was at commit") && said.contains("is now at commit"), "{said}");
    assert!(damaged.heals(&path, true).await > 0);
}

/// The mark is a witness only: without it the store opens, and a wrong one is written anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_garbled_mark_or_lock_costs_nothing() {
    let damaged = prepare().await;
    for name in ["mark", "LOCK"] {
        for content in [None, Some(&b""[..]), Some(b"garbage"), Some(&[0; 40])] {
            let path = damaged.with_store("unmarked", |_| {});
            std::fs::remove_file(path.join(name)).unwrap();
            content.into_iter().for_each(|bytes| std::fs::write(path.join(name), bytes).unwrap());
            let store = node_at("damaged", &path).await;
            assert_eq!((Model::of(&store), store.replica_id()), (damaged.model.clone(), damaged.id));
            store.close().await.unwrap();
        }
    }
    // With an older store and no mark the peer is the witness: see the tests of restored copies.
    let path = damaged.with_store("unmarked", |_| {});
    std::fs::copy(damaged.older.join("store.redb"), path.join("store.redb")).unwrap();
    std::fs::remove_file(path.join("mark")).unwrap();
    let store = node_at("damaged", &path).await;
    link(&store, &damaged.peer);
    assert_eq!(converged(&[&store, &damaged.peer]).await, damaged.model);
    crate::cluster::until("a new id is minted", || store.replica_id() != damaged.id).await;
}

/// Healing that was cut off by a crash begins anew, at whatever point that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn healing_that_was_cut_off_begins_anew() {
    let damaged = prepare().await;
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    // Half a new store beside the old one.
    let path = damaged.with_store("cut-off", cut);
    std::fs::write(path.join("store.new"), vec![7; 10_000]).unwrap();
    damaged.heals(&path, false).await;
    // The old one was kept already, under its second name, but the new one was not put in place yet.
    let path = damaged.with_store("cut-off", cut);
    let first = damaged.path.with_file_name("first-attempt");
    copy(&path, &first);
    damaged.heals(&first, false).await;
    let names = std::fs::read_dir(&first).unwrap().map(|file| file.unwrap().file_name());
    let kept = names.into_iter().find(|name| name.to_string_lossy().starts_with("store.damaged-")).unwrap();
    std::fs::hard_link(path.join("store.redb"), path.join(kept)).unwrap();
    damaged.heals(&path, false).await;
}
