//! The ledger: order, drops, damage, rollbacks, views beside commits, and stores from before it was.

use std::sync::Arc;

use redb::{ReadableTable, TableHandle};

use super::*;

const LARGE: usize = ROW_PAYLOAD_BYTES_MAX * 2 + 5;

fn appending(number: u64, length: usize) -> Transaction {
    Transaction { ledger: entry(number, length), ..Transaction::default() }
}

fn dropping(through: u64) -> Transaction {
    Transaction { drop_ledger_through: Some(through), ..Transaction::default() }
}

/// The length that an entry has here: some are empty, some take more than a row.
fn length(number: u64) -> usize {
    [40, 0, LARGE, 9000][usize::try_from(number % 4).unwrap()]
}

/// A store with this many entries in its ledger, and no batch.
fn filled(count: u64) -> (FaultyDisk, FaultyDisk, Engine) {
    let (store, mark, mut engine) = create();
    for number in 1..=count {
        assert_eq!(engine.commit(&appending(number, length(number))).unwrap().last_ledger, number);
    }
    (store, mark, engine)
}

fn expected(numbers: std::ops::RangeInclusive<u64>) -> Vec<(u64, Vec<u8>)> {
    numbers.map(|number| (number, entry(number, length(number)).unwrap())).collect()
}

fn read_all(view: &LedgerView) -> Vec<(u64, Vec<u8>)> {
    view.read(0, usize::MAX).unwrap()
}

/// Opens what these disks hold, which must be intact.
fn reopen(store: Vec<u8>, mark: Vec<u8>) -> (Engine, LoadReport) {
    let mut engine = open(store, mark).unwrap();
    let report = load(&mut engine).unwrap().1;
    assert_eq!(report.damage, []);
    (engine, report)
}

/// Changes the tables behind the engine's back.
fn meddle(engine: &Engine, change: impl FnOnce(&redb::WriteTransaction)) {
    let write = engine.database.as_ref().unwrap().begin_write().unwrap();
    change(&write);
    write.commit().unwrap();
}

fn flip_row(engine: &Engine, key: (u64, u16), bit: usize) {
    meddle(engine, |write| {
        let mut ledger = write.open_table(write::LEDGER).unwrap();
        let mut row = ledger.get(key).unwrap().unwrap().value().to_vec();
        row[bit / 8] ^= 1 << (bit % 8);
        ledger.insert(key, row.as_slice()).unwrap();
    });
}

#[test]
fn entries_come_back_in_order_and_numbering_goes_on() {
    let (store, mark, mut engine) = filled(9);
    assert_eq!(read_all(&engine.ledger().unwrap()), expected(1..=9));
    assert!(matches!(
        open(store.kill(), mark.kill()).unwrap().ledger(),
        Err(StorageError::Refused(Refusal::NotLoaded))
    ));
    engine.commit(&Transaction::default()).unwrap();
    drop(engine);
    let (mut engine, report) = reopen(store.kill(), mark.kill());
    assert_eq!((report.first_ledger, report.last_ledger), (Some(1), 9));
    let view = engine.ledger().unwrap();
    assert_eq!((view.first(), view.last()), (Some(1), 9));
    assert_eq!(read_all(&view), expected(1..=9));
    let figures = engine.commit(&appending(10, length(10))).unwrap();
    assert_eq!((figures.first_ledger, figures.last_ledger), (Some(1), 10));
    assert_eq!(engine.ledger().unwrap().read(10, 0).unwrap(), expected(10..=10));
}

#[test]
fn a_page_closes_behind_its_target_and_is_never_empty_before_the_end() {
    let (_, _, engine) = filled(9);
    let view = engine.ledger().unwrap();
    for target in [0, 1, 39, 40, 9000, LARGE, LARGE + 9000, usize::MAX] {
        let (mut all, mut from) = (Vec::new(), 1);
        while from <= view.last() {
            let page = view.read(from, target).unwrap();
            let before_last: usize = page[..page.len() - 1].iter().map(|(_, payload)| payload.len().max(1)).sum();
            let bytes = before_last + page.last().unwrap().1.len().max(1);
            assert!(before_last <= target, "closed once exceeded");
            from = page.last().unwrap().0 + 1;
            assert!(bytes > target || from == 10, "and not before");
            all.extend(page);
        }
        assert_eq!(all, expected(1..=9), "{target}");
    }
    assert_eq!(view.read(10, usize::MAX).unwrap(), []);
    assert_eq!(view.read(u64::MAX, usize::MAX).unwrap(), []);
}

#[test]
fn what_was_dropped_stays_dropped() {
    let (store, mark, mut engine) = filled(6);
    let ahead = engine.commit(&dropping(7));
    assert!(matches!(ahead, Err(StorageError::Refused(Refusal::DropLedgerAhead { through: 7, newest: 6 }))));
    assert_eq!(engine.commit(&dropping(3)).unwrap().first_ledger, Some(4));
    assert_eq!(engine.commit(&dropping(2)).unwrap().first_ledger, Some(4), "what is dropped does not come back");
    assert_eq!(read_all(&engine.ledger().unwrap()), expected(4..=6));
    drop(engine);
    let (mut engine, report) = reopen(store.kill(), mark.kill());
    assert_eq!((report.first_ledger, report.last_ledger), (Some(4), 6));
    assert_eq!(read_all(&engine.ledger().unwrap()), expected(4..=6));
    // Its own entry too: nothing is left but the number.
    engine.commit(&Transaction { drop_ledger_through: Some(7), ..appending(7, 80) }).unwrap();
    let image = engine_image(engine);
    let (mut engine, report) = reopen(image, Vec::new());
    assert_eq!((report.first_ledger, report.last_ledger), (None, 7));
    let view = engine.ledger().unwrap();
    assert_eq!((view.first(), view.last(), read_all(&view)), (None, 7, Vec::new()));
    assert_eq!(engine.commit(&appending(8, length(8))).unwrap().last_ledger, 8);
    assert_eq!(read_all(&engine.ledger().unwrap()), expected(8..=8));
}

/// Closes an engine and takes what its disk holds.
fn engine_image(engine: Engine) -> Vec<u8> {
    let disk = engine.disk();
    drop(engine);
    let mut image = vec![0; usize::try_from(disk.len().unwrap()).unwrap()];
    disk.read(0, &mut image).unwrap();
    image
}

#[test]
fn a_flipped_bit_in_a_row_is_an_error_that_names_the_entry() {
    // The second entry is of one row, the third of three.
    for (key, bits) in [((2, 0), 42 * 8), ((3, 0), ROW_BYTES_MAX * 8), ((3, 2), 47 * 8)] {
        let (_, _, mut engine) = create();
        for (number, bytes) in [(1, 10), (2, 0), (3, LARGE), (4, 20), (5, 30)] {
            engine.commit(&appending(number, bytes)).unwrap();
        }
        // Every bit of a small row, and some of a large one.
        for bit in (0..bits).step_by(1 + bits / 400) {
            flip_row(&engine, key, bit);
            let view = engine.ledger().unwrap();
            let before = view.read(1, usize::MAX).unwrap();
            assert_eq!(before.last().unwrap().0, key.0 - 1, "what is intact before it comes first");
            let error = view.read(key.0, usize::MAX).unwrap_err();
            assert!(
                matches!(error, StorageError::LedgerEntry { number, part, .. } if (number, part) == key),
                "bit {bit} of {key:?}: {error}"
            );
            let behind = view.read(key.0 + 1, usize::MAX).unwrap();
            assert_eq!(behind.iter().map(|(number, _)| *number).collect::<Vec<_>>(), Vec::from_iter(key.0 + 1..=5));
            assert_eq!(view.salvage::<StorageError>(|_, _| Ok(())).unwrap(), 1);
            flip_row(&engine, key, bit);
        }
        assert_eq!(engine.ledger().unwrap().read(1, usize::MAX).unwrap().len(), 5, "flipped back");
        assert_eq!(load(&mut engine).unwrap().1.damage, []);
    }
}

#[test]
fn a_newest_entry_that_cannot_be_read_is_damage_at_open() {
    for part in 0..3 {
        let (store, mark, mut engine) = filled(5);
        engine.commit(&appending(6, LARGE)).unwrap();
        flip_row(&engine, (6, part), 300);
        drop(engine);
        let mut engine = open(store.kill(), mark.kill()).unwrap();
        let (content, report) = load(&mut engine).unwrap();
        let damage = report.damage.as_slice();
        // Nothing else bears witness of the last commit, so the mark misses it as well.
        assert!(
            matches!(damage, [Damage::LedgerRow { number: 6, part: p, .. }, Damage::RolledBack { .. }] if *p == part)
        );
        assert_eq!(content.ledger, expected(1..=5).into_iter().collect());
        assert!(matches!(engine.commit(&appending(7, 1)), Err(StorageError::Refused(Refusal::Damaged))));
    }
}

#[test]
fn lost_rows_are_noticed_at_the_ends_when_opened_and_elsewhere_when_read() {
    let damage_after = |change: &dyn Fn(&redb::WriteTransaction)| {
        let (_, _, mut engine) = filled(3);
        engine.commit(&dropping(1)).unwrap();
        for number in 4..=7 {
            engine.commit(&appending(number, length(number))).unwrap();
        }
        meddle(&engine, change);
        let damage = engine.load(&mut |_| ()).unwrap().damage;
        (engine, damage)
    };
    let without = |numbers: std::ops::RangeInclusive<u64>| {
        damage_after(&|write| {
            let mut ledger = write.open_table(write::LEDGER).unwrap();
            ledger.retain_in((*numbers.start(), 0)..=(*numbers.end(), u16::MAX), |_, _| false).unwrap();
        })
    };
    assert_eq!(without(2..=4).1, [Damage::LedgerGap { from: 2, to: 4 }]);
    assert!(without(6..=7).1.contains(&Damage::LedgerGap { from: 6, to: 7 }));
    assert!(without(2..=7).1.contains(&Damage::LedgerGap { from: 2, to: 7 }));
    let (engine, damage) = without(4..=5);
    assert_eq!(damage, [], "only the ends are looked at");
    let view = engine.ledger().unwrap();
    assert_eq!(view.read(2, usize::MAX).unwrap(), expected(2..=3));
    assert!(matches!(view.read(4, 0), Err(StorageError::LedgerGap { from: 4, to: 5 })));
    assert!(matches!(view.read(5, 0), Err(StorageError::LedgerGap { from: 5, to: 5 })));
    assert_eq!(view.read(6, usize::MAX).unwrap(), expected(6..=7));
    let mut saved = Vec::new();
    let lost_count = view.salvage::<StorageError>(|number, payload| {
        saved.push((number, payload));
        Ok(())
    });
    assert_eq!((lost_count.unwrap(), saved.len()), (2, 4));
    let (engine, damage) = damage_after(&|write| {
        let mut ledger = write.open_table(write::LEDGER).unwrap();
        let row = ledger.get((4, 0)).unwrap().unwrap().value().to_vec();
        ledger.insert((5, 0), row.as_slice()).unwrap();
        drop(ledger.remove((6, 1)).unwrap());
    });
    assert_eq!(damage, []);
    let view = engine.ledger().unwrap();
    assert!(matches!(view.read(5, 0), Err(StorageError::LedgerEntry { number: 5, part: 0, .. })), "it lies elsewhere");
    let (_, damage) = damage_after(&|write| {
        drop(write.open_table(write::SETTINGS).unwrap().remove(write::LEDGER_DROPPED_KEY).unwrap());
    });
    assert!(matches!(damage.as_slice(), [Damage::SettingsRow { key, .. }] if key == write::LEDGER_DROPPED_KEY));
    let (_, damage) = damage_after(&|write| assert!(write.delete_table(write::LEDGER).unwrap()));
    assert!(matches!(damage.first(), Some(Damage::Engine(why)) if why == "the ledger is missing"));
}

#[test]
fn an_older_copy_is_noticed_by_ledger_entries_alone() {
    let (store, mark, mut engine) = filled(3);
    engine.commit(&batch(1, 10)).unwrap();
    let copy = store.crash(0);
    engine.commit(&appending(4, 10)).unwrap();
    drop(engine);
    let rolled_back = Damage::RolledBack { mark: Mark { commit: 6, batch: 1 }, last: Mark { commit: 5, batch: 1 } };
    assert_eq!(load(&mut open(copy, mark.kill()).unwrap()).unwrap().1.damage, [rolled_back]);
    // And the store that has the entry is not taken for an older one.
    assert_eq!(reopen(store.kill(), mark.kill()).1.last_commit, 6);
}

#[test]
fn a_view_reads_while_commits_go_on() {
    fn may_cross_threads<T: Send + 'static>(_: &T) {}
    let (store, mark, mut engine) = filled(20);
    let view = engine.ledger().unwrap();
    may_cross_threads(&view);
    let reader = std::thread::spawn(move || {
        for _ in 0..20 {
            let (mut all, mut from) = (Vec::new(), 1);
            while from <= view.last() {
                let page = view.read(from, 10_000).unwrap();
                from = page.last().unwrap().0 + 1;
                all.extend(page);
            }
            assert_eq!(all, expected(1..=20));
        }
    });
    for number in 21..=80 {
        // What the view shows is dropped under it.
        let drop_ledger_through = Some(number - 5);
        engine.commit(&Transaction { drop_ledger_through, ..appending(number, length(number)) }).unwrap();
    }
    reader.join().unwrap();
    assert_eq!(read_all(&engine.ledger().unwrap()), expected(76..=80));
    drop(engine);
    let (engine, _) = reopen(store.kill(), mark.kill());
    assert_eq!(read_all(&engine.ledger().unwrap()), expected(76..=80));
}

#[test]
fn a_view_that_outlives_its_engine_fails_cleanly_and_harms_nothing() {
    let (store, mark, mut engine) = filled(20);
    let view = engine.ledger().unwrap();
    assert_eq!(view.read(1, 0).unwrap(), expected(1..=1));
    // Pages that the view pins are freed, so that closing must leave them for the next open.
    engine.commit(&Transaction { drop_ledger_through: Some(15), ..appending(21, length(21)) }).unwrap();
    drop(engine);
    assert!(matches!(view.read(1, usize::MAX), Err(StorageError::Closed)));
    let image = store.kill();
    let (mut engine, report) = reopen(image.clone(), mark.kill());
    assert_eq!((report.first_ledger, report.last_ledger), (Some(16), 21));
    engine.commit(&appending(22, length(22))).unwrap();
    assert_eq!(read_all(&engine.ledger().unwrap()), expected(16..=22));
    assert!(matches!(view.read(2, 0), Err(StorageError::Closed)));
    drop(view);
    assert!(store.kill() == image, "the end of a view writes nothing");
}

/// A store whose ledger is more than the engine keeps in memory: 24 entries of a megabyte.
fn huge() -> (FaultyDisk, FaultyDisk, Engine) {
    let (store, mark, mut engine) = create();
    for _ in 0..24 {
        engine.commit(&Transaction { ledger: Some(vec![1; 1 << 20]), ..Transaction::default() }).unwrap();
    }
    (store, mark, engine)
}

#[test]
fn a_read_that_the_end_of_the_engine_overtakes_is_right_or_fails_cleanly() {
    let (_, _, engine) = huge();
    let mut view = engine.ledger().unwrap();
    drop(engine);
    // As if the engine had been closed just after the view asked whether it was.
    view.closed = Arc::default();
    let mut failed_count = 0;
    for number in 1..=24 {
        match view.read(number, 0) {
            Ok(page) => assert!(page == [(number, vec![1; 1 << 20])]),
            Err(error) => {
                assert!(matches!(error, StorageError::Closed), "{error:?}");
                failed_count += 1;
            }
        }
    }
    assert!(failed_count > 0);
}

#[test]
fn a_failed_disk_is_not_taken_for_lost_entries() {
    let (store, _, mut engine) = huge();
    let view = engine.ledger().unwrap();
    store.fail_at(1, FaultMode::Forever);
    engine.commit(&appending(25, 10)).unwrap_err();
    let failures = (1..=24).filter_map(|number| view.read(number, 0).err());
    let failed_count = failures.inspect(|error| assert!(matches!(error, StorageError::Disk(_)), "{error:?}")).count();
    assert!(failed_count > 0);
    let failure = view.salvage::<StorageError>(|_, _| Ok(())).unwrap_err();
    assert!(matches!(failure, StorageError::Disk(_)), "{failure:?}");
}

/// A store as it was before there was a ledger.
fn without_ledger() -> (FaultyDisk, FaultyDisk) {
    let (store, mark, mut engine) = create();
    engine.commit(&batch(1, 100)).unwrap();
    meddle(&engine, |write| {
        assert!(write.delete_table(write::LEDGER).unwrap());
        drop(write.open_table(write::SETTINGS).unwrap().remove(write::LEDGER_DROPPED_KEY).unwrap());
    });
    drop(engine);
    (store, mark)
}

#[test]
fn a_store_from_before_the_ledger_opens_and_gets_one_when_needed() {
    let changes: [(Transaction, u64, Option<u64>); 3] = [
        (appending(1, length(1)), 1, Some(1)),
        (dropping(0), 0, None),
        (Transaction { drop_ledger_through: Some(1), ..appending(1, 7) }, 1, None),
    ];
    for (change, last, first) in changes {
        let (store, mark) = without_ledger();
        let (mut engine, report) = reopen(store.kill(), mark.kill());
        assert_eq!((report.first_ledger, report.last_ledger), (None, 0));
        let view = engine.ledger().unwrap();
        assert_eq!((view.first(), view.last(), read_all(&view)), (None, 0, Vec::new()));
        // A commit that does not need it does not make it.
        engine.commit(&Transaction { settings: vec![("a".into(), Some(vec![1]))], ..batch(2, 5) }).unwrap();
        let (mut engine, _) = reopen(engine_image(engine), Vec::new());
        let tables = engine.begin_read().unwrap();
        assert!(tables.list_tables().unwrap().all(|table| table.name() != "ledger"));
        drop(tables);
        engine.commit(&change).unwrap();
        let (mut engine, report) = reopen(engine_image(engine), Vec::new());
        assert_eq!((report.first_ledger, report.last_ledger), (first, last));
        assert_eq!(engine.commit(&appending(last + 1, length(last + 1))).unwrap().last_ledger, last + 1);
        assert_eq!(engine.ledger().unwrap().read(last + 1, 0).unwrap(), expected(last + 1..=last + 1));
    }
}

#[test]
fn the_ledger_of_a_new_store_begins_at_one() {
    let after = Mark { commit: 90, batch: 40 };
    let mut engine = Engine::create(Box::new(MemoryDisk::new()), Box::new(MemoryDisk::new()), after).unwrap();
    let (_, report) = load(&mut engine).unwrap();
    assert_eq!((report.last_commit, report.last_ledger, report.first_ledger), (91, 0, None));
    assert_eq!(engine.commit(&appending(1, 5)).unwrap().last_ledger, 1);
}
