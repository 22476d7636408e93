//! Replication lag: from the moment a probe was acknowledged to the moment another node shows it.

use std::collections::BTreeMap;

use crate::soaking::NODES;

/// Nodes that write and look, by number.
type Pair = (usize, usize);

/// Numbers of probes with the time at which they were acknowledged, or seen, in microseconds.
type Times = Vec<(u64, u64)>;

#[derive(Debug, Default)]
pub(crate) struct Lag {
    written: [Times; NODES],
    seen: BTreeMap<Pair, Times>,
}

/// One probe at one node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) written_us: u64,
    pub(crate) seen_us: u64,
}

impl Arrival {
    pub(crate) fn seconds(self) -> f64 {
        self.seen_us.saturating_sub(self.written_us) as f64 / 1e6
    }
}

impl Lag {
    pub(crate) fn wrote(&mut self, node: usize, number: u64, at_us: u64) {
        self.written[node].push((number, at_us));
    }

    pub(crate) fn saw(&mut self, writer: usize, reader: usize, number: u64, at_us: u64) {
        self.seen.entry((writer, reader)).or_default().push((number, at_us));
    }

    /// All probes that arrived, and how many never did. A node that shows a later probe has the earlier ones.
    pub(crate) fn arrivals(&self) -> (Vec<Arrival>, usize) {
        let (mut arrivals, mut missing) = (Vec::new(), 0);
        for writer in 0..NODES {
            for reader in (0..NODES).filter(|reader| *reader != writer) {
                let mut seen = self.seen.get(&(writer, reader)).into_iter().flatten().peekable();
                for (number, written_us) in &self.written[writer] {
                    // A process that was started again tells what it finds, once more.
                    while seen.next_if(|(shown, _)| shown < number).is_some() {}
                    match seen.peek() {
                        Some((_, seen_us)) => arrivals.push(Arrival { written_us: *written_us, seen_us: *seen_us }),
                        None => missing += 1,
                    }
                }
            }
        }
        (arrivals, missing)
    }
}

#[cfg(test)]
mod tests {
    use super::Lag;

    #[test]
    fn a_later_probe_stands_for_those_before_it() {
        let mut lag = Lag::default();
        (1..=4).for_each(|number| lag.wrote(0, number, number * 100));
        lag.saw(0, 1, 1, 150);
        lag.saw(0, 1, 3, 350);
        let (arrivals, missing) = lag.arrivals();
        let seen: Vec<u64> = arrivals.iter().map(|arrival| arrival.seen_us - arrival.written_us).collect();
        assert_eq!(seen, [50, 150, 50]);
        // The fourth at one node, and all at the six that said nothing.
        assert_eq!(missing, 1 + 6 * 4);
    }
}
