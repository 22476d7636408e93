//! `stockmesh inspect`: shows what a stopped store holds, and whether it is whole.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};
use stockmesh::{Inspection, ProductView};

use crate::Outcome;
use crate::table::{Align, Table, grouped, printable};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Data directory of a store that is not running.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// List the products too.
    #[arg(long)]
    products: bool,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let inspection =
        stockmesh::inspect(&arguments.directory).with_context(|| arguments.directory.display().to_string())?;
    let mut output = BufWriter::new(io::stdout().lock());
    let printed = if arguments.json {
        print_json(&mut output, &inspection, arguments.products)
    } else {
        print_tables(&mut output, &inspection, arguments.products)
    };
    match printed.and_then(|()| output.flush()) {
        // Whoever reads may have seen enough, as `head` has.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        result => result.context("standard output cannot be written")?,
    }
    Ok(if inspection.damage.is_empty() { Outcome::Good } else { Outcome::Failed })
}

fn print_tables(output: &mut impl Write, store: &Inspection, products: bool) -> io::Result<()> {
    let former: Vec<String> = store.former_replicas.iter().map(ToString::to_string).collect();
    let mut facts = Table::new(&[("property", Align::Left), ("value", Align::Left)]);
    for (property, value) in [
        ("cluster", store.cluster.to_string()),
        ("location", store.location.to_string()),
        ("replica", store.replica.to_string()),
        ("former replicas", former.join(" ")),
        ("shards", grouped(store.shards)),
        ("products", grouped(store.products)),
        ("slots", grouped(store.slots)),
        ("last batch", grouped(store.last_batch)),
        ("journal bytes", grouped(store.journal_bytes)),
        ("fingerprint", store.fingerprint.to_string()),
    ] {
        facts.row([property.to_owned(), value]);
    }
    write!(output, "{facts}")?;
    if products {
        writeln!(output)?;
        // Not a table: its widths would need all products in memory at once.
        writeln!(output, "{:>12}  {:>12}  {:>16}  sku", "on hand", "available", "price")?;
        for product in store.products() {
            let price = product.price().map(|price| price.to_string()).unwrap_or_default();
            writeln!(
                output,
                "{:>12}  {:>12}  {price:>16}  {}",
                grouped(product.on_hand()),
                grouped(product.available()),
                printable(product.sku().as_str())
            )?;
        }
    }
    writeln!(output)?;
    if store.damage.is_empty() {
        return writeln!(output, "No damage found.");
    }
    writeln!(output, "Damage found:")?;
    store.damage.iter().try_for_each(|damage| writeln!(output, "- {}", printable(damage)))
}

fn print_json(output: &mut impl Write, store: &Inspection, products: bool) -> io::Result<()> {
    let former: Vec<String> = store.former_replicas.iter().map(ToString::to_string).collect();
    let mut object = json!({
        "cluster": store.cluster.to_string(),
        "location": store.location.to_string(),
        "replica": store.replica.to_string(),
        "former_replicas": former,
        "shards": store.shards,
        "products": store.products,
        "slots": store.slots,
        "last_batch": store.last_batch,
        "journal_bytes": store.journal_bytes,
        "fingerprint": store.fingerprint.to_string(),
        "damage": store.damage,
    });
    if products && let Some(fields) = object.as_object_mut() {
        let list = store.products().map(|product| product_json(&product)).collect();
        fields.insert("product_list".to_owned(), Value::Array(list));
    }
    serde_json::to_writer_pretty(&mut *output, &object).map_err(io::Error::from)?;
    writeln!(output)
}

fn product_json(product: &ProductView) -> Value {
    // As text, because JSON readers take large or decimal numbers for floats.
    json!({
        "sku": product.sku().as_str(),
        "on_hand": product.on_hand().to_string(),
        "available": product.available().to_string(),
        "price": product.price().map(|price| price.to_string()),
        "listed": product.listed(),
    })
}
