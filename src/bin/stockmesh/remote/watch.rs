//! `stockmesh watch`: changes as they happen.

use std::io::{self, Write};

use stockmesh::Filter;
use stockmesh::clients::{Change, ChangeKind, Client, MemberInfo, ProductInfo};

use super::arguments::Node;
use super::show::name_of;
use super::{Stopped, print};
use crate::Outcome;
use crate::table::{grouped, printable};

#[derive(Debug, clap::Args)]
pub(crate) struct Watch {
    /// Only products whose SKU begins so.
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Tell also when fewer than so many units are available, when there are none, and when there are some again.
    #[arg(long, value_name = "UNITS")]
    below: Option<u64>,
    /// Only the stock at this location.
    #[arg(long, value_name = "LOCATION")]
    at: Option<String>,
    #[command(flatten)]
    pub(super) node: Node,
}

pub(super) async fn watch(watch: &Watch, client: &Client) -> Result<Outcome, Stopped> {
    let mut filter = Filter::prefix(watch.prefix.as_str());
    if let Some(units) = watch.below {
        filter = filter.below(units.into());
    }
    if let Some(location) = &watch.at {
        filter = filter.at(location)?;
    }
    let mut changes = client.watch(&filter).await?;
    eprintln!("watching");
    loop {
        let change = tokio::select! {
            change = changes.next() => change?,
            Ok(()) = tokio::signal::ctrl_c() => return Ok(Outcome::Good),
        };
        if watch.node.json {
            let mut line = serde_json::to_vec(&change).map_err(io::Error::from)?;
            line.push(b'\n');
            let mut output = io::stdout().lock();
            output.write_all(&line)?;
            output.flush()?;
        } else {
            print(&format!("{}\n", line_of(&change)))?;
        }
    }
}

fn line_of(change: &Change) -> String {
    let name = || change.product.as_ref().map(|product| printable(product.sku.as_str())).unwrap_or_default();
    match change.change {
        ChangeKind::Product => change.product.as_ref().map(line_of_product).unwrap_or_default(),
        ChangeKind::LowStock => {
            format!("low stock: {} available of {}", change.available.map_or(0, |units| units.0), name())
        }
        ChangeKind::OutOfStock => format!("out of stock: {}", name()),
        ChangeKind::BackInStock => format!("back in stock: {}", name()),
        ChangeKind::NewIncarnation => format!(
            "the node has a new replica id, {}: look for who else runs on a copy of its directory",
            change.replica.map(|replica| replica.to_string()).unwrap_or_default()
        ),
        ChangeKind::IdentityExpires => "the node's certificate expires soon".to_owned(),
        ChangeKind::Member => change.member.as_deref().map(line_of_member).unwrap_or_default(),
        ChangeKind::Lagged => {
            format!("{} batches were missed; all that is watched follows", change.missed.unwrap_or_default())
        }
        _ => "a change that this version does not know".to_owned(),
    }
}

fn line_of_member(member: &MemberInfo) -> String {
    let (location, address) = (printable(member.location.as_str()), printable(member.address.as_str()));
    format!("member {} at {location}, {address}: {}", member.replica, name_of(&member.state))
}

fn line_of_product(product: &ProductInfo) -> String {
    let price = product.price.map(|price| format!(", {}", price.0)).unwrap_or_default();
    let (on_hand, available) = (grouped(product.on_hand.0), grouped(product.available.0));
    format!("{}: {on_hand} on hand, {available} available{price}", printable(product.sku.as_str()))
}
