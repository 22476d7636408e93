//! What recovery makes of a damaged ledger.

use stockmesh_proto::Sku;
use stockmesh_proto::movement::{Movement, MovementKind};
use stockmesh_proto::wire::{LedgerPart, LedgerRecord, LedgerRequest};

use super::*;

mod rows;

fn wanted() -> Wanted {
    Wanted {
        cluster: ClusterId::new("shop").unwrap(),
        shards: ShardCount::new(1).unwrap(),
        location: Location::new("here").unwrap(),
        references: (u64::MAX, usize::MAX),
        restored: false,
    }
}

fn recover(directory: &DataDirectory, policy: DamagePolicy) -> Result<Engine, OpenError> {
    recover_directory(directory, &wanted(), policy).map(|recovered| recovered.engine)
}

/// Entries that are found again among the bytes of a file; every third takes more than a row.
fn entry(number: u8) -> Vec<u8> {
    let movement = Movement {
        sku: Sku::new(&name(number)).unwrap(),
        location: Location::new("here").unwrap(),
        kind: MovementKind::Received,
        quantity: 1,
    };
    let movements = vec![movement; if number.is_multiple_of(3) { 1000 } else { 1 }];
    let request = LedgerRequest { reference: None, content: None, outcomes: Vec::new(), movements };
    let part = LedgerPart { replica: ReplicaId::from_random(1), requests: vec![request] };
    LedgerRecord { time_ms: 0, references_back: 0, parts: vec![part] }.encode().unwrap()
}

/// A name that no other bytes of the file look like.
fn name(number: u8) -> String {
    char::from(b'a' + number).to_string().repeat(64)
}

fn ledger(engine: &Engine) -> Vec<Vec<u8>> {
    let page = engine.ledger().unwrap().read(0, usize::MAX).unwrap();
    let (numbers, payloads): (Vec<u64>, Vec<_>) = page.into_iter().unzip();
    assert!(numbers.into_iter().eq(1..=engine.figures().last_ledger), "numbered anew");
    payloads
}

#[test]
fn a_new_store_takes_over_the_ledger_but_for_what_is_lost_of_it() {
    for lost in [3, 6, 9, 10] {
        let root = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(root.path()).unwrap();
        let mut engine = recover(&directory, DamagePolicy::Refuse).unwrap();
        for number in 1..=10 {
            // The first are gone by the time of the damage.
            let drop_ledger_through = (number == 5).then_some(2);
            let ledger = Some(entry(number));
            engine.commit(&Transaction { ledger, drop_ledger_through, ..Transaction::default() }).unwrap();
        }
        drop(engine);
        let path = root.path().join("store.redb");
        let mut image = std::fs::read(&path).unwrap();
        // Freed pages keep older copies, so all of them are damaged.
        let damaged: Vec<usize> =
            (0..image.len() - 64).filter(|offset| image[*offset..*offset + 64] == *name(lost).as_bytes()).collect();
        damaged.into_iter().for_each(|offset| image[offset] ^= 1);
        std::fs::write(&path, &image).unwrap();
        let refused = recover(&directory, DamagePolicy::Refuse);
        assert!(matches!(refused, Err(OpenError::Damaged { .. })), "{lost}");
        let engine = recover(&directory, DamagePolicy::NewIncarnation).unwrap();
        let saved: Vec<_> = (3..=10).filter(|number| *number != lost).map(entry).collect();
        assert_eq!(ledger(&engine), saved, "{lost}");
        drop(engine);
        let engine = recover(&directory, DamagePolicy::Refuse).unwrap();
        assert_eq!(ledger(&engine), saved, "{lost}");
    }
}

#[test]
fn damage_to_the_ledger_alone_costs_no_shard_its_vector() {
    let mut engine = Engine::create(
        Box::new(crate::storage::MemoryDisk::new()),
        Box::new(crate::storage::MemoryDisk::new()),
        Mark::default(),
    )
    .unwrap();
    let mut loaded = Loaded::read(&mut engine, wanted().shards).unwrap();
    loaded.note(&Damage::LedgerRow { number: 1, part: 0, why: String::new() });
    loaded.note(&Damage::LedgerGap { from: 1, to: 2 });
    assert_eq!((loaded.damage.len(), loaded.lossy.len()), (2, 0));
    loaded.note(&Damage::JournalGap { from: 1, to: 2 });
    assert_eq!(loaded.lossy.len(), 1);
}
