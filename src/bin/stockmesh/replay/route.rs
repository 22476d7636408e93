//! Reads the file and decides which node writes what.

use std::io::Read;

use indicatif::ProgressBar;
use stockmesh::transactions::{Reader, RejectReason, Rejected, RowError, Transaction};
use stockmesh::{Currency, Price, Store};
use xxhash_rust::xxh3::xxh3_64;

use super::Spread;
use super::feed::{Feed, Operation, Stopped};
use super::partition::Cut;

/// How many rejected rows are reported one by one: enough to see what is wrong with a file, too few to fill memory.
const REPORTED_REJECTIONS: usize = 1_000;

/// Rows between two moves of the progress bar.
const ROWS_PER_TICK: u64 = 1_024;

/// Takes rows from the file to the nodes' queues.
pub(super) struct Router {
    pub(super) feeds: Vec<Feed>,
    pub(super) currency: Currency,
    pub(super) spread: Spread,
    pub(super) cuts: Vec<Cut>,
    pub(super) stores: Vec<Store>,
    pub(super) bar: ProgressBar,
}

/// What was read and sent to the nodes.
#[derive(Debug, Default)]
pub(super) struct Routed {
    pub(super) rows: u64,
    pub(super) rejected: u64,
    /// The first [`REPORTED_REJECTIONS`] of them.
    pub(super) rejected_rows: Vec<Rejected>,
    /// Units that the accepted rows add to the stock, in sum.
    pub(super) units: i128,
}

/// What becomes of one row: which units of what, and at what price if it has one.
struct Planned {
    node: usize,
    adjust: Operation,
    set_price: Option<Operation>,
}

impl Router {
    /// Runs to the end of the file, or until a node stops taking batches. Must run outside the asynchronous tasks.
    pub(super) fn run<R: Read>(mut self, reader: Reader<R>) -> anyhow::Result<Routed> {
        let mut routed = Routed::default();
        for row in reader {
            self.cut_and_heal(routed.rows);
            routed.rows += 1;
            if routed.rows.is_multiple_of(ROWS_PER_TICK) {
                self.bar.set_position(routed.rows);
            }
            let rejected = match row {
                Ok(transaction) => match self.plan(&transaction) {
                    Ok(planned) => {
                        if self.send(planned).is_err() {
                            return Ok(routed);
                        }
                        routed.units += i128::from(transaction.stock_change());
                        continue;
                    }
                    Err(reason) => Rejected { line: transaction.line, reason },
                },
                Err(RowError::Rejected(rejected)) => rejected,
                Err(error) => return Err(error.into()),
            };
            routed.rejected += 1;
            if routed.rejected_rows.len() < REPORTED_REJECTIONS {
                routed.rejected_rows.push(rejected);
            }
        }
        self.cut_and_heal(routed.rows);
        // A node that stopped is reported by its own task.
        let _ = self.feeds.iter_mut().try_for_each(Feed::flush);
        Ok(routed)
    }

    /// Everything that can be wrong with a row is found before any part of it is sent.
    fn plan(&self, transaction: &Transaction) -> Result<Planned, RejectReason> {
        let key = match self.spread {
            Spread::Invoice => transaction.invoice.as_deref(),
            Spread::Location => transaction.location.as_deref(),
            Spread::Sku => Some(transaction.sku.as_str()),
        };
        let set_price = match transaction.unit_price {
            Some(amount) => {
                Some(Operation::SetPrice { sku: transaction.sku.clone(), price: Price::new(amount, self.currency)? })
            }
            None => None,
        };
        Ok(Planned {
            node: node_of(key.unwrap_or_default(), self.feeds.len()),
            adjust: Operation::Adjust { sku: transaction.sku.clone(), units: transaction.stock_change() },
            set_price,
        })
    }

    fn send(&mut self, planned: Planned) -> Result<(), Stopped> {
        self.feeds.get_mut(planned.node).ok_or(Stopped)?.push(planned.adjust)?;
        match planned.set_price {
            // The first node alone sets prices: with several writers the last in the file would not always win.
            Some(operation) => self.feeds.first_mut().ok_or(Stopped)?.push(operation),
            None => Ok(()),
        }
    }

    /// Does what is due after so many rows.
    fn cut_and_heal(&self, rows: u64) {
        for cut in &self.cuts {
            let Some(store) = self.stores.get(cut.index) else {
                continue;
            };
            if cut.cut_after_rows == rows {
                store.go_offline();
                self.bar.set_message(format!("{} is cut off", cut.node));
            }
            if cut.healed_after_rows == rows {
                store.go_online();
                self.bar.set_message("all nodes are linked");
            }
        }
    }
}

/// The node of a key, always the same for one number of nodes.
fn node_of(key: &str, nodes: usize) -> usize {
    let nodes = u64::try_from(nodes).unwrap_or(u64::MAX).max(1);
    usize::try_from(xxh3_64(key.as_bytes()) % nodes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_spread_over_all_nodes() {
        let mut rows = [0_u32; 8];
        for invoice in 536_365..546_365 {
            rows[node_of(&invoice.to_string(), 8)] += 1;
        }
        assert!(rows.iter().all(|&count| count > 1_000), "{rows:?}");
        assert_eq!(node_of("x", 0), 0);
    }
}
