//! Commands that show what a node knows.

use std::fmt::Write as _;
use std::io::{self, BufWriter, Write};

use serde_json::json;
use stockmesh::Location;
use stockmesh::clients::{Client, Found, ProductInfo, StatusInfo};

use super::arguments::Node;
use super::{Stopped, print, print_json};
use crate::Outcome;
use crate::table::{Align, Table, grouped, printable};

#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// The products.
    #[arg(value_name = "SKU", required_unless_present = "prefix", conflicts_with = "prefix")]
    skus: Vec<String>,
    /// All products whose SKU begins so; empty for all there are.
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Only the stock at this location.
    #[arg(long, value_name = "LOCATION")]
    at: Option<String>,
    #[command(flatten)]
    pub(super) node: Node,
}

pub(super) async fn status(client: &Client, json: bool) -> Result<Outcome, Stopped> {
    let status = client.status().await?;
    if json {
        print_json(&status)?;
    } else {
        print(&status_tables(&status))?;
    }
    Ok(Outcome::Good)
}

/// As the wire and JSON name it.
pub(super) fn name_of(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(String::from)).unwrap_or_default()
}

fn shown<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn status_tables(status: &StatusInfo) -> String {
    let mut facts = Table::new(&[("property", Align::Left), ("value", Align::Left)]);
    let members = &status.members;
    let cause = status.durability.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    let doubts: Vec<String> = status.shards_in_doubt.iter().map(ToString::to_string).collect();
    let former: Vec<String> = status.former_replicas.iter().map(ToString::to_string).collect();
    for (property, value) in [
        ("cluster", status.cluster.to_string()),
        ("location", status.location.to_string()),
        ("replica", status.replica.to_string()),
        ("former replicas", former.join(" ")),
        ("software", status.software.to_string()),
        ("listens on", shown(status.listen.as_ref())),
        ("offline", status.offline.to_string()),
        ("fingerprint", status.fingerprint.to_string()),
        ("products", grouped(status.products)),
        ("slots", grouped(status.slots)),
        ("holds", grouped(status.holds)),
        ("writes", format!("{}{cause}", name_of(&status.durability.state))),
        ("last batch", grouped(status.last_batch)),
        ("journal bytes", grouped(status.journal_bytes)),
        ("shards in doubt", if doubts.is_empty() { "none".to_owned() } else { doubts.join(" ") }),
        (
            "members",
            format!(
                "{} alive, {} suspect, {} down, {} left",
                members.alive, members.suspect, members.down, members.left
            ),
        ),
        ("bytes sent", grouped(status.bytes_sent)),
        ("bytes received", grouped(status.bytes_received)),
    ] {
        facts.row([property.to_owned(), value]);
    }
    let mut text = facts.to_string();
    let mut peers = Table::new(&[
        ("peer", Align::Left),
        ("replica", Align::Left),
        ("location", Align::Left),
        ("link", Align::Left),
        ("lag writes", Align::Right),
        ("skew ms", Align::Right),
        ("round trip ms", Align::Right),
        ("last error", Align::Left),
    ]);
    for peer in &status.peers {
        peers.row([
            peer.address.to_string(),
            shown(peer.replica),
            shown(peer.location.as_ref()),
            name_of(&peer.state),
            shown(peer.lag_writes),
            shown(peer.skew_ms),
            shown(peer.round_trip_us.map(|us| format!("{}.{:03}", us / 1_000, us % 1_000))),
            shown(peer.last_error.as_ref()),
        ]);
    }
    let _ = write!(text, "\n{peers}");
    if !status.refusals.is_empty() {
        let mut refusals = Table::new(&[("refused", Align::Left), ("reason", Align::Left)]);
        for refused in &status.refusals {
            refusals.row([refused.address.to_string(), refused.reason.to_string()]);
        }
        let _ = write!(text, "\n{refusals}");
    }
    text
}

pub(super) async fn members(client: &Client, json: bool) -> Result<Outcome, Stopped> {
    let members = client.members().await?;
    if json {
        print_json(&json!({ "members": members }))?;
        return Ok(Outcome::Good);
    }
    let mut table = Table::new(&[
        ("replica", Align::Left),
        ("address", Align::Left),
        ("location", Align::Left),
        ("state", Align::Left),
        ("role", Align::Left),
        ("version", Align::Left),
        ("labels", Align::Left),
    ]);
    for member in &members {
        let labels: Vec<String> = member.labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
        table.row([
            member.replica.to_string(),
            member.address.to_string(),
            member.location.to_string(),
            name_of(&member.state),
            if member.read_only { "reads" } else { "full" }.to_owned(),
            member.version.to_string(),
            labels.join(" "),
        ]);
    }
    print(&table.to_string())?;
    Ok(Outcome::Good)
}

pub(super) async fn get(get: &Get, client: &Client) -> Result<Outcome, Stopped> {
    let at = get.at.as_deref().map(Location::new).transpose()?;
    if let Some(prefix) = &get.prefix {
        return list(prefix, at.as_ref(), client, get.node.json).await;
    }
    let skus: Vec<&str> = get.skus.iter().map(String::as_str).collect();
    let Found { products, unknown, .. } = client.get_at(&skus, at.as_ref()).await?;
    if get.node.json {
        print_json(&json!({ "products": products, "unknown": unknown }))?;
    } else {
        print(&products_table(&products))?;
        for sku in &unknown {
            eprintln!("product {} is unknown to the node: no write of it has reached it", printable(sku.as_str()));
        }
    }
    Ok(if unknown.is_empty() { Outcome::Good } else { Outcome::Failed })
}

fn products_table(products: &[ProductInfo]) -> String {
    let mut table = Table::new(&[
        ("sku", Align::Left),
        ("location", Align::Left),
        ("on hand", Align::Right),
        ("held", Align::Right),
        ("available", Align::Right),
        ("oversold", Align::Right),
        ("price", Align::Right),
    ]);
    for product in products {
        let price = product.price.map(|price| price.0.to_string()).unwrap_or_default();
        let single = product.locations.first().filter(|_| product.locations_total == 1);
        let place = single.map_or_else(|| "all".to_owned(), |only| only.location.to_string());
        let sums = [product.on_hand, product.held, product.available, product.oversold];
        let figures = |sums: [stockmesh::clients::Shown<i128>; 4]| sums.map(|sum| grouped(sum.0));
        let row = [product.sku.to_string(), place].into_iter().chain(figures(sums)).chain([price]);
        table.row(row);
        if single.is_none() {
            for stock in &product.locations {
                let sums = [stock.on_hand, stock.held, stock.available, stock.oversold];
                table.row([String::new(), stock.location.to_string()].into_iter().chain(figures(sums)));
            }
        }
    }
    table.to_string()
}

/// Not as a table: its widths would need all products in memory at once.
async fn list(prefix: &str, at: Option<&Location>, client: &Client, json: bool) -> Result<Outcome, Stopped> {
    let mut listing = client.list(prefix, at).await?;
    let mut output = BufWriter::new(io::stdout());
    if json {
        write!(output, "{{\"products\":[")?;
    } else {
        writeln!(output, "{:>12}  {:>12}  {:>16}  sku", "on hand", "available", "price")?;
    }
    let mut is_first = true;
    while let Some(product) = listing.next().await? {
        if json {
            write!(output, "{}", if is_first { "\n" } else { ",\n" })?;
            serde_json::to_writer(&mut output, &product).map_err(io::Error::from)?;
        } else {
            let price = product.price.map(|price| price.0.to_string()).unwrap_or_default();
            let (on_hand, available) = (grouped(product.on_hand.0), grouped(product.available.0));
            let sku = printable(product.sku.as_str());
            writeln!(output, "{on_hand:>12}  {available:>12}  {price:>16}  {sku}")?;
        }
        is_first = false;
    }
    if json {
        writeln!(output, "],\"unknown\":[]}}")?;
    }
    output.flush()?;
    Ok(Outcome::Good)
}
