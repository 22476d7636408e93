//! Taking over for the retired: their rights pass to the heir, what they held is held on, and what a replica that returned
//! alone had written is counted (rules Q4, Q6).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use stockmesh_proto::operation::{Operation, Outcome, Request};
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::{Location, Quantity, ReplicaId, Shard, Sku};
use tracing::{info, warn};

use crate::commit::{Committer, WeakCommitter};
use crate::error::WriteError;
use crate::limits::{
    HEIRS_IN_A_ROW_MAX, INHERIT_AGAIN_AFTER, INHERIT_PAUSE, PLACES_AT_ONCE_MAX, RETIRED_HOLD_TIME_DEFAULT,
};
use crate::retirements::{HeirClaim, Retirements, given_up, last_heir};
use crate::table::Table;

/// What was taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenOver {
    /// Places: a product at a location.
    pub(crate) places: u64,
    /// Units of rights.
    pub(crate) units: u64,
    /// Units among them that are held on.
    pub(crate) held: u64,
}

/// A product at a location of which something is to be taken over.
struct Place {
    sku: Sku,
    location: Location,
    from: ReplicaId,
    /// Units to be held on.
    held: u64,
    /// This replica took over there before: what turns up since is its own.
    settles: bool,
}

/// Takes over everything of a retired replica as it is known here. What was taken over before stays as it is. The caller
/// holds [`Committer::taking_over`]: two at once would hold the same units twice.
pub(crate) async fn take_over(
    retired: ReplicaId,
    hold_time: Duration,
    table: &Table,
    committer: &Committer,
) -> Result<TakenOver, WriteError> {
    let ttl_ms = u64::try_from(hold_time.as_millis()).unwrap_or(u64::MAX);
    let mut taken = TakenOver::default();
    for shard in table.count().indexes() {
        // Of an heir that is retired in turn, what it was the heir of is open only once its own place was taken.
        for _ in 0..HEIRS_IN_A_ROW_MAX {
            let own = table.own();
            let mut places = table.read(shard, |state| places_of(state, retired, own)).unwrap_or_default();
            // Another heir may be noted by now for some of them, or the fence of one be open (rules E7, Q4).
            committer.retired(|known| {
                places.retain(|place| place.settles || last_heir(place.from, known) == Some(own));
            });
            for places in places.chunks(PLACES_AT_ONCE_MAX) {
                taken.add(take_places(places, ttl_ms, committer).await?);
            }
            if places.is_empty() {
                break;
            }
        }
        tokio::task::yield_now().await;
    }
    if taken.places > 0 {
        counter!("stockmesh_inherited_units_total").increment(taken.units);
        info!(%retired, places = taken.places, units = taken.units, held = taken.held, "a retired replica was taken over");
    }
    Ok(taken)
}

impl TakenOver {
    fn add(&mut self, other: Self) {
        self.places = self.places.saturating_add(other.places);
        self.units = self.units.saturating_add(other.units);
        self.held = self.held.saturating_add(other.held);
    }
}

/// Where this replica has something to take over of a retired one: what nobody took over yet, of it or of those whose heir
/// it was, and what turned up since.
fn places_of(state: &Shard, retired: ReplicaId, own: ReplicaId) -> Vec<Place> {
    let mut places = Vec::new();
    for product in state.range(Bound::Unbounded) {
        // Most products have nothing to do with it.
        let is_concerned = product.stock().iter().any(|slot| slot.replica == retired)
            || product.grants().iter().any(|slot| slot.from == retired || slot.to == retired)
            || product.inheritances().iter().any(|slot| slot.from == retired || slot.to == retired);
        let mut open = if is_concerned { product.estate(retired) } else { Vec::new() };
        open.retain(|(location, from)| product.heir(location, *from).is_none());
        let open = open.into_iter().map(|place| (place, false));
        let to_settle = product.to_settle(own).into_iter().map(|place| (place, true));
        places.extend(open.chain(to_settle).map(|((location, from), settles)| {
            let legacy = product.legacy(location, from);
            let rights = u64::try_from(legacy.rights.max(0)).unwrap_or(u64::MAX);
            // What the replica owes takes from what it held.
            let held = legacy.held.min(rights);
            Place { sku: product.sku.clone(), location: location.clone(), from, held, settles }
        }));
    }
    places
}

async fn take_places(places: &[Place], ttl_ms: u64, committer: &Committer) -> Result<TakenOver, WriteError> {
    let all = places.iter().flat_map(|place| operations(place, ttl_ms)).collect();
    match write(all, committer).await {
        // One of them cannot be done as it is: each by itself then.
        Err(WriteError::Refused(_)) => {}
        taken => return taken,
    }
    let mut taken = TakenOver::default();
    for place in places {
        let whole = write(operations(place, ttl_ms), committer).await;
        // Facts elsewhere may have taken what is to be held.
        let done = match whole {
            Err(WriteError::Refused(_)) => {
                let (sku, location) = (place.sku.clone(), place.location.clone());
                write(vec![Operation::Inherit { sku, location, from: place.from }], committer).await
            }
            whole => whole,
        };
        match done {
            Ok(more) => taken.add(more),
            Err(WriteError::Refused(error)) => {
                warn!(retired = %place.from, sku = %place.sku, location = %place.location, %error, "not taken over");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(taken)
}

fn operations(place: &Place, ttl_ms: u64) -> Vec<Operation> {
    let (sku, location) = (place.sku.clone(), place.location.clone());
    let mut operations = vec![Operation::Inherit { sku, location, from: place.from }];
    if let Ok(units) = Quantity::new(place.held) {
        let (sku, location) = (place.sku.clone(), place.location.clone());
        operations.push(Operation::Hold { sku, location, units, ttl_ms });
    }
    operations
}

async fn write(operations: Vec<Operation>, committer: &Committer) -> Result<TakenOver, WriteError> {
    let held = operations.iter().filter_map(|operation| match operation {
        Operation::Hold { units, .. } => Some(units.get()),
        _ => None,
    });
    let held = held.fold(0, u64::saturating_add);
    let outcomes = committer.write(Request::from(operations)).await?;
    let mut taken = TakenOver { held, ..TakenOver::default() };
    for outcome in outcomes {
        if let Outcome::Inherited { units, .. } = outcome {
            taken.add(TakenOver { places: 1, units: u64::try_from(units).unwrap_or_default(), held: 0 });
        }
    }
    Ok(taken)
}

/// Counts what former replicas of this directory alone had written when they were retired. Returns the number of places.
async fn bring(former: &[ReplicaId], table: &Table, committer: &Committer) -> Result<u64, WriteError> {
    let mut brought = 0;
    for shard in table.count().indexes() {
        let operations = table.read(shard, |state| missing_of(state, former)).unwrap_or_default();
        for operations in operations.chunks(PLACES_AT_ONCE_MAX) {
            brought += bring_some(operations, committer).await?;
        }
        tokio::task::yield_now().await;
    }
    if brought > 0 {
        counter!("stockmesh_reapplied_places_total").increment(brought);
        info!(places = brought, "what this node alone had when it was retired is counted under its new id");
    }
    Ok(brought)
}

/// All at once; if one of them cannot be done, each by itself.
async fn bring_some(operations: &[Operation], committer: &Committer) -> Result<u64, WriteError> {
    match committer.write(Request::from(operations.to_vec())).await {
        Ok(_) => return Ok(u64::try_from(operations.len()).unwrap_or(u64::MAX)),
        Err(WriteError::Refused(_)) => {}
        Err(error) => return Err(error),
    }
    let mut brought = 0;
    for operation in operations {
        match committer.write(Request::from(vec![operation.clone()])).await {
            Ok(_) => brought += 1,
            Err(WriteError::Refused(error)) => warn!(?operation, %error, "not counted again"),
            Err(error) => return Err(error),
        }
    }
    Ok(brought)
}

fn missing_of(state: &Shard, former: &[ReplicaId]) -> Vec<Operation> {
    let mut operations = Vec::new();
    for product in state.range(Bound::Unbounded) {
        let missing = product.to_reapply(|replica| former.contains(&replica)).into_iter();
        operations.extend(missing.map(|(location, from)| {
            let (sku, location) = (product.sku.clone(), location.clone());
            Operation::Reapply { sku, location, from }
        }));
    }
    operations
}

/// Takes over what turns up of retired replicas whose heir this one is, and counts what it alone had if it was retired
/// itself and returned. For as long as the store lives; it does not keep it alive.
pub(crate) async fn inherit_for_ever(committer: WeakCommitter, table: Arc<Table>) {
    let Some(mut news) = committer.upgrade().map(|committer| committer.retirement_news()) else { return };
    if let Some(committer) = committer.upgrade() {
        learn_of_state(&table, &committer).await;
    }
    loop {
        let done = match committer.upgrade() {
            Some(committer) => inherit_once(&table, &committer).await,
            None => return,
        };
        let again = match done {
            Ok(()) => Duration::MAX,
            Err(WriteError::Closed | WriteError::Poisoned { .. } | WriteError::Indeterminate { .. }) => return,
            Err(error) => {
                warn!(%error, "what retired replicas left could not be taken over; it is tried again");
                INHERIT_AGAIN_AFTER
            }
        };
        tokio::select! {
            biased;
            changed = news.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(again), if again < Duration::MAX => {}
        }
        // What comes in a stream is looked at once.
        tokio::time::sleep(INHERIT_PAUSE).await;
    }
}

/// The state says who was retired: also where what was stored of it is lost.
async fn learn_of_state(table: &Table, committer: &Committer) {
    let mut heirs: BTreeMap<ReplicaId, BTreeSet<ReplicaId>> = BTreeMap::new();
    for shard in table.count().indexes() {
        table.read(shard, |state| {
            for product in state.range(Bound::Unbounded) {
                for slot in product.inheritances().iter().filter(|slot| slot.taken.is_heir) {
                    heirs.entry(slot.from).or_default().insert(slot.to);
                }
            }
        });
    }
    for (retired, heirs) in heirs {
        if retired == table.own() {
            let _ = committer.retired_here(retired).await;
        }
        if committer.retired(|known| known.get(&retired).is_some_and(|noted| *noted != given_up(retired))) {
            continue;
        }
        for heir in heirs {
            let _ = committer.fence(retired, HeirClaim::TookOver { heir }).await;
        }
    }
}

async fn inherit_once(table: &Table, committer: &Committer) -> Result<(), WriteError> {
    let taking_over = committer.taking_over();
    let _guard = taking_over.lock().await;
    let own = table.own();
    let heir_of = |retired: &Retirements| {
        let mut of_own: Vec<ReplicaId> = retired.keys().copied().collect();
        of_own.retain(|replica| last_heir(*replica, retired) == Some(own));
        of_own
    };
    for retired in committer.retired(heir_of) {
        take_over(retired, RETIRED_HOLD_TIME_DEFAULT, table, committer).await?;
    }
    let mut former = committer.former_replicas();
    committer.retired(|retired| former.retain(|replica| retired.contains_key(replica)));
    if !former.is_empty() {
        bring(&former, table, committer).await?;
    }
    Ok(())
}
