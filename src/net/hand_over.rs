//! Holds that a node which leaves hands over to a peer (rule Q8).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quinn::SendStream;
use stockmesh_proto::check::{DriftCheck, check_products};
use stockmesh_proto::hold::HoldId;
use stockmesh_proto::limits::{HELLO_BYTES_MAX, HOLD_TTL_MS_MAX};
use stockmesh_proto::operation::{Books, Operation, Outcome, Remembered, Request};
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::{HoldTaken, Message, TakeHold};
use stockmesh_proto::{Quantity, Reference, ReplicaId};
use tracing::info;

use super::frames::{FrameError, read_message, write_message};
use super::link::Link;
use super::session::SyncError;
use super::shared::Shared;
use crate::commit::{Claim, RemoteDelta, Stopped};
use crate::limits::MESSAGE_TIME_MAX;

/// Takes a hold over from a peer that leaves: as many units are held here, for as long as they would have been there. A
/// repeated wish gets the same answer.
pub(super) async fn receive_take(
    take: TakeHold,
    mut send: SendStream,
    link: &Arc<Link>,
    shared: &Shared,
) -> Result<(), SyncError> {
    let is_leaving = shared.leaving.load(Ordering::SeqCst);
    let hold = match take.units {
        _ if is_leaving || !link.may_be_answered() => None,
        // Only asked whether this node would take over.
        0 if take.products.is_empty() => Some(take.hold),
        _ => take_over(take, link, shared).await?,
    };
    write_message(&mut send, &Message::Taken(HoldTaken { hold })).await?;
    let _ = send.finish();
    Ok(())
}

async fn take_over(take: TakeHold, link: &Link, shared: &Shared) -> Result<Option<HoldId>, SyncError> {
    let violation = |why: String| SyncError::from(FrameError::Violation(why));
    let TakeHold { hold, sku, location, units, expires_ms, products } = take;
    if link.read_only || hold.replica != link.replica {
        return Err(violation("a peer hands over a hold of another".into()));
    }
    let in_place = |(of, _): &(stockmesh_proto::Sku, _)| *of == sku;
    if products.len() > 1 || !products.iter().all(in_place) {
        return Err(violation("a hold is handed over with other products than its own".into()));
    }
    let (shards, now_ms) = (shared.table.count(), shared.wall.now_ms());
    let shard = shards.shard_of(&sku);
    let drift = DriftCheck { now_ms, drift_ms_max: shared.drift_ms_max };
    check_products(shards, shard, &products, drift).map_err(|refused| violation(refused.to_string()))?;
    let (Ok(units), Ok(reference)) = (Quantity::new(units), Reference::new(&format!("left/{hold}"))) else {
        return Err(violation("a hold is handed over that cannot be".into()));
    };
    // A repeated wish gets the same answer.
    let known = |books: &Books| books.remembered(&reference).map(Remembered::outcomes);
    if let Some(outcomes) = shared.committer.books(known) {
        return Ok(held(&outcomes));
    }
    let source = link.source(&products).await;
    let delta = RemoteDelta { shard, products, claim: Claim::Nothing };
    let merge = shared.committer.merge(vec![delta], source).await?;
    merge.await.map_err(|_| Stopped)??;
    // With the rights that it rests on; else a peer could hold this node's own units.
    let product = shared.table.get(sku.as_str());
    let granted = product.map_or(0, |product| product.granted(&location, link.replica, shared.table.own()));
    if granted < units.get() {
        return Ok(None);
    }
    let ttl_ms = expires_ms.saturating_sub(now_ms).min(HOLD_TTL_MS_MAX);
    if ttl_ms == 0 {
        return Ok(None);
    }
    let operations = vec![Operation::Hold { sku, location, units, ttl_ms }];
    let request = Request { operations, reference: Some(reference), may_backorder: false };
    match shared.committer.write(request).await {
        Ok(outcomes) => Ok(held(&outcomes)),
        Err(error) => {
            info!(%hold, %error, "a hold could not be taken over; its units can be sold here");
            Ok(None)
        }
    }
}

fn held(outcomes: &[Outcome]) -> Option<HoldId> {
    outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Held { id, .. } => Some(*id),
        _ => None,
    })
}

/// Hands a hold over to a linked peer, with the rights that it rests on. Returns the hold that the peer gave instead, if it
/// could; an error if there was no answer.
pub(super) async fn hand_over(to: ReplicaId, take: TakeHold, shared: &Shared) -> Result<Option<HoldId>, SyncError> {
    let gone = || SyncError::from(FrameError::Ended("the heir is not linked any more".into()));
    let link = shared.registry.link(to).filter(|link| link.knows_retirement && !link.read_only).ok_or_else(gone)?;
    let exchange = async {
        let (mut send, mut receive) = link.connection.open_bi().await?;
        write_message(&mut send, &Message::Take(take)).await?;
        let _ = send.finish();
        Ok::<_, SyncError>(read_message(&mut receive, HELLO_BYTES_MAX, None).await?)
    };
    match tokio::time::timeout(MESSAGE_TIME_MAX, exchange).await.map_err(|_| FrameError::Silent)?? {
        Some(Message::Taken(HoldTaken { hold })) => Ok(hold),
        _ => Err(FrameError::Ended("the heir did not answer".into()).into()),
    }
}
