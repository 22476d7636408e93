//! Nodes that link over QUIC on this machine, and what they log.

use std::path::Path;
use std::sync::{LazyLock, Mutex, Once};
use std::time::{Duration, Instant};

use stockmesh::certificates::{Authority, Validity};
use stockmesh::{Builder, Identity, Store};

use crate::model::Model;

/// How long anything may take that should happen at once. Generous, since other tests run meanwhile.
pub(crate) const SOON: Duration = Duration::from_secs(20);

static AUTHORITY: LazyLock<Authority> =
    LazyLock::new(|| Authority::new("durability", Validity::from_days(90).unwrap()).unwrap());

/// A node of the cluster, without a place for its data yet.
pub(crate) fn node(name: &str) -> Builder {
    record_errors();
    let issued = AUTHORITY.issue(name, &[], Validity::from_days(60).unwrap()).unwrap();
    let parts = (AUTHORITY.certificate_pem(), &issued.certificate_pem, &issued.key_pem);
    let identity = Identity::from_pem_bytes(parts.0.as_bytes(), parts.1.as_bytes(), parts.2.as_bytes()).unwrap();
    let every = Duration::from_millis(50);
    Store::builder().identity(identity).listen("127.0.0.1:0".parse().unwrap()).reconcile_every(every).shards(4)
}

pub(crate) async fn node_at(name: &str, path: &Path) -> Store {
    node(name).data_dir(path).open().await.unwrap()
}

/// Has one node dial the other.
pub(crate) fn link(from: &Store, to: &Store) {
    from.add_peer(to.local_addr().unwrap().to_string()).unwrap();
}

/// Waits until the condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    // As under a sanitizer, where everything takes many times as long.
    let slowness = std::env::var("STOCKMESH_SLOWNESS").map_or(1, |times| times.parse().unwrap());
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SOON * slowness, "in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until all nodes hold the same, and returns it.
pub(crate) async fn converged(nodes: &[&Store]) -> Model {
    let same = || {
        let first = nodes[0].status().fingerprint;
        nodes.iter().all(|node| node.status().fingerprint == first)
    };
    until("all nodes hold the same", same).await;
    let model = Model::of(nodes[0]);
    assert!(nodes.iter().all(|node| Model::of(node) == model));
    model
}

/// Copies a directory of files.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in std::fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

/// Puts a copy of a directory in the place of what is there.
pub(crate) fn restore(copied: &Path, to: &Path) {
    std::fs::remove_dir_all(to).unwrap();
    copy(copied, to);
}

static ERRORS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whether an error was logged that names this.
pub(crate) fn was_logged(named: &str) -> bool {
    ERRORS.lock().unwrap().iter().any(|line| line.contains(named))
}

fn record_errors() {
    static BEGIN: Once = Once::new();
    BEGIN.call_once(|| tracing::subscriber::set_global_default(Recorder).unwrap());
}

/// Keeps what is logged at the level of errors and warnings.
struct Recorder;

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        use std::fmt::Write;
        write!(self.0, "{field}={value:?} ").unwrap();
    }
}

impl tracing::Subscriber for Recorder {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::ERROR && metadata.target().starts_with("stockmesh")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        ERRORS.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}
