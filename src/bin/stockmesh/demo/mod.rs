//! `stockmesh demo`: some nodes trade, one is cut off, and all agree again; then they sell out one product.

mod flash_sale;

use std::time::Duration;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stockmesh::{Currency, Decimal, Price, Reason, Store};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Outcome;
use crate::cluster::{Cluster, Convergence, MAX_NODES, Node, units_on_hand};
use crate::progress;
use crate::table::grouped;

/// The product whose way from one node to another is shown. The random trade leaves it alone.
const SHOWN_SKU: &str = "P001";
const SHOWN_UNITS: u64 = 100;
/// 99.99, in cents.
const SHOWN_PRICE_CENTS: i64 = 9_999;

/// How many products the random trade is about: few enough that nodes often write the same one.
const TRADED_PRODUCTS: u32 = 50;

/// Pause of a node between two writes: a busy shop, on a machine that stays usable.
const PAUSE: Duration = Duration::from_millis(2);

/// How long the nodes may take to agree after the cut has healed.
const AGREE_WITHIN: Duration = Duration::from_secs(30);

const TICK: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many nodes to start.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(2..=i64::from(MAX_NODES)))]
    nodes: u16,
    /// How long they trade, in seconds; one of them is cut off for the second half.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    seconds: u32,
}

/// What was acknowledged.
#[derive(Debug, Clone, Copy, Default)]
struct Written {
    operations: u64,
    units: i128,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let cluster = Cluster::start(arguments.nodes, None).await?;
    // There are two nodes at least.
    let (Some(first), Some(last)) = (cluster.nodes.first(), cluster.nodes.last()) else {
        anyhow::bail!("--nodes: must be at least 2");
    };
    let half = Duration::from_secs(arguments.seconds.into()) / 2;
    let written = trade_and_cut(&cluster, first, last, half).await?;
    last.store.go_online();
    let convergence = cluster.converge(AGREE_WITHIN).await;

    println!(
        "{} nodes, {} writes in {} s; {} was cut off for the last {:.1} s.\n",
        arguments.nodes,
        grouped(written.operations),
        arguments.seconds,
        last.name,
        half.as_secs_f64()
    );
    println!("{}", cluster.table());
    let agreed = report_agreement(convergence);
    let counted = report_units(&cluster, written.units);
    let seen = report_shown(first, last);
    let sold_out = flash_sale::run(&cluster, first, last).await?;
    cluster.close().await?;
    Ok(if agreed && counted && seen && sold_out { Outcome::Good } else { Outcome::Failed })
}

/// Trades at all nodes for twice `half`, with `last` cut off for the second one.
async fn trade_and_cut(cluster: &Cluster, first: &Node, last: &Node, half: Duration) -> anyhow::Result<Written> {
    let middle = Instant::now() + half;
    let end = middle + half;
    let mut writers = JoinSet::new();
    for node in &cluster.nodes {
        let seed = rand::random();
        writers.spawn(trade(node.name.clone(), node.store.clone(), end, seed));
    }
    let bar = progress::bar(u64::try_from((half * 2).as_millis())?);
    bar.set_message("all nodes are linked");
    tick_until(middle, &bar).await;

    last.store.go_offline();
    bar.set_message(format!("{} is cut off; all go on", last.name));
    // Written while the last node cannot hear of it, so that what it shows in the end has come by reconciliation.
    let shown = first.store.product(SHOWN_SKU)?;
    shown.receive(SHOWN_UNITS).await?;
    shown.set_price(Price::new(Decimal::new(SHOWN_PRICE_CENTS, 2), Currency::EUR)?).await?;
    tick_until(end, &bar).await;
    bar.set_message(format!("{} is back", last.name));

    let mut total = Written { operations: 2, units: SHOWN_UNITS.into() };
    while let Some(written) = writers.join_next().await {
        let written = written.context("a node's trade broke off")??;
        total.operations += written.operations;
        total.units += written.units;
    }
    bar.finish_and_clear();
    Ok(total)
}

async fn tick_until(end: Instant, bar: &indicatif::ProgressBar) {
    while Instant::now() < end {
        let next = (Instant::now() + TICK).min(end);
        tokio::time::sleep_until(next).await;
        bar.set_position(u64::try_from(bar.elapsed().as_millis()).unwrap_or(u64::MAX));
    }
}

/// Receives, sells and prices random products at one node.
async fn trade(name: String, store: Store, end: Instant, seed: u64) -> anyhow::Result<Written> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut written = Written::default();
    while Instant::now() < end {
        let units = write_one(&store, &mut random).await.with_context(|| format!("{name}: a write failed"))?;
        written.operations += 1;
        written.units += i128::from(units);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(written)
}

/// One write; returns by how many units it changed the stock.
async fn write_one(store: &Store, random: &mut StdRng) -> anyhow::Result<i64> {
    let product = store.product(&format!("P{}", 100 + random.random_range(0..TRADED_PRODUCTS)))?;
    // Few large receipts, many small sales: stock stays above zero in the long run.
    match random.random_range(0..10) {
        0..2 => {
            let units = random.random_range(1..=20_u32);
            product.receive(units.into()).await?;
            Ok(units.into())
        }
        2 => {
            let cents = random.random_range(1..=99_99);
            product.set_price(Price::new(Decimal::new(cents, 2), Currency::EUR)?).await?;
            Ok(0)
        }
        _ => {
            let units = -random.random_range(1..=3_i64);
            product.adjust(units, Reason::Sold).await?;
            Ok(units)
        }
    }
}

fn report_agreement(convergence: Convergence) -> bool {
    let waited_ms = convergence.waited.as_millis();
    match convergence.fingerprint {
        Some(_) => println!("converged {waited_ms} ms after the cut had healed"),
        None => println!("NOT converged within {waited_ms} ms after the cut had healed"),
    }
    convergence.fingerprint.is_some()
}

/// Compares what each node counts with what the writers were told was written.
fn report_units(cluster: &Cluster, acknowledged: i128) -> bool {
    let mut equal = true;
    for node in &cluster.nodes {
        let on_hand = units_on_hand(&node.store);
        if on_hand != acknowledged {
            equal = false;
            let (on_hand, acknowledged) = (grouped(on_hand), grouped(acknowledged));
            println!("{}: {on_hand} units on hand, but {acknowledged} acknowledged", node.name);
        }
    }
    if equal {
        println!("every node counts the {} units that were acknowledged", grouped(acknowledged));
    }
    equal
}

/// Reads on one node what was set on another.
fn report_shown(writer: &Node, reader: &Node) -> bool {
    let view = match reader.store.get(SHOWN_SKU) {
        Ok(view) => view,
        Err(error) => {
            println!("{}: {error}", reader.name);
            return false;
        }
    };
    let (available, price) = (view.available(), view.price());
    let amount = price.as_ref().map(Price::amount);
    let read = amount.map_or_else(|| "none".to_owned(), |amount| amount.to_string());
    println!();
    println!("availability {SHOWN_SKU}: {available} (received at {}, read at {})", writer.name, reader.name);
    println!("price {SHOWN_SKU}: {read} (set at {}, read at {})", writer.name, reader.name);
    available == i128::from(SHOWN_UNITS) && amount == Some(Decimal::new(SHOWN_PRICE_CENTS, 2))
}
