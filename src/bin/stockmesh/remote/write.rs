//! Commands that change something.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Subcommand;
use serde_json::json;
use stockmesh::clients::{Client, Goods, HoldInfo, ResolvedInfo};
use stockmesh::{Currency, HoldId, Price};

use super::arguments::{Named, Node, Reference, duration};
use super::{Stopped, print, print_json};
use crate::Outcome;
use crate::table::{Align, Table, grouped, printable};

#[derive(Debug, clap::Args)]
pub(crate) struct Sell {
    /// The product.
    sku: String,
    /// Units.
    quantity: u64,
    /// How long the node may ask others for rights to sell, such as 500ms; at most 30s.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    deadline: Option<Duration>,
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    pub(super) node: Node,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Receive {
    /// The product.
    sku: String,
    /// Units.
    quantity: u64,
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    pub(super) node: Node,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PriceOf {
    /// The product.
    sku: String,
    /// The new price, a decimal number. Without it the price is shown.
    #[arg(requires = "currency")]
    amount: Option<String>,
    /// Its currency, three letters of ISO 4217.
    currency: Option<String>,
    #[command(flatten)]
    reference: Reference,
    #[command(flatten)]
    pub(super) node: Node,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Hold {
    #[command(flatten)]
    give: Option<Give>,
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    node: Option<Node>,
    #[command(subcommand)]
    command: Option<HoldCommand>,
}

#[derive(Debug, clap::Args)]
struct Give {
    /// The product.
    sku: String,
    /// Units.
    quantity: u64,
    /// For how long, such as 15m or 2d; at most 30d.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Duration,
    /// How long the node may ask others for rights to sell, such as 500ms; at most 30s.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    deadline: Option<Duration>,
}

#[derive(Debug, Subcommand)]
enum HoldCommand {
    /// Sell what a hold holds, all or a part; the rest is released.
    Commit {
        /// The hold.
        id: HoldId,
        /// Units; all unless said.
        quantity: Option<u64>,
        #[command(flatten)]
        node: Node,
    },
    /// Release what a hold holds.
    Release {
        /// The hold.
        id: HoldId,
        #[command(flatten)]
        node: Node,
    },
    /// List the holds that the node gave and that are not resolved.
    List(Node),
}

impl Hold {
    pub(super) fn node(&self) -> Option<&Node> {
        match &self.command {
            Some(HoldCommand::Commit { node, .. } | HoldCommand::Release { node, .. } | HoldCommand::List(node)) => {
                Some(node)
            }
            None => self.node.as_ref(),
        }
    }
}

fn within(goods: Goods, deadline: Option<Duration>) -> Goods {
    match deadline {
        Some(deadline) => goods.deadline(deadline),
        None => goods,
    }
}

pub(super) async fn sell(sell: &Sell, client: &Client) -> Result<Outcome, Stopped> {
    let (goods, reference) = sell.named.goods(&sell.sku)?;
    client.sell(&within(goods, sell.deadline), sell.quantity).await?;
    if sell.node.json {
        print_json(&json!({ "sold": sell.quantity, "sku": sell.sku, "reference": reference }))?;
    } else {
        print(&format!("sold {} of {}\n", grouped(sell.quantity), printable(&sell.sku)))?;
    }
    Ok(Outcome::Good)
}

pub(super) async fn receive(receive: &Receive, client: &Client) -> Result<Outcome, Stopped> {
    let (goods, reference) = receive.named.goods(&receive.sku)?;
    client.receive(&goods, receive.quantity).await?;
    if receive.node.json {
        print_json(&json!({ "received": receive.quantity, "sku": receive.sku, "reference": reference }))?;
    } else {
        print(&format!("received {} of {}\n", grouped(receive.quantity), printable(&receive.sku)))?;
    }
    Ok(Outcome::Good)
}

pub(super) async fn price(wanted: &PriceOf, client: &Client) -> Result<Outcome, Stopped> {
    let sku = printable(&wanted.sku);
    let (Some(amount), Some(currency)) = (&wanted.amount, &wanted.currency) else {
        return show_price(wanted, client).await;
    };
    let rule = || format!("price {amount:?}: must be a decimal number, such as 9.99");
    let amount = amount.parse().with_context(rule)?;
    let known = Currency::from_code(&currency.to_uppercase());
    let price = Price::new(amount, known.with_context(|| format!("{currency:?} is no currency of ISO 4217"))?)?;
    let (goods, reference) = wanted.reference.goods(&wanted.sku)?;
    client.set_price(&goods, price).await?;
    if wanted.node.json {
        let (amount, currency) = (price.amount().to_string(), price.currency().code());
        let document = json!({ "amount": amount, "currency": currency });
        print_json(&json!({ "sku": wanted.sku, "price": document, "reference": reference }))?;
    } else {
        print(&format!("the price of {sku} is {price}\n"))?;
    }
    Ok(Outcome::Good)
}

async fn show_price(wanted: &PriceOf, client: &Client) -> Result<Outcome, Stopped> {
    let found = client.get(&[&wanted.sku]).await?;
    let product = found.products.first();
    let price = product.and_then(|product| product.price);
    if wanted.node.json {
        print_json(&json!({ "sku": wanted.sku, "known": product.is_some(), "price": price }))?;
    } else if let Some(price) = price {
        print(&format!("{}\n", price.0))?;
    } else {
        let what = if product.is_some() { "has no price" } else { "is unknown to the node" };
        eprintln!("product {} {what}", printable(&wanted.sku));
    }
    Ok(if price.is_some() { Outcome::Good } else { Outcome::Failed })
}

pub(super) async fn hold(hold: Hold, client: &Client, json: bool) -> Result<Outcome, Stopped> {
    match (hold.command, hold.give) {
        (Some(HoldCommand::Commit { id, quantity, .. }), _) => {
            tell_resolved(id, &client.commit_hold(id, quantity).await?, json)
        }
        (Some(HoldCommand::Release { id, .. }), _) => tell_resolved(id, &client.release_hold(id).await?, json),
        (Some(HoldCommand::List(_)), _) => {
            let holds = client.holds().await?;
            if json {
                print_json(&json!({ "holds": holds }))?;
            } else {
                print(&holds_table(&holds))?;
            }
            Ok(Outcome::Good)
        }
        (None, Some(give)) => {
            let (goods, _) = hold.named.goods(&give.sku)?;
            let hold = client.hold(&within(goods, give.deadline), give.quantity, give.ttl).await?;
            if json {
                print_json(&hold)?;
            } else {
                print(&holds_table(&[hold]))?;
            }
            Ok(Outcome::Good)
        }
        (None, None) => Err(anyhow::anyhow!("hold: say which product and how many units, or a subcommand").into()),
    }
}

fn tell_resolved(id: HoldId, resolved: &ResolvedInfo, json: bool) -> Result<Outcome, Stopped> {
    if json {
        print_json(&json!({ "id": id.to_string(), "sold": resolved.sold, "released": resolved.released }))?;
    } else {
        print(&format!("{} sold, {} released\n", grouped(resolved.sold), grouped(resolved.released)))?;
    }
    Ok(Outcome::Good)
}

fn holds_table(holds: &[HoldInfo]) -> String {
    let mut table = Table::new(&[
        ("hold", Align::Left),
        ("sku", Align::Left),
        ("location", Align::Left),
        ("units", Align::Right),
        ("expires in", Align::Right),
        ("reference", Align::Left),
    ]);
    for hold in holds {
        let expires = UNIX_EPOCH + Duration::from_millis(hold.expires_ms);
        let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
        table.row([
            hold.id.to_string(),
            hold.sku.to_string(),
            hold.location.to_string(),
            grouped(hold.units),
            format!("{} s", grouped(left.as_secs())),
            hold.reference.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    table.to_string()
}
