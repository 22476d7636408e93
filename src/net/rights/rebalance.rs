//! Moves rights towards demand while links are up, so that few sales have to ask.

use metrics::counter;
use stockmesh_proto::asking::{Candidate, order};
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::Ask;

use super::super::shared::Shared;
use super::Place;
use super::obtain::{ask_peer, candidate};
use crate::limits::{ASK_TIME_MAX, REBALANCE_ASKS_MAX, REBALANCE_COVER, REBALANCE_EVERY};

/// Looks now and then at what sells here, and asks for rights where those at hand will not last.
pub(in crate::net) async fn rebalance_for_ever(shared: Shared) {
    let mut from = 0;
    loop {
        tokio::time::sleep(REBALANCE_EVERY.mul_f64(rand::random_range(0.75..=1.25))).await;
        let mut short: Vec<(Place, u64, u64)> =
            shared.rights.wanted().into_iter().filter_map(lacking(&shared)).collect();
        if short.is_empty() {
            continue;
        }
        // Each round goes on where the last one ended, so that every product has its turn.
        short.sort_unstable();
        let count = short.len();
        from %= count;
        short.rotate_left(from);
        from = (from + REBALANCE_ASKS_MAX) % count;
        for (place, rights, per_hour) in short.into_iter().take(REBALANCE_ASKS_MAX) {
            ask_ahead(place, rights, per_hour, &shared).await;
        }
    }
}

/// Picks what will not last, with the rights at hand.
fn lacking(shared: &Shared) -> impl FnMut((Place, u64)) -> Option<(Place, u64, u64)> {
    let own = shared.table.own();
    move |(place, per_hour)| {
        let product = shared.table.get(place.0.as_str())?;
        let rights = u64::try_from(product.rights(&place.1, own).max(0)).unwrap_or(u64::MAX);
        let lasts_s = u128::from(rights) * 3_600 / u128::from(per_hour.max(1));
        (lasts_s < u128::from(REBALANCE_COVER.as_secs())).then_some((place, rights, per_hour))
    }
}

async fn ask_ahead(place: Place, rights: u64, per_hour: u64, shared: &Shared) {
    let (sku, location) = &place;
    let Some(product) = shared.table.get(sku.as_str()) else { return };
    let known = product.rights_at(location);
    let now_ms = shared.rights.now_ms();
    let mut candidates: Vec<Candidate> = {
        let back_off = shared.rights.back_off_ahead.lock();
        let links = shared.registry.links().into_iter().filter(|link| link.knows_rights);
        let have = links.filter_map(|link| candidate(&link, &known)).filter(|candidate| candidate.rights > rights);
        have.filter(|candidate| back_off.may_ask(candidate.replica, sku, location, candidate.rights, now_ms)).collect()
    };
    order(&mut candidates);
    let Some(first) = candidates.first() else { return };
    let Some(link) = shared.registry.link(first.replica) else { return };
    counter!("stockmesh_asks_ahead_total").increment(1);
    let ask = Ask { sku: sku.clone(), location: location.clone(), needed: 0, rights, per_hour };
    let answer = ask_peer(&link, ask, ASK_TIME_MAX, shared).await;
    let mut back_off = shared.rights.back_off_ahead.lock();
    if answer.has_given() {
        back_off.granted(first.replica, sku, location);
    } else {
        back_off.timed_out(first.replica, sku, location, now_ms);
    }
}
