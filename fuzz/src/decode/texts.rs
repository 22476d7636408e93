//! Any bytes as the texts that people and programs write: names, ids, numbers. What is accepted is shown as it was read.

use std::fmt::Display;
use std::str::FromStr;

use stockmesh_proto::hlc::Stamp;
use stockmesh_proto::hold::HoldId;
use stockmesh_proto::limits::{CLIENT_TEXT_BYTES_MAX, LABELS_MAX};
use stockmesh_proto::member::{Generation, Labels, Software};
use stockmesh_proto::wire::client::{Shown, Text};
use stockmesh_proto::{
    ClusterId, Currency, Decimal, Fingerprint, InvalidInput, Location, Price, Quantity, Reference, ReplicaId,
    ShardCount, Sku,
};

pub(super) fn read(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    name::<Sku>(&text);
    name::<Location>(&text);
    name::<ClusterId>(&text);
    name::<Reference>(&text);
    if let Ok(software) = told(Software::new(&text)) {
        assert_eq!((software.as_str(), software.to_string()), (&*text, text.to_string()));
    }
    if let Ok(id) = told(text.parse::<ReplicaId>()) {
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!((format!("{id:?}"), Shown(id).to_string()), (id.to_string(), id.to_string()));
    }
    if let Ok(id) = told(text.parse::<HoldId>()) {
        assert_eq!(id.to_string(), text, "one form only");
    }
    labels(&text);
    prices(&text);
    numbers(data);
    let shortened = Text::new(&text);
    assert!(shortened.as_str().len() <= CLIENT_TEXT_BYTES_MAX);
    assert!(text.len() > CLIENT_TEXT_BYTES_MAX || shortened.to_string() == text);
}

/// An error on wrong input names the field, and is not as long as what was wrong.
fn told<T>(result: Result<T, InvalidInput>) -> Result<T, InvalidInput> {
    if let Err(error) = &result {
        assert!(error.to_string().len() <= 600, "{error}");
    }
    result
}

fn name<T: FromStr<Err = InvalidInput> + Display + AsRef<str> + std::fmt::Debug>(text: &str) {
    if let Ok(name) = told(text.parse::<T>()) {
        assert_eq!((name.as_ref(), name.to_string()), (text, text.to_string()));
        assert_eq!(format!("{name:?}"), format!("{text:?}"));
    }
}

/// Pairs as `key=value`, one in a line.
fn labels(text: &str) {
    let pairs: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    let Ok(labels) = told(Labels::new(pairs.clone())) else { return };
    assert!(labels.iter().len() <= LABELS_MAX);
    assert!(pairs.iter().all(|(key, _)| labels.get(key).is_some()));
}

fn prices(text: &str) {
    let Ok(amount) = Decimal::from_str_exact(text) else { return };
    if let Ok(price) = told(Price::new(amount, Currency::EUR)) {
        assert_eq!(price.amount(), amount);
        assert_eq!(Price::from_parts(price.units(), price.scale(), price.currency()), Ok(price));
        assert_eq!(price.to_string(), format!("{amount} EUR"));
        assert_eq!(price.partial_cmp(&price), Some(std::cmp::Ordering::Equal));
    }
}

fn numbers(data: &[u8]) {
    let Some(bytes) = data.first_chunk() else { return };
    let number = u64::from_le_bytes(*bytes);
    assert_eq!(told(Quantity::new(number)).is_ok_and(|units| units.get() == number), Quantity::new(number).is_ok());
    assert_eq!(ReplicaId::from_bits(number).is_some(), number > 0);
    if let Ok(generation) = told(Generation::new(number)) {
        assert_eq!(generation.to_string(), number.to_string());
    }
    let stamp = Stamp::from_bits(number);
    assert_eq!(format!("{stamp:?}"), format!("{}+{}", number >> 16, number & 0xffff));
    let fingerprint = Fingerprint::from_bits(u128::from(number));
    assert_eq!(u128::from_str_radix(&fingerprint.to_string(), 16), Ok(u128::from(number)));
    assert_eq!(format!("{fingerprint:?}"), fingerprint.to_string());
    // The low half, so that small counts are frequent.
    if let Ok(count) = told(ShardCount::new(u32::try_from(number % (1 << 14)).unwrap())) {
        assert!(count.get().is_power_of_two() && count.indexes().len() == usize::from(count.get()));
        let shard = count.shard_of_name(&number.to_string());
        assert_eq!(count.index(shard.0), Some(shard));
    }
    let price = told(Price::from_parts(number, data[0] % 16, Currency::JPY));
    assert!(price.is_err() || price.is_ok_and(|price| price.units() == number));
}
