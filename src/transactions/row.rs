//! Turns the fields of one row into a transaction.

use stockmesh_proto::{Decimal, Sku};

use super::Transaction;
use super::error::RejectReason;
use super::field::Field;
use super::fields::Fields;
use super::header::Layout;

/// Longest time, location or invoice, in bytes. They are labels; a longer one is a sign of shifted columns.
pub const MAX_FIELD_BYTES: usize = 256;

/// Most decimals of a price: what the store keeps exactly.
pub const MAX_PRICE_DECIMALS: usize = 9;

pub(super) fn parse(line: u64, fields: &Fields, layout: &Layout, uppercase: bool) -> Result<Transaction, RejectReason> {
    let text = |field| layout.index(field).map_or("", |index| fields.get(index));
    let time = label(Field::Time, text(Field::Time))?
        .ok_or_else(|| RejectReason::field(Field::Time, "", "must not be empty"))?;
    Ok(Transaction {
        line,
        time,
        sku: sku(text(Field::Sku), uppercase)?,
        quantity: quantity(text(Field::Quantity))?,
        unit_price: unit_price(text(Field::UnitPrice))?,
        location: label(Field::Location, text(Field::Location))?,
        invoice: label(Field::Invoice, text(Field::Invoice))?,
    })
}

fn label(field: Field, text: &str) -> Result<Option<String>, RejectReason> {
    if text.len() > MAX_FIELD_BYTES {
        let rule = format!("must not be longer than {MAX_FIELD_BYTES} bytes");
        return Err(RejectReason::field(field, text, rule));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

fn sku(text: &str, uppercase: bool) -> Result<Sku, RejectReason> {
    // Most codes are upper case as they are.
    if uppercase && text.chars().any(|letter| !letter.is_ascii() || letter.is_ascii_lowercase()) {
        return Ok(Sku::new(&text.to_uppercase())?);
    }
    Ok(Sku::new(text)?)
}

fn quantity(text: &str) -> Result<i64, RejectReason> {
    let refused = |rule| RejectReason::field(Field::Quantity, text, rule);
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused("must be a whole number"));
    }
    match text.parse::<i64>() {
        Ok(0) => Err(refused("must not be 0")),
        // The change of stock is the opposite number, so the lowest i64 is out of range too.
        Ok(units) if units != i64::MIN => Ok(units),
        _ => Err(refused("must lie between -9223372036854775807 and 9223372036854775807")),
    }
}

/// The price, if it is above 0. An empty field is no price: the movement of stock is a fact without it.
fn unit_price(text: &str) -> Result<Option<Decimal>, RejectReason> {
    if text.is_empty() {
        return Ok(None);
    }
    let refused = |rule: String| RejectReason::field(Field::UnitPrice, text, rule);
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, decimals) = digits.split_once('.').unwrap_or((digits, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    // Stricter than the decimal's own parser, which takes `1_000` and `1.`.
    if !all_digits(whole) || !all_digits(decimals) {
        return Err(refused("must be a decimal number such as 2.55".to_owned()));
    }
    if decimals.len() > MAX_PRICE_DECIMALS {
        return Err(refused(format!("must not have more than {MAX_PRICE_DECIMALS} decimals")));
    }
    let price = Decimal::from_str_exact(text)
        .map_err(|_| refused("must be below 79228162514264337593543950336 in all its digits".to_owned()))?;
    Ok((price > Decimal::ZERO).then_some(price))
}
