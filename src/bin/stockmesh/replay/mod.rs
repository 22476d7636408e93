//! `stockmesh replay`: a file of transactions, replayed over some nodes that lose touch and agree again.

mod feed;
mod partition;
mod report;
mod route;
mod totals;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use stockmesh::Currency;
use stockmesh::transactions::{Columns, Field, Options, Reader, RowError};

use crate::cluster::{Cluster, MAX_NODES, units_on_hand};
use crate::{Outcome, progress};
use report::Report;
use route::Router;

/// Most cut-and-heal cycles in one run; more would not let a cut be noticed before it heals.
const MAX_PARTITIONS: i64 = 1_000;

/// Most operations in one batch; the store takes 10,000, and a row is up to two.
const MAX_BATCH_OPERATIONS: i64 = 5_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// CSV file with a header line, plain or compressed with zstd.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How many nodes to start.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_NODES)))]
    nodes: u16,
    /// How many times to cut a random node off and link it again, while rows keep coming.
    #[arg(long, default_value_t = 0, value_name = "K", value_parser = clap::value_parser!(u32).range(0..=MAX_PARTITIONS))]
    partition: u32,
    /// Write a report as JSON.
    #[arg(long, value_name = "OUT.json")]
    report: Option<PathBuf>,
    /// Write each node's totals as `sku,on_hand,price`: OUT.csv becomes OUT-node-1.csv, OUT-node-2.csv and so on.
    #[arg(long, value_name = "OUT.csv")]
    totals: Option<PathBuf>,
    /// Turn SKUs into upper case.
    #[arg(long)]
    uppercase: bool,
    /// Which column decides what node a row goes to. By default the invoice if there is one, else the location, else
    /// the SKU.
    #[arg(long, value_enum)]
    spread: Option<Spread>,
    /// Currency of the prices, an ISO 4217 code.
    #[arg(long, default_value = "GBP")]
    currency: String,
    /// Seed of the choice of nodes to cut off.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many operations a node commits at once.
    #[arg(long, default_value_t = 500, value_name = "OPERATIONS", value_parser = clap::value_parser!(u16).range(1..=MAX_BATCH_OPERATIONS))]
    batch: u16,
    /// How long the nodes may take to agree after the last write, in seconds.
    #[arg(long, default_value_t = 120, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    timeout: u32,
    /// Keep the stores in this directory, which must be new or empty, instead of a temporary one.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    columns: ColumnNames,
}

/// Names of columns that are not known by themselves.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Columns (found by usual names if not given)")]
struct ColumnNames {
    /// Column of the time.
    #[arg(long, value_name = "NAME")]
    column_time: Option<String>,
    /// Column of the product.
    #[arg(long, value_name = "NAME")]
    column_sku: Option<String>,
    /// Column of the quantity: units sold, negative for returns.
    #[arg(long, value_name = "NAME")]
    column_quantity: Option<String>,
    /// Column of the price of one unit.
    #[arg(long, value_name = "NAME")]
    column_price: Option<String>,
    /// Column of the location or country.
    #[arg(long, value_name = "NAME")]
    column_location: Option<String>,
    /// Column of the invoice.
    #[arg(long, value_name = "NAME")]
    column_invoice: Option<String>,
}

/// The column that decides where a row goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Spread {
    Invoice,
    Location,
    Sku,
}

impl Spread {
    fn field(self) -> Field {
        match self {
            Self::Invoice => Field::Invoice,
            Self::Location => Field::Location,
            Self::Sku => Field::Sku,
        }
    }
}

impl Arguments {
    fn options(&self) -> Options {
        let names = &self.columns;
        Options {
            columns: Columns {
                time: names.column_time.clone(),
                sku: names.column_sku.clone(),
                quantity: names.column_quantity.clone(),
                unit_price: names.column_price.clone(),
                location: names.column_location.clone(),
                invoice: names.column_invoice.clone(),
            },
            uppercase: self.uppercase,
        }
    }

    fn reader(&self) -> anyhow::Result<Reader<Box<dyn std::io::Read + Send>>> {
        Reader::open(&self.file, self.options()).with_context(|| self.file.display().to_string())
    }

    /// Looks at everything that could end a long run badly before it starts; returns the number of rows.
    fn check(&self) -> anyhow::Result<(u64, Spread)> {
        ensure!(self.partition == 0 || self.nodes > 1, "--partition {}: must be 0 with a single node", self.partition);
        let reader = self.reader()?;
        let present = [Spread::Invoice, Spread::Location].into_iter().find(|spread| reader.has(spread.field()));
        let spread = self.spread.or(present).unwrap_or(Spread::Sku);
        let field = spread.field();
        ensure!(reader.has(field), "--spread {field}: {} must have such a column", self.file.display());
        let mut rows = 0;
        for row in reader {
            if let Err(error @ RowError::Unreadable { .. }) = row {
                return Err(error).context(self.file.display().to_string());
            }
            rows += 1;
        }
        Ok((rows, spread))
    }
}

pub(crate) async fn run(arguments: Arguments) -> anyhow::Result<Outcome> {
    let Some(currency) = Currency::from_code(&arguments.currency.to_uppercase()) else {
        bail!("--currency {:?}: must be an ISO 4217 code, such as GBP", arguments.currency);
    };
    let plan = arguments.check()?;
    // Opened now, so that a wrong path costs no run.
    let report_file = arguments.report.as_deref().map(create).transpose()?;
    let cluster = Cluster::start(arguments.nodes, arguments.data_dir.as_deref()).await?;
    let mut report = replay(&arguments, &cluster, currency, plan).await?;
    if let Some(path) = &arguments.totals {
        report.totals_identical = Some(totals::write(path, &cluster)?);
    }
    if let Some(file) = report_file {
        report.write(file)?;
    }
    report.print(&cluster.table());
    cluster.close().await?;
    Ok(if report.is_good() { Outcome::Good } else { Outcome::Failed })
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("{}: must be a file that can be written", path.display()))
}

async fn replay(
    arguments: &Arguments,
    cluster: &Cluster,
    currency: Currency,
    (rows, spread): (u64, Spread),
) -> anyhow::Result<Report> {
    let cuts = partition::plan(rows, arguments.partition, arguments.nodes, arguments.seed);
    let bar = progress::bar(rows);
    let start = Instant::now();
    let (feeds, feeders) = feed::start(cluster, usize::from(arguments.batch));
    let router = Router {
        feeds,
        currency,
        spread,
        cuts: cuts.clone(),
        stores: cluster.nodes.iter().map(|node| node.store.clone()).collect(),
        bar: bar.clone(),
    };
    let reader = arguments.reader()?;
    // Reading and decompressing would hold up the nodes if it ran among their tasks.
    let routed = tokio::task::spawn_blocking(move || router.run(reader));
    let fed = feeders.finish().await;
    let routed = routed.await.context("the file's reader broke off")??;
    let written = start.elapsed();

    // A failed write ends the run early, maybe in the middle of a cut.
    for node in &cluster.nodes {
        node.store.go_online();
    }
    bar.set_message("waiting until all nodes agree");
    let timeout = Duration::from_secs(arguments.timeout.into());
    let convergence = cluster.converge(timeout).await;
    bar.finish_and_clear();

    let mut report = Report::new(&routed, fed, &cuts, written, convergence);
    report.file = arguments.file.display().to_string();
    report.nodes = arguments.nodes;
    report.seed = arguments.seed;
    for node in &cluster.nodes {
        let status = node.store.status();
        report.bytes_sent.insert(node.name.clone(), status.bytes_sent);
        report.units_on_hand.insert(node.name.clone(), units_on_hand(&node.store));
    }
    Ok(report)
}
