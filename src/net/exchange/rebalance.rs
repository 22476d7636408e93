//! Moves rights towards demand while links are up, so that few sales have to ask, and pays back what is below zero.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::Ordering;

use metrics::counter;
use stockmesh_proto::asking::{Candidate, order};
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::Ask;

use super::obtain::{ask_peer, candidate, time_to_answer};
use crate::limits::{REBALANCE_ASKS_MAX, REBALANCE_COVER, REBALANCE_EVERY};
use crate::net::rights::Place;
use crate::net::shared::Shared;
use crate::table::Table;

/// Wishes that are looked at before others have a turn on the thread.
const LOOKED_AT_ONCE: usize = 64;

/// Rights that would be good to have, though no sale waits for them.
struct Wish {
    place: Place,
    /// Units that are owed: a deficit.
    needed: u64,
    /// Rights at hand.
    rights: u64,
    per_hour: u64,
}

/// Looks now and then at what sells here and at what is owed, and asks for rights where those at hand will not last.
pub(in crate::net) async fn rebalance_for_ever(shared: Shared) {
    let table = std::sync::Arc::clone(&shared.table);
    // Deficits from before the store was opened.
    let found = crate::blocking::run(move || deficits(&table)).await.unwrap_or_default();
    found.into_iter().for_each(|place| shared.rights.note_deficit(place));
    let mut from: usize = 0;
    loop {
        tokio::time::sleep(REBALANCE_EVERY.mul_f64(crate::chance::random_range(0.75..=1.25))).await;
        let idle = shared.leaving.load(Ordering::SeqCst) || shared.is_read_only();
        if idle || shared.registry.links().is_empty() {
            continue;
        }
        // What is owed and what sells have their turns alike, and each round goes on where the last one ended.
        let (mut owed, mut short) = (owed(&shared), short(&shared));
        from = from.wrapping_add(1);
        for wishes in [&mut owed, &mut short] {
            let count = wishes.len().max(1);
            wishes.rotate_left(from.wrapping_mul(REBALANCE_ASKS_MAX) % count);
        }
        for wishes in [owed, short] {
            let mut asked = 0;
            for (looked, wish) in wishes.into_iter().enumerate() {
                asked += usize::from(ask_ahead(wish, &shared).await);
                if asked >= REBALANCE_ASKS_MAX / 2 {
                    break;
                }
                if looked % LOOKED_AT_ONCE == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// Products and locations where this replica is below zero. Costs a look at every slot.
fn deficits(table: &Table) -> Vec<Place> {
    let own = table.own();
    let mut found = Vec::new();
    for shard in table.count().indexes() {
        table.read(shard, |state| {
            for product in state.range(Bound::Unbounded) {
                // Not of its own stock alone: an heir takes a deficit over where it never counted anything.
                let counted = product.stock().iter().filter(|slot| slot.replica == own).map(|slot| &slot.location);
                let inherited = product.inheritances().iter().filter(|slot| slot.to == own).map(|slot| &slot.location);
                let mut below: Vec<_> = counted.chain(inherited).collect();
                below.sort_unstable();
                below.dedup();
                below.retain(|location| product.rights(location, own) < 0);
                found.extend(below.into_iter().map(|location| (product.sku.clone(), location.clone())));
            }
        });
    }
    found
}

fn rights_of(shared: &Shared, place: &Place) -> i128 {
    let product = shared.table.get(place.0.as_str());
    product.map_or(0, |product| product.rights(&place.1, shared.table.own()))
}

/// What this replica owes. What was paid back is forgotten.
fn owed(shared: &Shared) -> Vec<Wish> {
    let known: BTreeSet<Place> = shared.rights.deficits.lock().clone();
    let mut wishes = Vec::new();
    for place in known {
        let rights = rights_of(shared, &place);
        if rights >= 0 {
            shared.rights.deficits.lock().remove(&place);
            continue;
        }
        let needed = u64::try_from(-rights).unwrap_or(u64::MAX);
        wishes.push(Wish { place, needed, rights: 0, per_hour: 0 });
    }
    wishes
}

/// What sells here and will not last, with the rights at hand.
fn short(shared: &Shared) -> Vec<Wish> {
    let lacking = |(place, per_hour): (Place, u64)| {
        let rights = u64::try_from(rights_of(shared, &place).max(0)).unwrap_or(u64::MAX);
        let lasts_s = u128::from(rights) * 3_600 / u128::from(per_hour.max(1));
        (lasts_s < u128::from(REBALANCE_COVER.as_secs())).then_some(Wish { place, needed: 0, rights, per_hour })
    };
    let mut wishes: Vec<Wish> = shared.rights.wanted().into_iter().filter_map(lacking).collect();
    wishes.sort_unstable_by(|left, right| left.place.cmp(&right.place));
    wishes
}

/// Asks the best peer for it. Returns whether there was one to ask.
async fn ask_ahead(wish: Wish, shared: &Shared) -> bool {
    let Wish { place: (sku, location), needed, rights, per_hour } = wish;
    let Some(product) = shared.table.get(sku.as_str()) else { return false };
    let known = product.rights_at(&location);
    let now_ms = shared.rights.now_ms();
    let mut candidates: Vec<Candidate> = {
        let back_off = shared.rights.back_off_ahead.lock();
        let links = shared.registry.links().into_iter().filter(|link| link.knows_rights);
        let have = links.filter_map(|link| candidate(&link, &known)).filter(|candidate| candidate.rights > rights);
        have.filter(|candidate| back_off.may_ask(candidate.replica, &sku, &location, candidate.rights, now_ms))
            .collect()
    };
    order(&mut candidates);
    let Some(first) = candidates.first() else { return false };
    let Some(link) = shared.registry.link(first.replica) else { return false };
    counter!("stockmesh_asks_ahead_total").increment(1);
    let ask = Ask { sku: sku.clone(), location: location.clone(), needed, rights, per_hour };
    let answer = ask_peer(&link, ask, first.rights, time_to_answer(&link), shared).await;
    let mut back_off = shared.rights.back_off_ahead.lock();
    if answer.has_given() {
        back_off.granted(first.replica, &sku, &location);
    } else {
        back_off.timed_out(first.replica, &sku, &location, now_ms);
    }
    true
}
