//! The disk fails at every one of its operations, in every way, and the power goes at any moment.

use stockmesh::storage::{FaultMode, FaultyDisk};
use stockmesh::{CloseError, DamagePolicy, Durability, OpenError, Store, WriteError};

use crate::model::{Model, add, perform};
use crate::script::{Known, Step, mixed, refused_writes};

const MODES: [FaultMode; 3] = [FaultMode::Once, FaultMode::Forever, FaultMode::ShortWrite];
/// Losses of power that are tried after each failure.
const POWER_LOSSES: u64 = 3;

/// The two disks of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disks {
    pub(crate) store: FaultyDisk,
    pub(crate) mark: FaultyDisk,
}

impl Disks {
    /// What is left after a kill, or after a loss of power that the seed describes.
    pub(crate) fn left(&self, power_loss: Option<u64>) -> Self {
        let image = |disk: &FaultyDisk| power_loss.map_or_else(|| disk.kill(), |seed| disk.crash(seed));
        Self { store: FaultyDisk::from_image(image(&self.store)), mark: FaultyDisk::from_image(image(&self.mark)) }
    }

    pub(crate) async fn open(&self) -> Result<Store, OpenError> {
        let disks = (Box::new(self.store.clone()), Box::new(self.mark.clone()));
        Store::builder().disks(disks.0, disks.1).shards(4).damage(DamagePolicy::Refuse).open().await
    }
}

/// Opens what is left and holds it against what was answered; then goes on writing, and opens once more.
pub(crate) async fn check_left(disks: &Disks, known: &Known, context: &str) {
    let store = disks.open().await.unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = Model::of(&store);
    assert!(known.either().contains(&found), "{context}: found {found:#?}, known {known:#?}");
    let status = store.status();
    assert_eq!(status.former_replicas, [], "{context}");
    if found == known.acknowledged && known.indeterminate.is_empty() {
        assert_eq!(status.fingerprint, known.fingerprint, "{context}");
    }
    // The next own write must not use a number again, nor leave one out.
    let more = vec![add("MUG", 1), add("AFTERWARDS", 1)];
    perform(&store, &more).await.unwrap_or_else(|error| panic!("{context}: {error}"));
    let (expected, fingerprint) = (found.with(&[more]), store.status().fingerprint);
    store.close().await.unwrap();
    let store = disks.open().await.unwrap_or_else(|error| panic!("{context}, opened again: {error}"));
    assert_eq!((Model::of(&store), store.status().fingerprint), (expected, fingerprint), "{context}");
    store.close().await.unwrap();
}

/// Runs the steps on a disk that fails at its `nth` operation. Returns false if the script ended before.
async fn run_with_fault(disks: &Disks, steps: &[Step], nth: u64, mode: FaultMode) -> Option<Known> {
    let context = format!("operation {nth} fails, {mode:?}");
    let store = disks.open().await.unwrap();
    let mut known = Known { acknowledged: Model::of(&store), ..Known::default() };
    known.fingerprint = store.status().fingerprint;
    let last = disks.store.operations() + nth;
    disks.store.fail_at(nth, mode);
    for step in steps {
        known.run(&store, step).await;
    }
    if let Durability::Poisoned { .. } = store.status().durability {
        check_poisoned(&store, &known, &context).await;
    } else {
        assert!(known.indeterminate.is_empty() && known.refused == 0, "{context}: {known:?}");
    }
    let reached = disks.store.operations() >= last;
    drop(store.close().await);
    disks.store.heal();
    reached.then_some(known)
}

/// A store whose disk failed: reads go on, writes are refused and change nothing.
async fn check_poisoned(store: &Store, known: &Known, context: &str) {
    let before = Model::of(store);
    assert!(known.either().contains(&before), "{context}");
    let answer = perform(store, &vec![add("MUG", 1)]).await;
    assert!(matches!(answer, Err(WriteError::Poisoned { .. })), "{context}: {answer:?}");
    assert_eq!(Model::of(store), before, "{context}");
    assert!(matches!(store.close().await, Err(CloseError::Poisoned { .. })), "{context}");
    let answer = perform(store, &vec![add("MUG", 1)]).await;
    assert!(matches!(answer, Err(WriteError::Poisoned { .. } | WriteError::Closed)), "{context}: {answer:?}");
    assert_eq!(Model::of(store), before, "{context}");
}

/// Kills and losses of power after a run.
async fn check_all_left(disks: &Disks, known: &Known, nth: u64, mode: FaultMode) -> u32 {
    let context = format!("operation {nth} fails, {mode:?}");
    check_left(&disks.left(None), known, &format!("{context}, killed")).await;
    for seed in 0..POWER_LOSSES {
        let seed = nth * 31 + seed;
        check_left(&disks.left(Some(seed)), known, &format!("{context}, power loss {seed}")).await;
    }
    1 + POWER_LOSSES as u32
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_whatever_operation_of_the_disk_fails() {
    let (mut images, mut runs, mut unsure) = (0, 0, 0);
    for mode in MODES {
        for nth in 1.. {
            let disks = Disks::default();
            disks.open().await.unwrap().close().await.unwrap();
            let Some(known) = run_with_fault(&disks, &mixed(), nth, mode).await else { break };
            images += check_all_left(&disks, &known, nth, mode).await;
            runs += 1;
            unsure += usize::from(!known.indeterminate.is_empty());
        }
    }
    println!("{runs} failures, {unsure} with indeterminate writes, {images} images");
    assert!(runs > 100 && unsure > 50, "{runs} failures, {unsure} with indeterminate writes");
}

#[tokio::test]
async fn a_store_that_cannot_be_made_or_opened_is_whole_the_next_time() {
    for mode in MODES {
        let (mut failed, mut has_ended) = (0, false);
        for nth in 1..64 {
            let disks = Disks::default();
            disks.store.fail_at(nth, mode);
            let opened = disks.open().await;
            let made = opened.is_ok();
            drop(opened);
            if made && disks.store.operations() < nth {
                has_ended = true;
                break;
            }
            failed += usize::from(!made);
            disks.store.heal();
            // What was being made held nothing yet, so it may be there or not; in the way it must not be.
            let left = disks.left(None);
            match left.open().await {
                Ok(store) => assert_eq!(Model::of(&store), Model::default()),
                Err(error) => assert!(!made, "operation {nth}, {mode:?}: {error}"),
            }
        }
        assert!(has_ended && failed > 0, "each operation failed once, and some of them mattered: {failed}");
    }
}

#[tokio::test]
async fn a_failing_mark_costs_no_write() {
    for mode in MODES {
        for nth in 1..8 {
            let disks = Disks::default();
            let store = disks.open().await.unwrap();
            disks.mark.fail_at(nth, mode);
            let mut known = Known::default();
            for step in mixed() {
                known.run(&store, &step).await;
            }
            assert!(known.indeterminate.is_empty() && known.refused == 0, "the mark is no part of a commit");
            drop(store.close().await);
            disks.mark.heal();
            check_all_left(&disks, &known, nth, mode).await;
        }
    }
}

#[tokio::test]
async fn a_refused_write_changes_nothing_here_or_on_disk() {
    let disks = Disks::default();
    let store = disks.open().await.unwrap();
    let mut known = Known::default();
    for step in mixed() {
        known.run(&store, &step).await;
    }
    let batch = store.status().last_batch;
    refused_writes(&store).await;
    assert_eq!(store.status().last_batch, batch);
    store.close().await.unwrap();
    check_left(&disks.left(None), &known, "after refused writes").await;
}

/// Steps whose journal exceeds 16 MB, so that shards are folded in the commits at the end.
fn voluminous() -> Vec<Step> {
    let batch = |units| {
        let sku = |number| format!("{number:04}-{}", "v".repeat(120));
        (0..5_000).map(|number| add(sku(number), units)).collect()
    };
    (1..=3).map(|units| vec![batch(units)]).chain(mixed()).collect()
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_when_the_disk_fails_while_the_journal_is_folded() {
    // Most of the journal is made once; each run starts from there.
    let prepared = Disks::default();
    let store = prepared.open().await.unwrap();
    let steps = voluminous();
    let mut units = 10;
    while store.status().journal_bytes < 14 << 20 {
        let batch: Vec<_> = steps[0][0]
            .iter()
            .map(|change| match change {
                crate::model::Change::Add(sku, _) => add(sku.clone(), units),
                other => other.clone(),
            })
            .collect();
        perform(&store, &batch).await.unwrap();
        units += 1;
    }
    let journal_bytes = store.status().journal_bytes;
    store.close().await.unwrap();
    let whole = prepared.left(None);
    let before = whole.store.operations();
    assert!(run_with_fault(&whole, &steps, u64::MAX / 2, FaultMode::Once).await.is_none());
    let operations = whole.store.operations() - before;
    let folded = whole.left(None).open().await.unwrap().status().journal_bytes;
    assert!(folded < journal_bytes, "the script must fold: {journal_bytes} and then {folded} bytes of journal");
    for (number, mode) in MODES.into_iter().cycle().take(6).enumerate() {
        let nth = 1 + operations * number as u64 / 6 + number as u64;
        let disks = prepared.left(None);
        let known = run_with_fault(&disks, &steps, nth, mode).await.unwrap();
        check_left(&disks.left(None), &known, &format!("operation {nth} fails, {mode:?}, killed")).await;
        check_left(&disks.left(Some(nth)), &known, &format!("operation {nth} fails, {mode:?}, power loss")).await;
    }
}
