//! Writes that nobody but a read-only member holds (rule K9).

use std::path::Path;
use std::time::Duration;

use stockmesh::{Builder, Store};

use crate::support::{Mesh, agree, dial, on_hand, wait_converged, wait_until, wait_within};

/// Half a minute must pass, in which a busy machine may do little.
const STRANDED_WITHIN: Duration = Duration::from_secs(120);

fn reads(mesh: &Mesh, name: &str) -> Builder {
    mesh.builder(name).only_peers().identity(mesh.reader(name))
}

async fn fill(store: &Store, name: &str) {
    for number in 0..8 {
        store.product(&format!("{name}-{number}")).unwrap().receive(5).await.unwrap();
    }
}

fn has_all(store: &Store, name: &str) -> bool {
    (0..8).all(|number| store.get(&format!("{name}-{number}")).is_ok_and(|view| view.on_hand() == 5))
}

fn is_stranded(store: &Store) -> bool {
    !store.status().stranded.is_empty()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Writes reached nobody but a reader, and then their node was put back to before them. The reader says so, and gets what the
/// others have once its directory is deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_tells_of_writes_that_died_with_their_writer() {
    let (mesh, root) = (Mesh::new(), tempfile::tempdir().unwrap());
    let (data, copied, kept) = (root.path().join("data"), root.path().join("copied"), root.path().join("kept"));
    let open = async |path: &Path| mesh.builder("shop").only_peers().data_dir(path).open().await.unwrap();
    let read = async || reads(&mesh, "board").data_dir(&kept).open().await.unwrap();
    let other = mesh.builder("other").only_peers().open().await.unwrap();
    let shop = open(&data).await;
    shop.product("MUG").unwrap().receive(10).await.unwrap();
    dial(&shop, &other);
    wait_converged(&[shop.clone(), other.clone()]).await;
    shop.close().await.unwrap();
    copy(&data, &copied);

    let (shop, reader) = (open(&data).await, read().await);
    dial(&reader, &shop);
    shop.product("MUG").unwrap().sell(7).await.unwrap();
    shop.product("LOST").unwrap().receive(5).await.unwrap();
    wait_converged(&[shop.clone(), reader.clone()]).await;
    shop.close().await.unwrap();

    // The same id goes on from before, and its next write has the number of one that was lost.
    let shop = open(&copied).await;
    shop.product("MUG").unwrap().sell(2).await.unwrap();
    dial(&shop, &other);
    dial(&reader, &shop);
    dial(&reader, &other);
    wait_within(STRANDED_WITHIN, "the reader says so", || is_stranded(&reader)).await;
    assert_eq!(on_hand(&reader, "LOST"), 5);
    assert!(!is_stranded(&shop) && !is_stranded(&other));
    // What is new goes on to arrive.
    shop.product("NEW").unwrap().receive(1).await.unwrap();
    wait_until("the new one is here", || reader.get("NEW").is_ok()).await;
    assert!(is_stranded(&reader));

    reader.close().await.unwrap();
    std::fs::remove_dir_all(&kept).unwrap();
    let reader = read().await;
    dial(&reader, &shop);
    dial(&reader, &other);
    let all = [shop, other, reader.clone()];
    wait_until("all hold the same", || agree(&all)).await;
    assert_eq!((on_hand(&reader, "MUG"), reader.get("LOST").is_err(), is_stranded(&reader)), (8, true, false));
}

/// A full member that is made a read-only one keeps what it had told nobody. It says so, and the others get it once it is
/// opened as a full member again. One that reads from two which do not know each other has nothing to tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stranded_is_had_again_with_a_full_members_certificate() {
    let (mesh, root) = (Mesh::new(), tempfile::tempdir().unwrap());
    let full = async |name: &str| mesh.builder(name).only_peers().open().await.unwrap();
    let screen = async || mesh.builder("screen").only_peers().data_dir(root.path()).open().await.unwrap();
    let before = screen().await;
    fill(&before, "OWN").await;
    before.close().await.unwrap();
    let builder = mesh.builder("screen").only_peers().identity(mesh.reader("screen"));
    let (other, reader) = (full("other").await, builder.data_dir(root.path()).open().await.unwrap());
    fill(&other, "OTHER").await;
    dial(&reader, &other);

    let (left, right, between) =
        (full("left").await, full("right").await, reads(&mesh, "between").open().await.unwrap());
    dial(&between, &left);
    dial(&between, &right);
    fill(&left, "LEFT").await;
    fill(&right, "RIGHT").await;

    wait_within(STRANDED_WITHIN, "the reader says so", || is_stranded(&reader)).await;
    assert!(has_all(&reader, "OWN") && has_all(&reader, "OTHER"));
    assert!(has_all(&between, "LEFT") && has_all(&between, "RIGHT"));
    assert!(!agree(&[left, right]));
    assert_eq!(between.status().stranded, [0_u16; 0]);

    reader.close().await.unwrap();
    let again = screen().await;
    dial(&again, &other);
    wait_until("the other has it", || has_all(&other, "OWN")).await;
    assert!(!is_stranded(&again));
}
