//! The checkers: one rule each, held against one replica and the omniscient model. They tell what they found, so that a
//! test can also demand that they find something.

use std::collections::BTreeMap;

use stockmesh_proto::counter::Counters;
use stockmesh_proto::product::{Product, Taken};
use stockmesh_proto::{Location, ReplicaId};

use super::node::Node;
use super::world::World;

pub(super) type Check = fn(&World, &Node) -> Result<(), String>;

/// Every rule that holds at any time.
pub(super) const ALL: &[(&str, Check)] = &[
    ("faults", no_fault),
    ("goods", never_oversold),
    ("fences", nothing_is_taken_twice),
    ("hold ids", hold_ids_are_given_once),
    ("deficits", rights_fall_below_zero_by_facts_alone),
    ("shares", rights_sum_to_what_is_available),
    ("slots", slots_are_of_the_history),
    ("claims", claims_are_held),
    ("holds", slots_hold_what_the_books_hold),
];

/// The one rule that customers notice.
pub(super) const GOODS: &[(&str, Check)] = &[("goods", never_oversold)];

pub(super) fn run_checks(checks: &[(&str, Check)], world: &World, index: usize) -> Result<(), String> {
    checks.iter().try_for_each(|(name, check)| {
        check(world, &world.nodes[index]).map_err(|text| format!("{name}: at replica {index}: {text}"))
    })
}

/// Steps that went as no step may: a second opinion that differs (rules O1 to O7, B2, B3), an honest message refused,
/// a future met by who was not restored, books that a reopen changed (rule D6).
fn no_fault(world: &World, _: &Node) -> Result<(), String> {
    world.faults.first().map_or(Ok(()), |text| Err(text.clone()))
}

/// Rule B2: over all lives, no more was sold and held than came in, but for what facts and backorders took beyond the
/// rights of who recorded them.
fn never_oversold(world: &World, _: &Node) -> Result<(), String> {
    for place in world.goods.places() {
        let (available, excess, beyond) =
            (world.available(&place), world.excess_at(&place), world.taken_beyond(&place));
        if available < -excess - beyond {
            let text = "units are left, taken beyond rights and by heirs";
            return Err(format!("{place:?}: {available} {text}: {excess} and {beyond}"));
        }
    }
    Ok(())
}

/// Rules E4, E7: of a replica that was retired with everyone in reach, heirs take no more than was left of it, as all live
/// members together know.
fn nothing_is_taken_twice(world: &World, _: &Node) -> Result<(), String> {
    let exact = world.retired.iter().filter(|(_, retired)| retired.is_exact).map(|(id, _)| *id);
    for id in exact.collect::<Vec<_>>() {
        for place in world.goods.places() {
            let mut all = Product::default();
            world.live().into_iter().for_each(|index| all.absorb(&world.nodes[index].product_of(&place.0)));
            let left = rights(&all, &place.1, id);
            if !all.inheritances_of(&place.1, id).is_empty() && left < 0 {
                return Err(format!("{id} at {place:?}: heirs took {} units more than there were", -left));
            }
        }
    }
    Ok(())
}

/// Rule O5: a hold's id is its own, so that nobody resolves another's hold.
fn hold_ids_are_given_once(world: &World, _: &Node) -> Result<(), String> {
    world.goods.given_twice.first().map_or(Ok(()), |id| Err(format!("the hold id {id} was given twice")))
}

/// Rules B2, B3: own sales, holds, transfers and grants never take the rights below zero.
fn rights_fall_below_zero_by_facts_alone(world: &World, node: &Node) -> Result<(), String> {
    let mut excess = BTreeMap::new();
    let told = world.goods.excess.iter().filter(|((id, _), _)| *id == node.id);
    for (place, units) in told.map(|((_, place), units)| (place, units)) {
        *excess.entry(place.clone()).or_insert(0) += units;
    }
    for (place, units) in node.waiting.iter().flat_map(|ack| &ack.excess) {
        *excess.entry(place.clone()).or_insert(0) += units;
    }
    for keyed in node.products() {
        for location in locations(keyed) {
            let rights = keyed.rights(location, node.id);
            let excess = excess.get(&(keyed.sku.clone(), location.clone())).copied().unwrap_or_default();
            if rights < -excess {
                return Err(format!("{} at {location}: rights {rights}, excess {excess}", keyed.sku));
            }
        }
    }
    Ok(())
}

fn locations(product: &Product) -> Vec<&Location> {
    let stock = product.stock().iter().map(|slot| &slot.location);
    let inherited = product.inheritances().iter().map(|slot| &slot.location);
    let mut locations: Vec<_> =
        stock.chain(product.grants().iter().map(|slot| &slot.location)).chain(inherited).collect();
    locations.sort();
    locations.dedup();
    locations
}

/// Rule E2, by brute force: the counters of a replica that count.
fn counted(product: &Product, location: &Location, id: ReplicaId) -> Counters {
    let taken = product.inheritances().iter().filter(|slot| slot.location == *location && slot.from == id);
    let taken: Vec<_> = taken.map(|slot| slot.taken).collect();
    let most = |of: fn(&Taken) -> u64| taken.iter().map(of).max();
    if let (Some(added), Some(removed)) = (most(|taken| taken.added), most(|taken| taken.removed)) {
        return Counters { added, removed, held: 0, released: 0 };
    }
    let own = product.stock().iter().find(|slot| slot.location == *location && slot.replica == id);
    own.map(|slot| slot.counters).unwrap_or_default()
}

/// Rules B1 and E3, by brute force.
fn rights(product: &Product, location: &Location, id: ReplicaId) -> i128 {
    let mut rights = counted(product, location, id).available();
    for slot in product.inheritances().iter().filter(|slot| slot.location == *location) {
        let units = i128::from(slot.taken.rights) - i128::from(slot.taken.owed);
        rights += if slot.to == id { units } else { 0 };
        rights -= if slot.from == id { units } else { 0 };
    }
    for slot in product.grants().iter().filter(|slot| slot.location == *location) {
        rights += if slot.to == id { i128::from(slot.units) } else { 0 };
        rights -= if slot.from == id { i128::from(slot.units) } else { 0 };
    }
    rights
}

/// Rule B1: rights are shared out of what is available, none made and none lost.
fn rights_sum_to_what_is_available(_: &World, node: &Node) -> Result<(), String> {
    for keyed in node.products() {
        for location in locations(keyed) {
            let ids = node.ids(keyed);
            let sum: i128 = ids.iter().map(|id| keyed.rights(location, *id)).sum();
            let available = keyed.available_at(location);
            let by_hand: i128 = ids.iter().map(|id| counted(keyed, location, *id).available()).sum();
            let is_same = by_hand == available && keyed.on_hand_at(location) - keyed.held_at(location) == available;
            if sum != available || keyed.rights_at(location).values().sum::<i128>() != sum || !is_same {
                return Err(format!("{} at {location}: rights to {sum} of {available} of {by_hand}", keyed.sku));
            }
            if let Some(id) = ids.iter().find(|id| keyed.rights(location, **id) != rights(keyed, location, **id)) {
                return Err(format!("{} at {location}: rights of {id} are miscounted", keyed.sku));
            }
        }
    }
    Ok(())
}

/// Rule B3, and the rule that nothing leaves before it is durable: every slot, wherever it is, is a state that its
/// writer still stands by.
fn slots_are_of_the_history(world: &World, node: &Node) -> Result<(), String> {
    for keyed in node.products() {
        for slot in keyed.stock() {
            let key = (slot.replica, keyed.sku.clone(), slot.location.clone());
            let written = world.history.stock.get(&key).and_then(|states| states.get(&slot.sequence));
            if written != Some(&slot.counters) {
                return Err(format!("{} {slot:?}: {written:?} was written", keyed.sku));
            }
        }
        for slot in keyed.grants() {
            let key = (slot.from, slot.to, keyed.sku.clone(), slot.location.clone());
            let written = world.history.grants.get(&key).and_then(|states| states.get(&slot.sequence));
            if written != Some(&slot.units) {
                return Err(format!("{} {slot:?}: {written:?} was written", keyed.sku));
            }
        }
        for slot in keyed.inheritances() {
            let key = (slot.from, slot.to, keyed.sku.clone(), slot.location.clone());
            let written = world.history.inherited.get(&key).and_then(|states| states.get(&slot.sequence));
            if written != Some(&slot.taken) {
                return Err(format!("{} {slot:?}: {written:?} was written", keyed.sku));
            }
        }
    }
    Ok(())
}

/// Rules M3, B5: what a version vector claims is there, or superseded.
fn claims_are_held(world: &World, node: &Node) -> Result<(), String> {
    for ((writer, sku, location), states) in &world.history.stock {
        let claimed = node.shard(node.count.shard_of(sku)).version().get(*writer);
        let Some((last, _)) = states.range(..=claimed).next_back() else { continue };
        let product = node.product_of(sku);
        let slot = product.stock_at(location).iter().find(|slot| slot.replica == *writer);
        if slot.is_none_or(|slot| slot.sequence < *last) {
            return Err(format!("write {last} of {writer} to {sku} at {location} is claimed and missing"));
        }
    }
    for ((from, to, sku, location), states) in &world.history.grants {
        let claimed = node.shard(node.count.shard_of(sku)).version().get(*from);
        let Some((last, _)) = states.range(..=claimed).next_back() else { continue };
        let product = node.product_of(sku);
        let slot = product.grants_at(location).find(|slot| (slot.from, slot.to) == (*from, *to));
        if slot.is_none_or(|slot| slot.sequence < *last) {
            return Err(format!("grant {last} of {from} to {to}, {sku} at {location}, is claimed and missing"));
        }
    }
    for ((from, to, sku, location), states) in &world.history.inherited {
        let claimed = node.shard(node.count.shard_of(sku)).version().get(*to);
        let Some((last, _)) = states.range(..=claimed).next_back() else { continue };
        let product = node.product_of(sku);
        let slot = product.inheritances_of(location, *from).iter().find(|slot| slot.to == *to);
        if slot.is_none_or(|slot| slot.sequence < *last) {
            return Err(format!("what {to} took of {from} by {last}, {sku} at {location}, is claimed and missing"));
        }
    }
    Ok(())
}

/// Rule O6: each hold is resolved once, so the own slots hold what the active holds hold, in memory and on disk.
fn slots_hold_what_the_books_hold(_: &World, node: &Node) -> Result<(), String> {
    let held = node.books.units_held();
    let mut found = 0;
    for keyed in node.products() {
        for slot in keyed.stock().iter().filter(|slot| slot.replica == node.id) {
            let units = held.get(&(keyed.sku.as_str(), slot.location.as_str())).copied();
            found += usize::from(units.is_some());
            if i128::try_from(units.unwrap_or_default()).unwrap() != slot.counters.units_held() {
                return Err(format!("{} {slot:?}: the books hold {units:?}", keyed.sku));
            }
        }
    }
    if found == held.len() { Ok(()) } else { Err(format!("holds without a slot: {held:?}")) }
}

/// Rule D7: the ledger's movements, added up, are the slots of the id that made them. What a former id of this directory
/// did before an old copy was put back may be missing here.
pub(super) fn ledger_sums_to_the_slots(node: &Node) -> Result<(), String> {
    let (disk, sums) = (&node.disk, node.disk.ledger_sums());
    let product = |sku: &stockmesh_proto::Sku| {
        let keyed = disk.table[node.count.shard_of(sku).as_usize()].get(sku.as_str());
        keyed.map(|keyed| keyed.product.clone()).unwrap_or_default()
    };
    for ((id, sku, location), counters) in &sums.stock {
        let slot = product(sku).counters(location, *id);
        if !slot.dominates(*counters) || (*id == node.id && slot != *counters) {
            return Err(format!("{sku} at {location} of {id}: {slot:?}, by the ledger {counters:?}"));
        }
    }
    for ((from, to, sku, location), units) in &sums.granted {
        let granted = product(sku).granted(location, *from, *to);
        if granted < *units || (*from == node.id && granted != *units) {
            return Err(format!("{sku} at {location} from {from} to {to}: {granted}, by the ledger {units}"));
        }
    }
    for ((from, to, sku, location), sum) in &sums.inherited {
        let product = product(sku);
        let slot = product.inheritances_of(location, *from).iter().find(|slot| slot.to == *to).map(|slot| slot.taken);
        let taken = slot.unwrap_or_default();
        // What it took first of `added` and `removed` is the retired replica's, and in no movement.
        let is_own = (taken.rights, taken.owed, taken.is_heir) == (sum.rights, sum.owed, sum.is_heir);
        if slot.is_none() || taken.join(*sum) != taken || (*to == node.id && !is_own) {
            return Err(format!("{sku} at {location} of {from} to {to}: {taken:?}, by the ledger {sum:?}"));
        }
    }
    let shards = disk.table.iter().flat_map(|shard| shard.range(std::ops::Bound::Unbounded));
    for keyed in shards {
        let own = keyed.stock().iter().filter(|slot| slot.replica == node.id && slot.counters != Default::default());
        let own = own.map(|slot| sums.stock.contains_key(&(node.id, keyed.sku.clone(), slot.location.clone())));
        let given = keyed
            .grants()
            .iter()
            .filter(|slot| slot.from == node.id)
            .map(|slot| sums.granted.contains_key(&(node.id, slot.to, keyed.sku.clone(), slot.location.clone())));
        let inherited =
            keyed.inheritances().iter().filter(|slot| slot.to == node.id).map(|slot| {
                sums.inherited.contains_key(&(slot.from, node.id, keyed.sku.clone(), slot.location.clone()))
            });
        if !own.chain(given).chain(inherited).all(|is_there| is_there) {
            return Err(format!("{}: a slot has no movement in the ledger", keyed.sku));
        }
    }
    Ok(())
}

/// After healing: all replicas are equal, and so is what live ids counted and what callers were told.
pub(super) fn converged(world: &World) -> Result<(), String> {
    let live = world.live();
    let node = &world.nodes[live[0]];
    for other in live[1..].iter().map(|index| &world.nodes[*index]) {
        if node.contents() != other.contents() {
            return Err(format!("converged: {} differs from {}", other.id, node.id));
        }
    }
    for ((id, (sku, location)), units) in &world.goods.units {
        let counters = node.product_of(sku).counters(location, *id);
        let is_same = (counters.on_hand(), counters.units_held()) == (units.came_in - units.went_out, units.held);
        if live.iter().any(|index| world.nodes[*index].id == *id) && !is_same {
            return Err(format!("converged: {sku} at {location} of {id}: {counters:?}, callers know {units:?}"));
        }
    }
    // With the slots of the dead as far as they are known, nothing else makes up the total.
    for (sku, location) in world.goods.places() {
        let product = node.product_of(&sku);
        let known = |id: &ReplicaId| counted(&product, &location, *id).available();
        let ids = node.ids(&product);
        let (sum, available) = (ids.iter().map(known).sum::<i128>(), product.available_at(&location));
        if sum != available {
            return Err(format!("converged: {sku} at {location}: {available} available, {sum} counted"));
        }
    }
    Ok(())
}

/// Rules E4, E5: once heirs have settled and the returned have re-applied, nothing is left with a retired id that has a
/// living heir, and what a returned directory wrote under it counts, once.
pub(super) fn settled(world: &World) -> Result<(), String> {
    let live = world.live();
    let node = &world.nodes[live[0]];
    for keyed in node.products() {
        for location in locations(keyed) {
            for id in node.ids(keyed) {
                let heir = keyed.heir(location, id).filter(|heir| live.iter().any(|at| world.nodes[*at].id == *heir));
                let left = rights(keyed, location, id);
                if heir.is_some() && left != 0 {
                    return Err(format!("settled: {} at {location}: {left} units are left with {id}", keyed.sku));
                }
                let came_back = live.iter().any(|index| world.former[*index].contains(&id));
                let (written, all) = (keyed.counters(location, id), counted(keyed, location, id));
                let is_counted = written.added <= all.added && written.removed <= all.removed;
                if came_back && !is_counted {
                    return Err(format!("settled: {} at {location} of {id}: {written:?} counts as {all:?}", keyed.sku));
                }
                let told = world.goods.units.get(&(id, (keyed.sku.clone(), location.clone())));
                let told = told.map_or(0, |units| units.came_in - units.went_out);
                if world.is_whole(id) && all.on_hand() != told {
                    let text = format!("callers know {told}, {all:?} counts");
                    return Err(format!("settled: {} at {location} of {id}: {text}", keyed.sku));
                }
            }
        }
    }
    Ok(())
}
