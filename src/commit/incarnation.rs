//! New incarnations: what a replica does when its own past turns up as a future (rule I2).

use metrics::counter;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::{ReplicaId, ShardIndex};
use tracing::error;

use super::side::delete_holds;
use super::worker::OWN_FUTURE;
use super::{Event, Progress, Worker};
use crate::limits::{FORMER_REPLICAS_MAX, INCARNATIONS_SHOWN_MAX};
use crate::settings::{self, Stored};
use crate::sync::broadcast;
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
    let own = ReplicaId::from_random(crate::chance::random());
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

impl Worker {
    pub(super) fn check_own_future(
        &mut self,
        replica: ReplicaId,
        (shard, sequence): (ShardIndex, u64),
        from: &Witness,
    ) {
        let own = self.table.own();
        let written = self.table.read(shard, |state| state.version().get(own)).unwrap_or_default();
        // One session notices it in many shards, but it is one incarnation: the others speak of the id that was left.
        if replica == own && sequence > written && !self.failed {
            self.mint_incarnation(OWN_FUTURE, Some(from));
        }
    }

    pub(super) fn mint_incarnation(&mut self, why: &str, from: Option<&Witness>) {
        let former = self.table.own();
        // Added to what an earlier change of the same group left.
        let stored = mint(&self.table, &self.progress, &self.events, (why, from));
        // The holds of the former id are somebody else's from now on: nobody can resolve them here (rule B6).
        let left = self.progress.books.write().take_holds();
        if !left.is_empty() {
            error!(holds = left.len(), "holds stay with the former replica id");
        }
        self.settings.extend(stored);
        self.settings.extend(delete_holds(&left));
        self.note_next_expiry();
        self.minted = Some(Incarnation { former, own: self.table.own(), shown_by: from.cloned() });
    }
}
