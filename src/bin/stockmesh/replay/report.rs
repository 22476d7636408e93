//! What a replay did, for people and as JSON.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use super::feed::Fed;
use super::partition::Cut;
use super::route::Routed;
use crate::cluster::Convergence;
use crate::table::{Table, grouped, printable};

/// How many rejected rows the summary shows.
const SHOWN_REJECTIONS: usize = 5;

/// The report; the names of its fields are those of the JSON file.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// The file that was replayed.
    pub(super) file: String,
    /// Rows of the file, without header and blank lines.
    rows: u64,
    /// Rows that were left out.
    rejected: u64,
    /// The first of them.
    rejected_rows: Vec<RejectedRow>,
    /// Number of nodes.
    pub(super) nodes: u16,
    /// Number of cut-and-heal cycles.
    partitions: usize,
    /// Which node was cut off when.
    cuts: Vec<Cut>,
    /// Seed of the choice of nodes.
    pub(super) seed: u64,
    /// Operations acknowledged: an adjustment per row, and its price if above 0.
    operations: u64,
    /// From the first row to the last acknowledgement.
    seconds: f64,
    operations_per_second: u64,
    /// From the last acknowledgement to equal fingerprints, or for how long that was waited for.
    seconds_to_converge: f64,
    /// Whether all nodes have one fingerprint.
    converged: bool,
    fingerprint: Option<String>,
    /// Bytes sent by each node.
    pub(super) bytes_sent: BTreeMap<String, u64>,
    /// Units that the accepted rows add up to.
    units_expected: i128,
    /// Units that each node counts.
    pub(super) units_on_hand: BTreeMap<String, i128>,
    /// Whether the files of totals are the same; `null` if none were asked for.
    pub(super) totals_identical: Option<bool>,
    /// Why nodes stopped writing.
    write_errors: Vec<String>,
}

#[derive(Debug, Serialize)]
struct RejectedRow {
    line: u64,
    reason: String,
}

impl Report {
    pub(super) fn new(routed: &Routed, fed: Fed, cuts: &[Cut], written: Duration, convergence: Convergence) -> Self {
        let rejected_rows = routed
            .rejected_rows
            .iter()
            .map(|rejected| RejectedRow { line: rejected.line, reason: rejected.reason.to_string() });
        Self {
            file: String::new(),
            rows: routed.rows,
            rejected: routed.rejected,
            rejected_rows: rejected_rows.collect(),
            nodes: 0,
            partitions: cuts.len(),
            cuts: cuts.to_vec(),
            seed: 0,
            operations: fed.operations,
            seconds: written.as_secs_f64(),
            operations_per_second: per_second(fed.operations, written),
            seconds_to_converge: convergence.waited.as_secs_f64(),
            converged: convergence.fingerprint.is_some(),
            fingerprint: convergence.fingerprint.map(|fingerprint| fingerprint.to_string()),
            bytes_sent: BTreeMap::new(),
            units_expected: routed.units,
            units_on_hand: BTreeMap::new(),
            totals_identical: None,
            write_errors: fed.errors,
        }
    }

    /// Whether all was written, all nodes agree, and they count what the file says.
    pub(super) fn is_good(&self) -> bool {
        self.converged
            && self.write_errors.is_empty()
            && self.totals_identical != Some(false)
            && self.units_on_hand.values().all(|&units| units == self.units_expected)
    }

    pub(super) fn write(&self, file: File) -> anyhow::Result<()> {
        let mut file = BufWriter::new(file);
        serde_json::to_writer_pretty(&mut file, self).context("the report cannot be written")?;
        file.write_all(b"\n").and_then(|()| file.flush()).context("the report cannot be written")
    }

    /// Prints a summary to standard output.
    pub(super) fn print(&self, table: &Table) {
        println!(
            "{} rows over {} nodes: {} operations in {:.1} s, {} per second",
            grouped(self.rows),
            self.nodes,
            grouped(self.operations),
            self.seconds,
            grouped(self.operations_per_second)
        );
        if self.rejected > 0 {
            println!("{} rows rejected, the first of them:", grouped(self.rejected));
            for row in self.rejected_rows.iter().take(SHOWN_REJECTIONS) {
                println!("  line {}: {}", row.line, printable(&row.reason));
            }
        }
        let seconds = self.seconds_to_converge;
        let sent = grouped(self.bytes_sent.values().map(|&bytes| i128::from(bytes)).sum::<i128>());
        println!("{} cut-and-heal cycles; {sent} bytes sent", self.partitions);
        if self.converged {
            println!("converged {seconds:.3} s after the last write");
        } else {
            println!("NOT converged {seconds:.1} s after the last write");
        }
        println!("\n{table}");
        let expected = self.units_expected;
        if self.units_on_hand.values().any(|&units| units != expected) {
            println!("WRONG COUNT: the accepted rows add up to {} units", grouped(expected));
        }
        if self.totals_identical == Some(false) {
            println!("The files of totals DIFFER.");
        }
        for error in &self.write_errors {
            println!("{}", printable(error));
        }
    }
}

fn per_second(operations: u64, time: Duration) -> u64 {
    let rate = u128::from(operations) * 1_000_000 / time.as_micros().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(errors: Vec<String>, on_hand: i128) -> Report {
        let routed = Routed { rows: 3, units: -5, ..Routed::default() };
        let convergence = Convergence { fingerprint: None, waited: Duration::ZERO };
        let fed = Fed { operations: 3, errors };
        let mut report = Report::new(&routed, fed, &[], Duration::from_millis(500), convergence);
        report.converged = true;
        report.units_on_hand.insert("node-1".to_owned(), on_hand);
        report
    }

    #[test]
    fn only_a_whole_replay_is_good() {
        assert!(report(vec![], -5).is_good());
        assert!(!report(vec![], -6).is_good());
        assert!(!report(vec!["disk full".to_owned()], -5).is_good());
        let mut split = report(vec![], -5);
        split.converged = false;
        assert!(!split.is_good());
        let mut differing = report(vec![], -5);
        differing.totals_identical = Some(false);
        assert!(!differing.is_good());
    }

    #[test]
    fn the_json_has_the_promised_fields() {
        let value = serde_json::to_value(report(vec![], -5)).unwrap();
        assert_eq!(value["operations_per_second"], 6);
        assert_eq!(value["units_expected"], -5);
        for field in ["rows", "rejected", "rejected_rows", "nodes", "seconds", "bytes_sent", "converged"] {
            assert!(value.get(field).is_some(), "{field}");
        }
        assert!(value.get("fingerprint").is_some() && value.get("seconds_to_converge").is_some());
        assert!(value.get("partitions").is_some());
    }
}
