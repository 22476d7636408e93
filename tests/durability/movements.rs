//! The ledger is what the counters are: after operations of every kind, failures and restarts. And it reads back as CSV.

use std::collections::BTreeMap;
use std::time::Duration;

use stockmesh::storage::FaultMode;
use stockmesh::{Movement, OversellPolicy, Reason, Store, WriteError};

use crate::chance::Chance;
use crate::faults::Disks;
use crate::gate::{Gate, GatedDisk};
use crate::model::price;

/// Names that need quotes in CSV, and some that do not.
const SKUS: [&str; 4] = ["MUG", "a,b", "5\" plate", "x,\"y\" z"];
const PLACES: [&str; 2] = ["main", "cellar, left"];

/// Does one operation of a random kind.
async fn operate(store: &Store, chance: &mut Chance) -> Result<(), WriteError> {
    let sku = SKUS[chance.below(4) as usize];
    let (place, other) = [(PLACES[0], PLACES[1]), (PLACES[1], PLACES[0])][chance.below(2) as usize];
    let mut product = store.product(sku)?.at(place)?;
    if chance.below(3) == 0 {
        product = product.reference(&format!("order, \"{}\"", chance.below(1_000_000)))?;
    }
    let units = 1 + chance.below(9);
    let ttl = Duration::from_millis(1 + chance.below(20));
    let held = store.holds();
    let hold = held.get(chance.below(8) as usize);
    match chance.below(12) {
        0..=2 => product.receive(units * 3).await,
        3 => product.try_sell(units).await,
        4 => product.sell(units).policy(OversellPolicy::Backorder).await,
        5 => product.adjust(-(units as i64), Reason::Damaged).await,
        6 => product.stocktake(chance.below(60)).await.map(drop),
        7 => product.transfer(place, other, units).await,
        8 => product.hold(units, ttl * 500).await.map(drop),
        9 => product.hold(units, ttl).await.map(drop),
        10 => match hold {
            Some(hold) if units > 5 => hold.release().await.map(drop),
            Some(hold) => hold.commit_part(units.min(hold.units())).await.map(drop),
            None => product.set_price(price(units)).await,
        },
        _ => {
            let batch = store.batch().at(place)?.receive(sku, units)?.sell(sku, 1)?.hold(SKUS[0], 1, ttl * 500)?;
            batch.commit().await.map(drop)
        }
    }
}

/// Counters by product and location: on hand and held.
type Sums = BTreeMap<(String, String), (i128, i128)>;

fn summed<'a>(movements: impl IntoIterator<Item = &'a Movement>) -> Sums {
    let mut sums = Sums::new();
    for movement in movements {
        let key = (movement.sku.as_str().to_owned(), movement.location.as_str().to_owned());
        let sum = sums.entry(key).or_default();
        sum.0 += i128::from(movement.on_hand());
        sum.1 += i128::from(movement.held());
    }
    sums.retain(|_, sum| *sum != (0, 0));
    sums
}

fn counted(store: &Store) -> Sums {
    let mut sums = Sums::new();
    for product in store.query().iter() {
        for (place, stock) in product.by_location() {
            let key = (product.sku().as_str().to_owned(), place.as_str().to_owned());
            sums.insert(key, (stock.on_hand, stock.held));
        }
    }
    sums.retain(|_, sum| *sum != (0, 0));
    sums
}

/// The ledger has what the counters say, and the holds that are active hold what is held.
pub(crate) async fn check_books(store: &Store, context: &str) {
    let (ledger, counted) = loop {
        // Holds expire meanwhile: compared is what did not change between two looks.
        let before = counted(store);
        let ledger = store.ledger().collect().await.unwrap();
        if before == counted(store) && summed(&ledger).len() <= ledger.len() {
            let after = store.ledger().collect().await.unwrap();
            if after == ledger {
                break (ledger, before);
            }
        }
    };
    assert_eq!(summed(&ledger), counted, "{context}");
    for product in store.query().iter() {
        let own = product.by_replica();
        assert!(own.iter().all(|(replica, _)| *replica == store.replica_id()), "{context}");
    }
}

/// Reads CSV as RFC 4180 says.
fn read_csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut letters) = (false, text.chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => field.push(letters.next().unwrap()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            other => field.push(other),
        }
    }
    assert!(field.is_empty() && row.is_empty() && !quoted, "the last line is not ended");
    rows
}

/// What is exported reads back as what the ledger says, field by field.
async fn check_csv(store: &Store) {
    let movements = store.ledger().collect().await.unwrap();
    let mut bytes = Vec::new();
    let rows = store.ledger().write_csv(&mut bytes).await.unwrap();
    let read = read_csv(&String::from_utf8(bytes).unwrap());
    assert_eq!(rows as usize + 1, read.len());
    assert_eq!(read[0].join(" "), "time replica product location kind quantity reason reference hold other");
    for (row, movement) in read[1..].iter().zip(&movements) {
        assert_eq!(row.len(), read[0].len(), "{row:?}");
        let text = |value: Option<String>| value.unwrap_or_default();
        let expected = [
            movement.replica.to_string(),
            movement.sku.to_string(),
            movement.location.to_string(),
            movement.kind.label().to_owned(),
            movement.quantity.to_string(),
            text(movement.reason().map(|reason| reason.label().to_owned())),
            text(movement.reference.as_ref().map(|reference| reference.as_str().to_owned())),
            text(movement.hold().map(|id| id.to_string())),
        ];
        assert_eq!(row[1..9], expected);
        assert!(row[0].ends_with('Z') && row[0].len() == 24, "{}", row[0]);
    }
}

/// Random operations of every kind on a disk that fails and loses power: after each restart the sum over the ledger is
/// what the counters say, units held are those of the holds, and the export reads back.
#[tokio::test]
async fn the_ledger_adds_up_to_the_counters_after_failures_and_restarts() {
    let mut chance = Chance::new(11);
    let mut disks = Disks::default();
    let (mut failed, mut done) = (0, 0);
    for round in 0..25_u64 {
        let store = disks.open().await.unwrap();
        check_books(&store, &format!("round {round}, opened")).await;
        if round % 3 > 0 {
            let mode = [FaultMode::Once, FaultMode::Forever, FaultMode::ShortWrite][chance.below(3) as usize];
            disks.store.fail_at(20 + chance.below(200), mode);
        }
        for _ in 0..60 {
            match operate(&store, &mut chance).await {
                Ok(()) => done += 1,
                Err(WriteError::Indeterminate { .. } | WriteError::Poisoned { .. }) => failed += 1,
                Err(WriteError::Refused(_) | WriteError::Insufficient { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        if round % 3 == 0 {
            check_books(&store, &format!("round {round}")).await;
            check_csv(&store).await;
        }
        drop(store.close().await);
        disks.store.heal();
        disks = disks.left((round % 2 == 0).then(|| chance.below(1 << 40)));
    }
    assert!(done > 300 && failed > 50, "{done} done, {failed} failed");
}

/// What was seen of the counters before the ledger was asked for is in it, also while it is on its way to the disk.
#[tokio::test]
async fn the_ledger_is_never_behind_the_counters() {
    let (disks, gate) = (Disks::default(), Gate::default());
    let store = GatedDisk { disk: disks.store.clone(), gate: gate.clone() };
    let store = Store::builder().disks(Box::new(store), Box::new(disks.mark.clone())).open().await.unwrap();
    let mug = store.product("MUG").unwrap();
    gate.close();
    let first = mug.clone();
    let first = tokio::spawn(async move { first.receive(5).await });
    while !gate.is_reached() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Both wait in one queue, so that one group takes them.
    let (second, ledger, ()) = tokio::join!(mug.receive(2), store.ledger().collect(), async { gate.open() });
    second.unwrap();
    first.await.unwrap().unwrap();
    let quantities: Vec<i64> = ledger.unwrap().iter().map(|movement| movement.quantity).collect();
    assert_eq!(quantities, [5, 2]);
    store.close().await.unwrap();
}
