//! What each node counts in the end, as CSV.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use stockmesh::{ProductView, Store};
use xxhash_rust::xxh3::Xxh3;

use crate::cluster::Cluster;

/// Writes one file per node; returns whether all are identical, byte by byte.
pub(super) fn write(path: &Path, cluster: &Cluster) -> anyhow::Result<bool> {
    let mut hashes = Vec::with_capacity(cluster.nodes.len());
    for node in &cluster.nodes {
        let path = path_of(path, &node.name);
        let hash = write_one(&path, &node.store)
            .with_context(|| format!("{}: must be a file that can be written", path.display()))?;
        hashes.push(hash);
    }
    Ok(hashes.windows(2).all(|pair| pair.first() == pair.last()))
}

/// OUT.csv and node-1 make OUT-node-1.csv.
fn path_of(path: &Path, node: &str) -> PathBuf {
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push("-");
    name.push(node);
    if let Some(extension) = path.extension() {
        name.push(".");
        name.push(extension);
    }
    path.with_file_name(name)
}

/// Writes one node's totals; returns the hash of the file.
fn write_one(path: &Path, store: &Store) -> std::io::Result<u128> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut hash = Xxh3::new();
    let mut write = |line: &str| {
        hash.update(line.as_bytes());
        file.write_all(line.as_bytes())
    };
    write("sku,on_hand,price\n")?;
    for product in store.query().iter() {
        write(&line(&product))?;
    }
    file.flush()?;
    Ok(hash.digest128())
}

fn line(product: &ProductView) -> String {
    let price = product.price().map(|price| price.amount().to_string());
    let sku = quoted(product.sku().as_str());
    format!("{sku},{},{}\n", product.on_hand(), price.unwrap_or_default())
}

/// A field, in quotes if it needs them.
fn quoted(field: &str) -> Cow<'_, str> {
    if field.contains(['"', ',', '\n', '\r']) {
        return Cow::Owned(format!("\"{}\"", field.replace('"', "\"\"")));
    }
    Cow::Borrowed(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_own_file() {
        assert_eq!(path_of(Path::new("a/t.csv"), "node-2"), Path::new("a/t-node-2.csv"));
        assert_eq!(path_of(Path::new("totals"), "node-1"), Path::new("totals-node-1"));
    }

    #[test]
    fn fields_are_quoted_only_where_needed() {
        assert_eq!(quoted("BANK CHARGES"), "BANK CHARGES");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
