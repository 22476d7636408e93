//! Processes that are nodes, as the test that drives them sees them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stockmesh::certificates::{Authority, Validity};
use tempfile::TempDir;

use crate::node::{NAME, PEERS, ROOT};

/// How long a cluster may take for what it should do at once, on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How long a phase lasts: so many seconds unless the campaign says otherwise.
pub(crate) fn phase(seconds: u64) -> Duration {
    let seconds = std::env::var("STOCKMESH_SECONDS").map_or(seconds, |text| text.parse().unwrap());
    Duration::from_secs(seconds)
}

/// What a node told of itself when it was last asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) fingerprint: String,
    pub(crate) links: usize,
    pub(crate) alive: usize,
    pub(crate) down: usize,
    pub(crate) left: usize,
    pub(crate) bytes_sent: u64,
    pub(crate) shared: i128,
    /// Units that each node counted in, by its name.
    pub(crate) owns: BTreeMap<String, i128>,
}

impl Status {
    fn parse(words: &[&str]) -> Self {
        let number = |place: usize| words[place].parse().unwrap();
        let owns = words.get(7).copied().unwrap_or_default().split(',').filter(|text| !text.is_empty());
        Self {
            fingerprint: words[0].to_owned(),
            links: words[1].parse().unwrap(),
            alive: words[2].parse().unwrap(),
            down: words[3].parse().unwrap(),
            left: words[4].parse().unwrap(),
            bytes_sent: number(5),
            shared: words[6].parse().unwrap(),
            owns: owns
                .map(|text| text.split_once('=').unwrap())
                .map(|(name, units)| (name.to_owned(), units.parse().unwrap()))
                .collect(),
        }
    }
}

#[derive(Debug, Default)]
struct Told {
    opened: u64,
    own: i128,
    sold: i128,
    status: Option<Status>,
    last: String,
}

/// One node: its directory, and its process while it runs. What was acknowledged is counted over all its processes.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    root: PathBuf,
    told: Arc<Mutex<Told>>,
    running: Option<(Child, ChildStdin)>,
    /// Each may have left a write behind that was durable, and not told of yet.
    kills: i128,
}

/// The nodes of a cluster, and what they have in common.
pub(crate) struct Cluster {
    root: TempDir,
    authority: Authority,
    /// The test that is started as each node's process.
    test: &'static str,
    stocked: i128,
}

impl Cluster {
    pub(crate) fn new(test: &'static str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new("processes", Validity::from_days(30).unwrap()).unwrap();
        std::fs::write(root.path().join("ca.pem"), authority.certificate_pem()).unwrap();
        Self { root, authority, test, stocked: 0 }
    }

    /// A node that is not started yet. Its address is its own for good.
    pub(crate) fn node(&self, name: &str) -> Node {
        let issued = self.authority.issue(name, &[], Validity::from_days(30).unwrap()).unwrap();
        let root = self.root.path().to_owned();
        let free = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        std::fs::write(root.join(format!("{name}.pem")), issued.certificate_pem).unwrap();
        std::fs::write(root.join(format!("{name}.key")), issued.key_pem).unwrap();
        std::fs::write(root.join(format!("{name}.address")), address.to_string()).unwrap();
        Node { name: name.to_owned(), address, root, told: Arc::default(), running: None, kills: 0 }
    }

    pub(crate) fn start(&self, node: &mut Node, peers: &[SocketAddr]) {
        let peers: Vec<String> = peers.iter().map(SocketAddr::to_string).collect();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", self.test, "--nocapture"])
            .env(NAME, &node.name)
            .env(ROOT, &node.root)
            .env(PEERS, peers.join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (told, opened) = (Arc::clone(&node.told), node.opened());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                listen(&mut told.lock().unwrap(), &line);
            }
        });
        node.running = Some((child, stdin));
        until("the node opens", PATIENCE, || node.opened() > opened);
    }

    /// So many units that all may sell.
    pub(crate) fn stock(&mut self, node: &mut Node, units: u64) {
        node.say(&format!("stock {units}"));
        until("the stock is in", PATIENCE, || node.told.lock().unwrap().last == "stocked");
        self.stocked += i128::from(units);
    }

    /// Waits until all that run hold the same: what those knew alone that do not run is missing.
    pub(crate) fn settle_alive(&self, nodes: &mut [Node]) -> Duration {
        let begun = Instant::now();
        loop {
            let prints: Vec<String> = running(nodes).map(|node| node.status().fingerprint).collect();
            if prints.windows(2).all(|pair| pair[0] == pair[1]) {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "the nodes do not converge: {prints:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until all that run hold the same, and holds that against what was acknowledged. Returns how long it took.
    pub(crate) fn settle(&self, nodes: &mut [Node], gone: &[&Node]) -> Duration {
        let begun = Instant::now();
        loop {
            let statuses: Vec<Status> = running(nodes).map(Node::status).collect();
            if statuses.windows(2).all(|pair| pair[0].fingerprint == pair[1].fingerprint) {
                self.check(&statuses[0], nodes, gone);
                return begun.elapsed();
            }
            assert!(begun.elapsed() < PATIENCE, "the nodes do not converge: {statuses:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Nothing that was acknowledged is lost, and nothing was sold twice.
    fn check(&self, status: &Status, nodes: &[Node], gone: &[&Node]) {
        let mut sold = (0, 0);
        for node in nodes.iter().chain(gone.iter().copied()) {
            let told = node.told.lock().unwrap();
            let found = status.owns.get(&node.name).copied().unwrap_or_default();
            let known = told.own..=told.own + node.kills;
            assert!(known.contains(&found), "{}: {found} were counted in, {known:?} were told", node.name);
            sold = (sold.0 + told.sold, sold.1 + told.sold + node.kills);
        }
        let found = self.stocked - status.shared;
        assert!((sold.0..=sold.1).contains(&found), "{found} were sold, {sold:?} were told");
        assert!(status.shared >= 0);
    }
}

fn listen(told: &mut Told, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["own"] => told.own += 1,
        ["sold"] => told.sold += 1,
        ["open", ..] => told.opened += 1,
        ["status", rest @ ..] => told.status = Some(Status::parse(rest)),
        // The harness of the test prints too.
        ["stocked" | "closed" | "left" | "stayed", ..] => line.clone_into(&mut told.last),
        _ => {}
    }
}

pub(crate) fn running(nodes: &mut [Node]) -> impl Iterator<Item = &mut Node> {
    nodes.iter_mut().filter(|node| node.running.is_some())
}

impl Node {
    fn opened(&self) -> u64 {
        self.told.lock().unwrap().opened
    }

    pub(crate) fn say(&mut self, line: &str) {
        let (_, stdin) = self.running.as_mut().expect("the node runs");
        writeln!(stdin, "{line}").unwrap();
    }

    pub(crate) fn status(&mut self) -> Status {
        self.told.lock().unwrap().status = None;
        self.say("status");
        let begun = Instant::now();
        loop {
            if let Some(status) = self.told.lock().unwrap().status.clone() {
                return status;
            }
            assert!(begun.elapsed() < PATIENCE, "{} does not answer", self.name);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes that it acknowledged.
    pub(crate) fn acknowledged(&self) -> i128 {
        let told = self.told.lock().unwrap();
        told.own + told.sold
    }

    /// On Unix this is SIGKILL.
    pub(crate) fn kill(&mut self) {
        let (mut child, _) = self.running.take().expect("the node runs");
        child.kill().unwrap();
        child.wait().unwrap();
        self.kills += 1;
    }

    pub(crate) fn close(&mut self) {
        self.end("close", "closed");
    }

    pub(crate) fn leave(&mut self) {
        self.end("leave", "left");
    }

    fn end(&mut self, command: &str, answer: &str) {
        self.told.lock().unwrap().last.clear();
        self.say(command);
        until(answer, PATIENCE, || {
            let last = self.told.lock().unwrap().last.clone();
            assert!(!last.starts_with("stayed"), "{}: {last}", self.name);
            last.starts_with(answer)
        });
        let (mut child, _) = self.running.take().expect("the node runs");
        child.wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some((mut child, _)) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// KiB of UDP payload that those sent that run, since each was started.
pub(crate) fn kib_sent(nodes: &mut [Node]) -> u64 {
    running(nodes).map(|node| node.status().bytes_sent).sum::<u64>() >> 10
}

/// Polls until `reached`. Returns how long it took.
pub(crate) fn until(what: &str, limit: Duration, mut reached: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    begun.elapsed()
}

/// Runs a scenario; or, in a process that a scenario started, the node.
pub(crate) fn scenario(run: impl FnOnce()) {
    match std::env::var(NAME) {
        Ok(name) => {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(crate::node::run(name));
            runtime.shutdown_background();
        }
        Err(_) => run(),
    }
}
