//! A cluster whose nodes are processes in namespaces of their own, and how a scenario is told.

use std::fs::read_to_string;
use std::time::{Duration, Instant};

use crate::air::{Air, address};
use crate::process::{Cluster, Node, PATIENCE, Status, all_known, block_on, running, scenario, until};
use crate::sky::SKY;
use crate::tools::{run, skip};

/// Within this all know of a member that fell silent, as the timing for a LAN promises, and a second for looking.
pub(crate) const NOTICED_WITHIN: Duration = Duration::from_secs(21);

/// So few that they are sold out again and again: who oversells is found out.
const STOCK: u64 = 200;

/// In the order in which they must end.
pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    pub(crate) cluster: Cluster,
    pub(crate) air: Air,
    bytes_before: u64,
}

/// Runs a scenario with that many nodes, which write already; or what a process of it is for.
pub(crate) fn faults(test: &'static str, count: usize, scene: impl FnOnce(World)) {
    if let Ok(addresses) = std::env::var(SKY) {
        return block_on(crate::sky::run(addresses));
    }
    scenario(|| match Air::new(count) {
        Ok(air) => scene(World::new(test, count, air)),
        Err(why) => skip(test, &why),
    });
}

impl World {
    fn new(test: &'static str, count: usize, air: Air) -> Self {
        let cluster = Cluster::new(test);
        let node = |number| cluster.node_within(&format!("n{number}"), address(number), air.within(number));
        let nodes = (0..count).map(node).collect();
        Self { nodes, cluster, air, bytes_before: 0 }
    }

    /// Starts a node that did not run.
    pub(crate) fn start(&mut self, number: usize) {
        // The first is whom all others know; it knows the second.
        let bootstrap = address(usize::from(number == 0));
        self.cluster.start(&mut self.nodes[number], &[bootstrap]);
    }

    /// Starts all, and has them write.
    pub(crate) fn grow(&mut self) {
        (0..self.nodes.len()).for_each(|number| self.start(number));
        all_known(&mut self.nodes);
        self.stock(0);
        self.load();
    }

    /// More to sell.
    pub(crate) fn stock(&mut self, number: usize) {
        self.cluster.stock(&mut self.nodes[number], STOCK);
    }

    /// Stops a process, and waits until none of its threads is under way in the kernel any more.
    pub(crate) fn pause(&self, number: usize) {
        let process = self.nodes[number].process_id();
        run(&format!("kill -STOP {process}"));
        until("all threads stand still", PATIENCE, || {
            let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
            // One that ended meanwhile stands still.
            let states = threads.flatten().filter_map(|thread| read_to_string(thread.path().join("stat")).ok());
            states.into_iter().all(|state| state.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T")))
        });
    }

    pub(crate) fn go_on(&self, number: usize) {
        run(&format!("kill -CONT {}", self.nodes[number].process_id()));
    }

    pub(crate) fn load(&mut self) {
        running(&mut self.nodes).for_each(|node| node.say("load on"));
    }

    /// All that run write no more.
    pub(crate) fn rest(&mut self) {
        running(&mut self.nodes).for_each(Node::rest);
    }

    /// From here on bytes are counted.
    pub(crate) fn begin(&mut self) {
        self.bytes_before = self.air.bytes_sent();
    }

    /// Waits until a node writes that did not, or could not.
    pub(crate) fn writes(&self, number: usize) {
        let node = &self.nodes[number];
        let before = node.acknowledged();
        until("it writes", PATIENCE, || node.acknowledged() > before + 5);
    }

    /// Waits until all of these see so many members down.
    pub(crate) fn see_down(&mut self, by: &[usize], count: usize) -> Duration {
        let begun = Instant::now();
        for number in by {
            let node = &mut self.nodes[*number];
            until("the failure is noticed", PATIENCE, || node.status().down >= count);
        }
        begun.elapsed()
    }

    pub(crate) fn status(&mut self, number: usize) -> Status {
        self.nodes[number].status()
    }

    /// Ends a scenario, after which writes go on: nothing acknowledged is lost, nothing is oversold, no node lost its id.
    pub(crate) fn settle(&mut self, scenario: &str, noticed: Option<Duration>) {
        self.rest();
        let begun = Instant::now();
        self.cluster.settle(&mut self.nodes, &[]);
        let converged = begun.elapsed();
        for node in running(&mut self.nodes) {
            assert_eq!(node.status().new_ids, 0, "{} took a new id", node.name);
        }
        let kib = (self.air.bytes_sent() - self.bytes_before) >> 10;
        let noticed = noticed.map_or("-".to_owned(), |noticed| format!("{noticed:.1?}"));
        println!("{scenario:<44} noticed {noticed:>6}, converged {converged:>8.1?}, {kib:>6} KiB sent");
        self.load();
        self.begin();
    }
}
