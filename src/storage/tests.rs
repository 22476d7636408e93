//! The promises of this layer, under faults, losses of power and damage.

mod ledger;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use redb::ReadableTable;

use super::*;

/// What a store holds, as delivered by a load or as it should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    settings: BTreeMap<String, Vec<u8>>,
    snapshots: BTreeMap<u16, Vec<u8>>,
    batches: BTreeMap<u64, Vec<u8>>,
    ledger: BTreeMap<u64, Vec<u8>>,
    last_ledger: u64,
}

impl Content {
    fn apply(&mut self, transaction: &Transaction) {
        if let Some(batch) = &transaction.batch {
            self.batches.insert(batch.number, batch.payload.clone());
        }
        for (shard, payload) in &transaction.snapshots {
            self.snapshots.insert(*shard, payload.clone());
        }
        if let Some(through) = transaction.drop_journal_through {
            self.batches.retain(|number, _| *number > through);
        }
        if let Some(payload) = &transaction.ledger {
            self.last_ledger += 1;
            self.ledger.insert(self.last_ledger, payload.clone());
        }
        if let Some(through) = transaction.drop_ledger_through {
            self.ledger.retain(|number, _| *number > through);
        }
        for (key, value) in &transaction.settings {
            match value {
                Some(value) => self.settings.insert(key.to_string(), value.clone()),
                None => self.settings.remove(key.as_ref()),
            };
        }
    }

    /// Whether everything here is also in `other`, unchanged.
    fn is_part_of(&self, other: &Self) -> bool {
        self.settings.iter().all(|(key, value)| other.settings.get(key) == Some(value))
            && self.snapshots.iter().all(|(key, value)| other.snapshots.get(key) == Some(value))
            && self.batches.iter().all(|(key, value)| other.batches.get(key) == Some(value))
            && self.ledger.iter().all(|(key, value)| other.ledger.get(key) == Some(value))
    }
}

fn load(engine: &mut Engine) -> Result<(Content, LoadReport), StorageError> {
    let mut content = Content::default();
    let report = engine.load(&mut |row| match row {
        StoredRow::Setting { key, value } => drop(content.settings.insert(key.to_owned(), value.to_vec())),
        StoredRow::Snapshot { shard, payload } => drop(content.snapshots.insert(shard, payload.to_vec())),
        StoredRow::Batch { number, payload } => drop(content.batches.insert(number, payload.to_vec())),
    })?;
    match engine.ledger() {
        Ok(view) => {
            let taken = view.salvage::<StorageError>(|number, payload| {
                content.ledger.insert(number, payload);
                Ok(())
            });
            let lost_count = taken.unwrap();
            assert!(lost_count == 0 || !report.damage.is_empty(), "lost only where there is damage");
        }
        Err(error) => assert!(!report.damage.is_empty(), "{error}"),
    }
    content.last_ledger = report.last_ledger;
    Ok((content, report))
}

fn payload(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let bytes = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[7]
    });
    bytes.take(length).collect()
}

fn batch(number: u64, length: usize) -> Transaction {
    Transaction { batch: Some(Batch { number, payload: payload(number, length) }), ..Transaction::default() }
}

/// How many transactions the script has.
const SCRIPT_COUNT: usize = 13;

fn entry(seed: u64, length: usize) -> Option<Vec<u8>> {
    Some(payload(seed + 2000, length))
}

/// Commits of every kind: small and large batches, snapshots that grow and shrink, settings, ledger entries with a batch
/// and without one, drops of the journal and of the ledger.
fn script() -> &'static [Transaction] {
    // Once: the payloads would take longer than all that is done with them.
    static SCRIPT: LazyLock<Vec<Transaction>> = LazyLock::new(write_script);
    &SCRIPT
}

fn write_script() -> Vec<Transaction> {
    let large = ROW_PAYLOAD_BYTES_MAX * 2 + 5;
    let snapshot = |shard: u16, length| (shard, payload(u64::from(shard) + 1000, length));
    let setting = |key: &'static str, value: Option<&[u8]>| (key.into(), value.map(<[u8]>::to_vec));
    vec![
        Transaction { ledger: entry(1, 50), ..batch(1, 60) },
        batch(2, 0),
        Transaction { ledger: entry(2, large), ..batch(3, large) },
        Transaction { settings: vec![setting("clock", Some(b"one")), setting("name", Some(b""))], ..batch(4, 6000) },
        Transaction { ledger: entry(3, 0), ..Transaction::default() },
        Transaction {
            snapshots: vec![snapshot(0, large), snapshot(7, 100)],
            drop_ledger_through: Some(1),
            ..Transaction::default()
        },
        Transaction {
            snapshots: vec![snapshot(0, 9000), snapshot(65535, 0)],
            drop_journal_through: Some(3),
            settings: vec![setting("clock", Some(b"two"))],
            ledger: entry(4, 700),
            ..batch(5, 100)
        },
        Transaction { settings: vec![setting("name", None)], ..Transaction::default() },
        Transaction { drop_journal_through: Some(5), ..Transaction::default() },
        Transaction { drop_ledger_through: Some(5), ledger: entry(5, 30), ..batch(6, 200) },
        Transaction { ledger: entry(6, large), ..Transaction::default() },
        Transaction { ledger: entry(7, 300), ..Transaction::default() },
        Transaction { snapshots: vec![snapshot(7, large)], ledger: entry(8, 5000), ..batch(7, 4000) },
    ]
}

/// The content after each number of transactions of the script.
fn history() -> &'static [Content] {
    static HISTORY: LazyLock<Vec<Content>> = LazyLock::new(|| {
        let mut present = Content::default();
        let mut history = vec![present.clone()];
        for transaction in script() {
            present.apply(transaction);
            history.push(present.clone());
        }
        history
    });
    &HISTORY
}

fn create() -> (FaultyDisk, FaultyDisk, Engine) {
    let (store, mark) = (FaultyDisk::new(), FaultyDisk::new());
    let mut engine = Engine::create(Box::new(store.clone()), Box::new(mark.clone()), Mark::default()).unwrap();
    engine.load(&mut |_| ()).unwrap();
    (store, mark, engine)
}

fn open(store: Vec<u8>, mark: Vec<u8>) -> Result<Engine, StorageError> {
    Engine::open(Box::new(MemoryDisk::from_image(store)), Box::new(MemoryDisk::from_image(mark)))
}

#[test]
fn everything_comes_back_and_numbering_goes_on() {
    let (store, mark, mut engine) = create();
    let script = script();
    let history = history();
    for (transaction, expected) in script.iter().zip(&history[1..]) {
        let figures = engine.commit(transaction).unwrap();
        let (content, report) = load(&mut engine).unwrap();
        assert_eq!((&content, report.damage.as_slice()), (expected, [].as_slice()));
        assert_eq!(report.last_commit, figures.commit);
        assert_eq!(report.last_batch, figures.last_batch);
        assert_eq!(report.oldest_batch, figures.oldest_batch);
        assert_eq!(report.journal_bytes, figures.journal_bytes);
        assert_eq!(report.oldest_batch, expected.batches.keys().next().copied());
        assert_eq!((report.last_ledger, report.first_ledger), (figures.last_ledger, figures.first_ledger));
        assert_eq!(report.first_ledger, expected.ledger.keys().next().copied());
    }
    drop(engine);
    let mut engine = open(store.kill(), mark.kill()).unwrap();
    assert!(matches!(engine.commit(&batch(8, 1)), Err(StorageError::Refused(Refusal::NotLoaded))));
    let (content, report) = load(&mut engine).unwrap();
    assert_eq!((&content, report.damage.as_slice()), (&history[SCRIPT_COUNT], [].as_slice()));
    let wrong = engine.commit(&batch(9, 1));
    assert!(matches!(wrong, Err(StorageError::Refused(Refusal::BatchNumber { expected: 8, found: 9 }))));
    engine.commit(&batch(8, 1)).unwrap();
}

/// Runs the script until it fails. Returns how many commits were confirmed, and the failure.
fn run(engine: &mut Engine, script: &[Transaction]) -> (usize, Option<StorageError>) {
    for (done, transaction) in script.iter().enumerate() {
        if let Err(error) = engine.commit(transaction) {
            return (done, Some(error));
        }
    }
    (script.len(), None)
}

/// Opens what is left and checks it against what was confirmed. Returns how many commits are there.
fn check_after(store: Vec<u8>, mark: Vec<u8>, done: usize, failure: Option<&StorageError>, what: &str) -> usize {
    let history = history();
    let mut engine = open(store, mark).unwrap_or_else(|error| panic!("{what}: {error}"));
    let (content, report) = load(&mut engine).unwrap();
    assert_eq!(report.damage, [], "{what}");
    let kept = if content == history[done] { done } else { done + 1 };
    assert_eq!(Some(&content), history.get(kept), "{what}: neither before nor after the failed commit");
    if !matches!(failure, Some(StorageError::Indeterminate { .. })) {
        assert_eq!(kept, done, "{what}: {failure:?}");
    }
    // And it works on.
    let (_, failure) = run(&mut engine, &script()[kept..]);
    assert!(failure.is_none(), "{what}: {failure:?}");
    assert_eq!(load(&mut engine).unwrap().0, history[SCRIPT_COUNT], "{what}");
    kept
}

#[test]
fn a_fault_at_any_operation_takes_no_confirmed_commit() {
    let (store, _, mut engine) = create();
    let before = store.operations();
    assert_eq!(run(&mut engine, script()).0, SCRIPT_COUNT);
    let operation_count = store.operations() - before;
    assert!(operation_count > 30);
    let mut indeterminate_count = 0;
    for nth in 1..=operation_count {
        for mode in [FaultMode::Once, FaultMode::Forever, FaultMode::ShortWrite] {
            let what = format!("operation {nth} {mode:?}");
            let (store, mark, mut engine) = create();
            store.fail_at(nth, mode);
            let (done, failure) = run(&mut engine, script());
            let failure = failure.unwrap_or_else(|| panic!("{what} went unnoticed"));
            indeterminate_count += usize::from(matches!(failure, StorageError::Indeterminate { .. }));
            let again = engine.commit(&script()[done]);
            assert!(matches!(again, Err(StorageError::Poisoned { .. })), "{what}: {again:?}");
            drop(engine);
            check_after(store.kill(), mark.kill(), done, Some(&failure), &what);
            for seed in 0..8 {
                check_after(store.crash(seed), mark.crash(seed), done, Some(&failure), &what);
            }
        }
    }
    assert!(indeterminate_count > 0);
}

#[test]
fn a_loss_of_power_takes_no_confirmed_commit() {
    let operation_count = 100;
    let (mut before, mut after) = (0, 0);
    for nth in 1..=operation_count {
        let (store, mark, mut engine) = create();
        // Power goes while this operation is under way; what the engine does after that does not reach the disk.
        store.fail_at(nth, FaultMode::Forever);
        let (done, failure) = run(&mut engine, script());
        drop(engine);
        for seed in 0..24 {
            let what = format!("operation {nth} seed {seed}");
            let kept = check_after(store.crash(seed), mark.crash(seed + 1000), done, failure.as_ref(), &what);
            *if kept == done { &mut before } else { &mut after } += 1;
        }
    }
    assert!(before > 0 && after > 0, "both outcomes occur: {before} and {after}");
}

#[test]
fn a_kill_after_any_commit_takes_nothing() {
    let (store, mark, mut engine) = create();
    for (done, transaction) in script().iter().enumerate() {
        engine.commit(transaction).unwrap();
        check_after(store.kill(), mark.kill(), done + 1, None, "killed");
        check_after(store.crash(done as u64), mark.crash(1), done + 1, None, "powered off");
    }
}

/// What became of a damaged store: `None` if nothing was noticed and nothing is wrong.
fn judge_damaged(store: Vec<u8>, mark: Vec<u8>, expected: &Content, what: &str) -> Option<String> {
    let mut engine = match open(store.clone(), mark) {
        Ok(engine) => engine,
        Err(error) => return Some(error.to_string()),
    };
    let (content, report) = load(&mut engine).unwrap_or_else(|error| panic!("{what}: {error}"));
    let Some(damage) = report.damage.first() else {
        assert_eq!(&content, expected, "{what}: silently wrong");
        return None;
    };
    let refused = engine.commit(&batch(report.last_batch + 1, 1));
    assert!(matches!(refused, Err(StorageError::Refused(Refusal::Damaged))), "{what}");
    // A rollback delivers the older state; everything else must deliver what is still right, and only that.
    let rolled_back = report.damage.iter().any(|damage| matches!(damage, Damage::RolledBack { .. }));
    assert!(rolled_back || content.is_part_of(expected), "{what}: {damage}");
    Some(damage.to_string())
}

fn flip_everywhere(image: &[u8], mark: &[u8], step: usize, clean: &str) {
    let expected = &history()[SCRIPT_COUNT];
    assert_eq!(judge_damaged(image.to_vec(), mark.to_vec(), expected, clean), None);
    let mut noticed_count = 0;
    for offset in (0..image.len()).step_by(step) {
        let disk = FaultyDisk::from_image(image.to_vec());
        disk.flip(offset as u64, offset.to_le_bytes()[0] % 8);
        let what = format!("{clean}, flip at {offset} of {}", image.len());
        noticed_count += usize::from(judge_damaged(disk.kill(), mark.to_vec(), expected, &what).is_some());
    }
    assert!(noticed_count > 10, "{clean}: {noticed_count}");
}

/// The bytes that are not zero are where the data is, most of an engine's file being free.
fn flip_data(image: &[u8], mark: &[u8], count: usize, clean: &str) {
    let expected = &history()[SCRIPT_COUNT];
    let offsets: Vec<usize> = (0..image.len()).filter(|offset| image[*offset] != 0).collect();
    let mut noticed_count = 0;
    for offset in offsets.iter().step_by(offsets.len() / count) {
        let disk = FaultyDisk::from_image(image.to_vec());
        disk.flip(*offset as u64, offset.to_le_bytes()[0] % 8);
        let what = format!("{clean}, flip at {offset}");
        noticed_count += usize::from(judge_damaged(disk.kill(), mark.to_vec(), expected, &what).is_some());
    }
    assert!(noticed_count > count / 10, "{clean}: {noticed_count} of {count}");
}

#[test]
fn a_flipped_bit_is_noticed_or_without_effect() {
    let (store, mark, mut engine) = create();
    assert_eq!(run(&mut engine, script()).0, SCRIPT_COUNT);
    let killed = store.kill();
    drop(engine);
    let closed = store.kill();
    for (image, name) in [(&closed, "closed"), (&killed, "killed")] {
        flip_data(image, &mark.kill(), 400, name);
        // The header, all of it: it has the engine's roots and its choice between two commits.
        flip_everywhere(&image[..], &mark.kill(), image.len() / 100, name);
        let expected = &history()[SCRIPT_COUNT];
        for offset in 0..512 {
            let mut damaged = image.clone();
            damaged[offset] ^= 1 << (offset % 8);
            judge_damaged(damaged, mark.kill(), expected, &format!("{name}, header flip at {offset}"));
        }
    }
}

#[test]
fn a_damaged_store_can_be_looked_at_again() {
    let (store, mark, mut engine) = create();
    assert_eq!(run(&mut engine, script()).0, SCRIPT_COUNT);
    drop(engine);
    let image = store.kill();
    let wanted = payload(7, 4000);
    let offset = image.windows(100).position(|bytes| bytes == &wanted[..100]).unwrap();
    store.flip(offset as u64, 0);
    let look = || {
        let mut engine = Engine::open(Box::new(store.clone()), Box::new(mark.clone())).unwrap();
        load(&mut engine).unwrap()
    };
    let damaged = store.kill();
    let (content, report) = look();
    assert!(store.kill() == damaged, "looking changes nothing");
    assert!(report.damage.iter().any(|damage| matches!(damage, Damage::JournalRow { number: 7, part: 0, .. })));
    assert_eq!(content.batches.keys().copied().collect::<Vec<_>>(), [6], "the intact batch is delivered");
    assert_eq!(content.snapshots, history()[SCRIPT_COUNT].snapshots);
    assert_eq!(look(), (content, report));
}

/// What a load reports after something was taken out of the tables behind the engine's back.
fn damage_after(meddle: impl FnOnce(&redb::WriteTransaction)) -> Vec<Damage> {
    let (_, _, mut engine) = create();
    for number in 1..=5 {
        engine.commit(&batch(number, ROW_PAYLOAD_BYTES_MAX + 1)).unwrap();
    }
    let write = engine.database.as_ref().unwrap().begin_write().unwrap();
    meddle(&write);
    write.commit().unwrap();
    load(&mut engine).unwrap().1.damage
}

#[test]
fn a_lost_row_is_noticed_wherever_it_was() {
    let drop_batches = |range: std::ops::RangeInclusive<u64>| {
        damage_after(|write| {
            let mut journal = write.open_table(write::JOURNAL).unwrap();
            journal.retain_in((*range.start(), 0)..=(*range.end(), u16::MAX), |_, _| false).unwrap();
        })
    };
    assert_eq!(drop_batches(1..=2), [Damage::JournalGap { from: 1, to: 2 }]);
    assert_eq!(drop_batches(3..=4), [Damage::JournalGap { from: 3, to: 4 }]);
    let rolled_back =
        |commit, batch| Damage::RolledBack { mark: Mark { commit: 6, batch: 5 }, last: Mark { commit, batch } };
    // The mark that was found at open is behind by then; what this process committed itself is not.
    assert_eq!(drop_batches(5..=5), [rolled_back(5, 4)]);
    assert_eq!(drop_batches(1..=5), [rolled_back(1, 0)]);
    let part = damage_after(|write| drop(write.open_table(write::JOURNAL).unwrap().remove((2, 1)).unwrap()));
    assert!(matches!(part.as_slice(), [Damage::JournalRow { number: 2, part: 1, .. }]));
    let setting =
        damage_after(|write| drop(write.open_table(write::SETTINGS).unwrap().remove(write::DROPPED_KEY).unwrap()));
    assert!(matches!(setting.as_slice(), [Damage::SettingsRow { .. }]));
    let swapped = damage_after(|write| {
        let mut journal = write.open_table(write::JOURNAL).unwrap();
        let row = journal.get((2, 0)).unwrap().unwrap().value().to_vec();
        journal.insert((3, 0), row.as_slice()).unwrap();
    });
    assert!(matches!(swapped.as_slice(), [Damage::JournalRow { number: 3, part: 0, .. }]));
}

#[test]
fn a_truncated_store_is_noticed() {
    let (store, mark, mut engine) = create();
    assert_eq!(run(&mut engine, script()).0, SCRIPT_COUNT);
    drop(engine);
    let expected = &history()[SCRIPT_COUNT];
    let image = store.kill();
    for sixteenth in 1..16 {
        let cut = image[..image.len() * sixteenth / 16].to_vec();
        let what = format!("{sixteenth} sixteenths");
        assert!(judge_damaged(cut, mark.kill(), expected, &what).is_some(), "{what}");
    }
}
