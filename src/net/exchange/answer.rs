//! Gives rights away to a peer that asks (rules B3 to B5).

use std::sync::Arc;

use metrics::counter;
use quinn::SendStream;
use stockmesh_proto::delta::Products;
use stockmesh_proto::grant::GrantRequest;
use stockmesh_proto::reconcile::{Direction, StateView};
use stockmesh_proto::wire::{Ask, Granted, Message};

use crate::commit::{Asked, Given};
use crate::net::frames::write_message;
use crate::net::link::Link;
use crate::net::rights::queue;
use crate::net::session::SyncError;
use crate::net::shared::Shared;

/// Answers one question: durable before it is told. The rights go to the peer of the link, whoever else it may speak for.
pub(in crate::net) async fn answer(
    ask: Ask,
    mut send: SendStream,
    link: &Arc<Link>,
    shared: &Shared,
) -> Result<(), SyncError> {
    let shard = shared.table.count().shard_of(&ask.sku);
    // A read-only member could do nothing with rights, and has none to give (rule K2).
    let may_give = link.direction() == Some(Direction::Both) && link.may_be_answered();
    let given = if may_give { give(&ask, link, shared).await? } else { Given::default() };
    if given.units > 0 {
        counter!("stockmesh_grants_total").increment(1);
        counter!("stockmesh_grant_units_total").increment(given.units);
    }
    let Given { units, sequence, products } = given;
    write_message(&mut send, &Message::Granted(Granted { units, sequence, shard, products })).await?;
    let _ = send.finish();
    Ok(())
}

async fn give(ask: &Ask, link: &Link, shared: &Shared) -> Result<Given, SyncError> {
    let place = (ask.sku.clone(), ask.location.clone());
    let product = shared.table.get(ask.sku.as_str());
    let rights = product.map(|product| product.rights(&ask.location, shared.table.own())).unwrap_or_default();
    let rights = u64::try_from(rights.max(0)).unwrap_or(u64::MAX);
    let rights = queue::spare(&shared.rights, &place, rights, shared.table.own() < link.replica);
    let request = GrantRequest::new(ask.needed, ask.rights, ask.per_hour, rights, shared.rights.per_hour(&place));
    let units = shared.rights.policy.units(&request).min(rights);
    if units == 0 && ask.needed == 0 {
        return Ok(Given { products: Products::new(), ..Given::default() });
    }
    if units == 0 {
        // What is known of the product, so that the asker knows better. The committer is not kept from its work for that.
        let products = shared.table.at_location(&ask.sku, &ask.location);
        shared.committer.barrier().await?;
        return Ok(Given { products, ..Given::default() });
    }
    let asked = Asked { sku: place.0, location: place.1, to: link.replica, from: link.told, units };
    Ok(shared.committer.grant(asked).await?)
}
