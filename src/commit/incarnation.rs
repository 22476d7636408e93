//! New incarnations: what a replica does when its own past turns up as a future (rule I2).

use metrics::counter;
use stockmesh_proto::ReplicaId;
use stockmesh_proto::reconcile::StateView;
use tokio::sync::broadcast;
use tracing::error;

use super::{Event, Progress};
use crate::limits::{FORMER_REPLICAS_MAX, INCARNATIONS_SHOWN_MAX};
use crate::settings::{self, Stored};
use crate::table::Table;
use crate::witness::{Incarnation, Witness};

/// This directory's past was seen elsewhere as a future, or its id under another certificate: it was restored from an
/// old copy, or cloned. From here on it
/// writes under a new id, and the old one's slots are somebody else's. Returns the settings to store with the group.
pub(super) fn mint(
    table: &Table,
    progress: &Progress,
    events: &broadcast::Sender<Event>,
    (why, from): (&str, Option<&Witness>),
) -> Stored {
    let former = table.own();
    let own = ReplicaId::from_random(rand::random());
    let shown_by = from.map(ToString::to_string).unwrap_or_default();
    error!(%former, %own, why, shown_by, "the directory was restored from an old copy or cloned, or somebody forged its writes: it goes on under a new replica id");
    counter!("stockmesh_incarnations_total").increment(1);
    table.set_own(own);
    {
        let mut incarnations = progress.incarnations.lock();
        if incarnations.len() == INCARNATIONS_SHOWN_MAX {
            incarnations.pop_front();
        }
        incarnations.push_back(Incarnation { former, own, shown_by: from.cloned() });
    }
    let all_former = {
        let mut list = progress.former.lock();
        list.push(former);
        let superfluous = list.len().saturating_sub(FORMER_REPLICAS_MAX);
        list.drain(..superfluous);
        list.clone()
    };
    let _ = events.send(Event::NewIncarnation);
    settings::identity(own, &all_former)
}
