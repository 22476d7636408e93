//! The second scene of `stockmesh demo`: all nodes sell one product of which there is too little, through a cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use rand::RngExt;
use stockmesh::{Store, WriteError};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::cluster::{Cluster, Node};
use crate::table::{Align, Table, grouped};

const SKU: &str = "FLASH-01";
const UNITS: u64 = 100;
/// Where the units lie, and from where every node sells.
const PLACE: &str = "online";
/// The cut begins and ends so long after the sale began.
const CUT: Duration = Duration::from_millis(150);
const HEALED: Duration = Duration::from_millis(750);
/// Pause between two customers of a node, at the most.
const PAUSE_MS_MAX: u64 = 40;
/// Customers are sent away so long at the most before the scene counts as failed.
const SOLD_OUT_WITHIN: Duration = Duration::from_secs(30);

/// What became of a node's customers.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    sold: u64,
    nothing_left: u64,
    out_of_reach: u64,
    not_given: u64,
    /// Of those sent away: how many while units were left at some node.
    in_vain: u64,
}

impl Tally {
    fn denied(self) -> u64 {
        self.nothing_left + self.out_of_reach + self.not_given
    }

    fn plus(self, other: Self) -> Self {
        Self {
            sold: self.sold + other.sold,
            nothing_left: self.nothing_left + other.nothing_left,
            out_of_reach: self.out_of_reach + other.out_of_reach,
            not_given: self.not_given + other.not_given,
            in_vain: self.in_vain + other.in_vain,
        }
    }
}

/// Sells everything at all nodes, with `last` cut off in between. Returns whether exactly what there was is sold.
pub(super) async fn run(cluster: &Cluster, first: &Node, last: &Node) -> anyhow::Result<bool> {
    first.store.product(SKU)?.at(PLACE)?.receive(UNITS).await?;
    let begun = Instant::now();
    let sold = Arc::new(AtomicU64::new(0));
    let mut sellers = JoinSet::new();
    for (number, node) in cluster.nodes.iter().enumerate() {
        let (store, sold) = (node.store.clone(), Arc::clone(&sold));
        sellers.spawn(async move { (number, sell(store, begun, &sold).await) });
    }
    tokio::time::sleep_until(begun + CUT).await;
    last.store.go_offline();
    tokio::time::sleep_until(begun + HEALED).await;
    last.store.go_online();
    let mut tallies = vec![Tally::default(); cluster.nodes.len()];
    while let Some(ended) = sellers.join_next().await {
        let (number, tally) = ended.context("a node's sale broke off")?;
        if let Some(place) = tallies.get_mut(number) {
            *place = tally.context("a sale failed")?;
        }
    }
    report(cluster, &tallies, last);
    Ok(tallies.iter().map(|tally| tally.sold).sum::<u64>() == UNITS)
}

/// One node's customers, each of whom wants one unit, until all are sold at all nodes, and a few more.
async fn sell(store: Store, begun: Instant, sold: &AtomicU64) -> anyhow::Result<Tally> {
    let product = store.product(SKU)?.at(PLACE)?;
    let mut tally = Tally::default();
    let mut late = 0;
    while late < 3 && begun.elapsed() < SOLD_OUT_WITHIN {
        let pause_ms = rand::rng().random_range(1..=PAUSE_MS_MAX);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        late += u32::from(sold.load(Ordering::SeqCst) >= UNITS);
        match product.sell(1).await {
            Ok(()) => {
                tally.sold += 1;
                sold.fetch_add(1, Ordering::SeqCst);
            }
            Err(WriteError::Insufficient { elsewhere, unreachable, .. }) => {
                tally.in_vain += u64::from(sold.load(Ordering::SeqCst) < UNITS);
                let reason = match (elsewhere, unreachable) {
                    (0, 0) => &mut tally.nothing_left,
                    (0, _) => &mut tally.out_of_reach,
                    _ => &mut tally.not_given,
                };
                *reason += 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(tally)
}

fn report(cluster: &Cluster, tallies: &[Tally], last: &Node) {
    let total = tallies.iter().copied().fold(Tally::default(), Tally::plus);
    println!("\nFlash sale: {UNITS} units of {SKU}, sold at all nodes; {} was cut off in between.\n", last.name);
    let columns = ["sold", "denied", "nothing left", "out of reach", "not given in time"];
    let mut header = vec![("node", Align::Left)];
    header.extend(columns.map(|name| (name, Align::Right)));
    let mut table = Table::new(&header);
    let names = cluster.nodes.iter().map(|node| node.name.clone()).chain(["all".to_owned()]);
    for (name, tally) in names.zip(tallies.iter().chain([&total])) {
        let figures = [tally.sold, tally.denied(), tally.nothing_left, tally.out_of_reach, tally.not_given];
        table.row([name].into_iter().chain(figures.map(grouped)));
    }
    println!("{table}");
    let customers = total.sold + total.denied();
    let share = 100 * total.in_vain / customers.max(1);
    println!("sold = {} of {UNITS}", total.sold);
    println!(
        "denied though there was stock at some node: {} of {} customers ({share} %), because of the cut",
        grouped(total.in_vain),
        grouped(customers)
    );
}
