//! Damage to holds and to the ledger is damage like any other: named, refused, and healed on request under a new id.

use std::path::{Path, PathBuf};
use std::time::Duration;

use stockmesh::{DamagePolicy, OpenError, ReplicaId, Store};

use crate::cluster::copy;

const HOUR: Duration = Duration::from_secs(3_600);
/// Stands in the row of a hold and in the ledger …
const OF_HOLD: &str = "the-reference-of-the-hold";
/// … and this in the ledger only.
const OF_SALE: &str = "the-reference-of-the-sale";

/// A closed store with a hold and some movements. Returns its id.
async fn prepare(path: &Path) -> ReplicaId {
    let store = Store::builder().data_dir(path).shards(4).open().await.unwrap();
    let mug = store.product("MUG").unwrap();
    mug.receive(100).await.unwrap();
    mug.reference(OF_HOLD).unwrap().hold(10, HOUR).await.unwrap();
    mug.reference(OF_SALE).unwrap().try_sell(5).await.unwrap();
    mug.reference("last").unwrap().try_sell(1).await.unwrap();
    store.close().await.unwrap();
    store.replica_id()
}

fn places(bytes: &[u8], word: &str) -> Vec<usize> {
    let matches = |window: &[u8]| window == word.as_bytes();
    bytes.windows(word.len()).enumerate().filter(|(_, window)| matches(window)).map(|(at, _)| at).collect()
}

/// A copy of the directory with one bit of its store turned.
fn damaged(path: &Path, at: usize) -> PathBuf {
    let copied = path.with_file_name(format!("damaged-{at}"));
    copy(path, &copied);
    let mut bytes = std::fs::read(copied.join("store.redb")).unwrap();
    bytes[at] ^= 1;
    std::fs::write(copied.join("store.redb"), bytes).unwrap();
    copied
}

fn builder(path: &Path) -> stockmesh::Builder {
    Store::builder().data_dir(path).shards(4)
}

/// Opens it on request: a new id, all of the stock, and a ledger that can be read and goes on.
async fn heals(path: &Path, id: ReplicaId, said: &str) {
    let store = builder(path).damage(DamagePolicy::NewIncarnation).open().await.unwrap();
    assert_eq!(store.status().former_replicas, [id], "{said}");
    let view = store.get("MUG").unwrap();
    assert_eq!((view.on_hand(), view.held()), (94, 10), "{said}: the counters are whole");
    assert!(store.holds().is_empty(), "{said}: the holds are the former id's");
    let own = view.rights_at("main").into_iter().find(|(replica, _)| *replica == store.replica_id());
    assert!(own.is_none(), "{said}: a new id has no rights");
    let before = store.ledger().collect().await.unwrap().len();
    assert!((3..=4).contains(&before), "{said}: {before} movements are left");
    store.product("MUG").unwrap().receive(1).await.unwrap();
    store.product("MUG").unwrap().try_sell(1).await.unwrap();
    assert_eq!(store.ledger().collect().await.unwrap().len(), before + 2, "{said}");
    store.close().await.unwrap();
    builder(path).open().await.unwrap().close().await.unwrap();
}

/// One bit is turned wherever a reference stands in the file: in the row of a hold, in an entry of the ledger, or in a page
/// that is not used any more. What is damaged is named and refused each time it is opened, and heals on request.
#[tokio::test]
async fn a_damaged_hold_or_ledger_entry_is_refused_and_heals_under_a_new_id() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("data");
    let id = prepare(&path).await;
    let bytes = std::fs::read(path.join("store.redb")).unwrap();
    let (mut of_holds, mut of_ledger) = (0, 0);
    for at in [places(&bytes, OF_HOLD), places(&bytes, OF_SALE)].concat() {
        let damaged = damaged(&path, at + 3);
        let said = match builder(&damaged).open().await {
            Err(OpenError::Damaged { damage }) => damage.join("; "),
            Err(error) => panic!("{error}"),
            Ok(store) => {
                assert_eq!(store.ledger().collect().await.unwrap().len(), 4, "a page that is not used");
                assert_eq!(store.holds().len(), 1);
                store.close().await.unwrap();
                continue;
            }
        };
        let again = builder(&damaged).open().await;
        assert!(matches!(again, Err(OpenError::Damaged { .. })), "{again:?}");
        of_holds += usize::from(said.contains("hold."));
        of_ledger += usize::from(said.contains("ledger"));
        heals(&damaged, id, &said).await;
    }
    assert!(of_holds > 0 && of_ledger > 1, "{of_holds} holds and {of_ledger} entries were damaged");
}
