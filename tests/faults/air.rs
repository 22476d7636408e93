//! Network namespaces: one for each node, and one that all of them are linked with, the air, which forwards between them.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sky::{Sky, Weather};
use crate::tools::{attempt, attempt_with, run};

const PREFIX: &str = "stockmesh-";
/// The same for all nodes, since each has an address of its own.
const PORT: u16 = 7000;

/// The namespaces of a cluster. They end with it, also if the test fails.
pub(crate) struct Air {
    /// Names are unique, so that runs beside each other have nothing in common. Addresses need not be.
    name: String,
    nodes: usize,
    sky: Option<Sky>,
}

impl Air {
    /// The error says what this machine lacks.
    pub(crate) fn new(nodes: usize) -> Result<Self, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if attempt("id -u")? != "0" {
            return Err("it needs root".to_owned());
        }
        attempt("nft --version")?;
        remove_what_killed_runs_left()?;
        let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Made before what it removes.
        let air = Self { name, nodes, sky: None };
        air.build()?;
        Ok(air)
    }

    fn build(&self) -> Result<(), String> {
        let air = self.air();
        attempt(&format!("ip netns add {air}"))?;
        attempt(&format!("ip -n {air} link set lo up"))?;
        attempt(&format!("ip netns exec {air} sysctl -qw net.ipv4.ip_forward=1"))?;
        for number in 0..self.nodes {
            let (node, near, far) = (self.node(number), gateway(number), address(number).ip());
            attempt(&format!("ip netns add {node}"))?;
            attempt(&format!("ip -n {node} link set lo up"))?;
            attempt(&format!("ip -n {air} link add v{number} type veth peer name eth0 netns {node}"))?;
            attempt(&format!("ip -n {air} address add {near}/24 dev v{number}"))?;
            attempt(&format!("ip -n {air} link set v{number} up"))?;
            attempt(&format!("ip -n {node} address add {far}/24 dev eth0"))?;
            attempt(&format!("ip -n {node} link set eth0 up"))?;
            attempt(&format!("ip -n {node} route add default via {near}"))?;
        }
        // Whether the kernel filters.
        self.try_cut(&[])
    }

    fn air(&self) -> String {
        format!("{}-air", self.name)
    }

    fn node(&self, number: usize) -> String {
        format!("{}-n{number}", self.name)
    }

    /// What starts a program in a node's namespace.
    pub(crate) fn within(&self, number: usize) -> Vec<String> {
        within(&self.node(number))
    }

    /// Pulls a node's cable out at the far end, or puts it in again.
    pub(crate) fn plug(&self, number: usize, is_in: bool) {
        run(&format!("ip -n {} link set v{number} {}", self.air(), if is_in { "up" } else { "down" }));
    }

    /// Switches a node's own interface. While it is off the node has no route: whatever it sends is an error.
    pub(crate) fn switch(&self, number: usize, is_on: bool) {
        let node = self.node(number);
        run(&format!("ip -n {node} link set eth0 {}", if is_on { "up" } else { "down" }));
        if is_on {
            run(&format!("ip -n {node} route add default via {}", gateway(number)));
        }
    }

    /// Loses what goes from one node to another, for each of these pairs and no others.
    pub(crate) fn cut(&self, pairs: &[(usize, usize)]) {
        self.try_cut(pairs).unwrap_or_else(|error| panic!("{error}"));
    }

    fn try_cut(&self, pairs: &[(usize, usize)]) -> Result<(), String> {
        let mut script = "table inet cut {}\ndelete table inet cut\ntable inet cut {\nchain cut {\n".to_owned();
        script.push_str("type filter hook prerouting priority -300;\n");
        for (from, to) in pairs {
            let _ = writeln!(script, "ip saddr {} ip daddr {} drop", address(*from).ip(), address(*to).ip());
        }
        script.push_str("}\n}\n");
        attempt_with(&format!("ip netns exec {} nft -f -", self.air()), &script).map(drop)
    }

    /// From now on a process carries the datagrams, and weather can be made.
    pub(crate) fn raise_sky(&mut self, test: &str) {
        let air = self.air();
        let addresses: Vec<SocketAddr> = (0..self.nodes).map(address).collect();
        // The nodes' addresses count as the air's own where datagrams arrive, and not where they leave.
        run(&format!("ip -n {air} rule add pref 1 iif lo lookup main"));
        run(&format!("ip -n {air} rule add pref 10 lookup local"));
        run(&format!("ip -n {air} rule del pref 0"));
        for address in &addresses {
            run(&format!("ip -n {air} route add local {} dev lo table local", address.ip()));
        }
        self.sky = Some(Sky::raise(test, &within(&air), &addresses));
    }

    pub(crate) fn make(&mut self, weather: Weather) {
        self.sky.as_mut().expect("there is a sky").make(weather);
    }

    /// Bytes that all nodes sent so far, with all headers.
    pub(crate) fn bytes_sent(&self) -> u64 {
        let files = (0..self.nodes).map(|number| format!(" /sys/class/net/v{number}/statistics/rx_bytes"));
        let told = run(&format!("ip netns exec {} cat{}", self.air(), files.collect::<String>()));
        told.lines().map(|line| line.parse::<u64>().unwrap()).sum()
    }
}

impl Drop for Air {
    fn drop(&mut self) {
        drop(self.sky.take());
        for number in 0..self.nodes {
            let _ = attempt(&format!("ip netns delete {}", self.node(number)));
        }
        let _ = attempt(&format!("ip netns delete {}", self.air()));
    }
}

pub(crate) fn address(number: usize) -> SocketAddr {
    format!("10.88.{}.2:{PORT}", number + 1).parse().unwrap()
}

fn gateway(number: usize) -> String {
    format!("10.88.{}.1", number + 1)
}

fn within(namespace: &str) -> Vec<String> {
    // Not by `ip`, which would keep copies of what other tests have mounted.
    vec!["nsenter".to_owned(), format!("--net=/run/netns/{namespace}")]
}

fn remove_what_killed_runs_left() -> Result<(), String> {
    for line in attempt("ip netns list")?.lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            // Another run may do the same.
            let _ = attempt(&format!("ip netns delete {name}"));
        }
    }
    Ok(())
}
