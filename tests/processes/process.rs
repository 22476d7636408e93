//! Processes that are nodes, as the test that drives them sees them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stockmesh::certificates::{Authority, Validity};
use tempfile::TempDir;

use crate::node::{NAME, PEERS, ROOT, SEAM};

#[path = "own_address.rs"]
mod own_address;
use own_address::own_address;

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
    /// How often the node had to take a new id.
    pub(crate) new_ids: usize,
    pub(crate) is_poisoned: bool,
    /// In which life each other member is, by its name.
    pub(crate) generations: BTreeMap<String, i128>,
    /// Units that each node counted in, by its name.
    pub(crate) owns: BTreeMap<String, i128>,
    /// Why links were refused or closed.
    pub(crate) refused: String,
}

impl Status {
    fn parse(words: &[&str]) -> Self {
        let number = |place: usize| words[place].parse().unwrap();
        Self {
            fingerprint: words[0].to_owned(),
            links: words[1].parse().unwrap(),
            alive: words[2].parse().unwrap(),
            down: words[3].parse().unwrap(),
            left: words[4].parse().unwrap(),
            bytes_sent: number(5),
            shared: words[6].parse().unwrap(),
            new_ids: words[7].parse().unwrap(),
            is_poisoned: words[8].parse().unwrap(),
            generations: by_name(words[9]),
            owns: by_name(words[10]),
            refused: words[11].to_owned(),
        }
    }
}

fn by_name(list: &str) -> BTreeMap<String, i128> {
    let list = list.trim_matches(['[', ']']).split(',').filter(|text| !text.is_empty());
    list.map(|text| text.split_once('=').unwrap())
        .map(|(name, number)| (name.to_owned(), number.parse().unwrap()))
        .collect()
}

/// What a node told of its writes, over all its processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    opened: u64,
    /// Units that were acknowledged …
    pub(crate) own: i128,
    pub(crate) sold: i128,
    /// … and those of writes that failed with the disk: there or not.
    pub(crate) own_unsure: i128,
    pub(crate) sold_unsure: i128,
    /// Writes that a store refused whose disk had failed.
    pub(crate) refused: u64,
    /// How often it said that no write is under way any more.
    rests: u64,
    status: Option<Status>,
    last: String,
    /// What the nodes of the soak tell besides, until it is taken.
    besides: Vec<String>,
}

/// One node: its directory, and its process while it runs. What was acknowledged is counted over all its processes.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    root: PathBuf,
    /// The program that starts it elsewhere, with its arguments: in a namespace of its own. Without it, this machine's network
    /// is the node's, behind a socket that loses and delays.
    within: Vec<String>,
    /// Whether its disk fails on purpose.
    pub(crate) has_bad_disk: bool,
    told: Arc<Mutex<Told>>,
    running: Option<(Child, ChildStdin)>,
    /// Each may have left a write behind that was durable, and not told of yet.
    kills: i128,
    /// For one that never returns: the units that it had acknowledged when all held the same for the last time. What it
    /// acknowledged later is on its disk, and on others as far as it came to send it.
    left_behind: Option<(i128, i128)>,
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
        self.node_within(name, own_address(), Vec::new())
    }

    /// A node with an address of another namespace, where that program starts it.
    pub(crate) fn node_within(&self, name: &str, address: SocketAddr, within: Vec<String>) -> Node {
        let issued = self.authority.issue(name, &[], Validity::from_days(30).unwrap()).unwrap();
        let root = self.root.path().to_owned();
        std::fs::write(root.join(format!("{name}.pem")), issued.certificate_pem).unwrap();
        std::fs::write(root.join(format!("{name}.key")), issued.key_pem).unwrap();
        std::fs::write(root.join(format!("{name}.address")), address.to_string()).unwrap();
        let (name, told) = (name.to_owned(), Arc::default());
        Node { name, address, root, within, has_bad_disk: false, told, running: None, kills: 0, left_behind: None }
    }

    pub(crate) fn start(&self, node: &mut Node, peers: &[SocketAddr]) {
        let peers: Vec<String> = peers.iter().map(SocketAddr::to_string).collect();
        let mut child = this_test(self.test, &node.within)
            .env(NAME, &node.name)
            .envs(node.within.is_empty().then_some((SEAM, "")))
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
        node.told.lock().unwrap().last.clear();
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
            let (own, least) = node.left_behind.unwrap_or((told.own, told.sold));
            let known = own..=told.own + told.own_unsure + node.kills;
            assert!(known.contains(&found), "{}: {found} were counted in, {known:?} were told", node.name);
            let most = told.sold + told.sold_unsure + node.kills;
            sold = (sold.0 + least, sold.1 + most);
            let failed = told.own_unsure + told.sold_unsure + i128::from(told.refused);
            assert!(failed == 0 || node.has_bad_disk, "{}: its disk failed: {told:?}", node.name);
        }
        let found = self.stocked - status.shared;
        assert!((sold.0..=sold.1).contains(&found), "{found} were sold, {sold:?} were told");
        assert!(status.shared >= 0);
    }
}

/// A test of this program, to be started as another process.
pub(crate) fn this_test(test: &str, within: &[String]) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match within.split_first() {
        None => Command::new(program),
        Some((first, rest)) => {
            let mut command = Command::new(first);
            command.args(rest).arg(program);
            command
        }
    };
    command.args(["--exact", test, "--nocapture"]);
    command
}

fn listen(told: &mut Told, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["own", units] => told.own += units.parse::<i128>().unwrap(),
        ["sold", units] => told.sold += units.parse::<i128>().unwrap(),
        ["unsure", "own", units] => told.own_unsure += units.parse::<i128>().unwrap(),
        ["unsure", "sold", units] => told.sold_unsure += units.parse::<i128>().unwrap(),
        ["idle"] => told.rests += 1,
        ["refused"] => told.refused += 1,
        ["open", ..] => told.opened += 1,
        ["status", rest @ ..] => told.status = Some(Status::parse(rest)),
        ["soak", ..] => told.besides.push(line.to_owned()),
        // The harness of the test prints too.
        ["stocked" | "closed" | "left" | "stayed" | "abandoned", ..] => line.clone_into(&mut told.last),
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

    pub(crate) fn runs(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn say(&mut self, line: &str) {
        let (_, stdin) = self.running.as_mut().expect("the node runs");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{} ended by itself: {error}", self.name));
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

    pub(crate) fn told(&self) -> Told {
        self.told.lock().unwrap().clone()
    }

    pub(crate) fn take_besides(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap().besides)
    }

    /// Where a file of its own lies, with this end of its name.
    pub(crate) fn file(&self, end: &str) -> PathBuf {
        self.root.join(format!("{}.{end}", self.name))
    }

    /// Units of writes that it acknowledged.
    pub(crate) fn acknowledged(&self) -> i128 {
        let told = self.told.lock().unwrap();
        told.own + told.sold
    }

    /// Has it write no more, and waits until its last write was answered.
    pub(crate) fn rest(&mut self) {
        let before = self.told().rests;
        self.say("load off");
        until("no write is under way", PATIENCE, || self.told().rests > before);
    }

    /// Where its data lies.
    pub(crate) fn directory(&self) -> PathBuf {
        self.file("db")
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.running.as_ref().expect("the node runs").0.id()
    }

    /// On Unix this is SIGKILL.
    pub(crate) fn kill(&mut self) {
        let (mut child, _) = self.running.take().expect("the node runs");
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "{} ended by itself: {ended:?}", self.name);
        child.kill().unwrap();
        child.wait().unwrap();
        self.kills += 1;
    }

    /// Kills it, never to be started again, its disk lost too. `settled` is what it had told when all held the same.
    pub(crate) fn lose(&mut self, settled: &Told) {
        self.kill();
        self.left_behind = Some((settled.own, settled.sold));
    }

    pub(crate) fn close(&mut self) {
        self.end("close", "closed");
    }

    /// Ends a node whose store does not close well any more.
    pub(crate) fn abandon(&mut self) {
        self.end("abandon", "abandoned");
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
        let ended = child.wait().unwrap();
        assert!(ended.success(), "{} ended with a failure: {ended}", self.name);
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

/// Waits until each of those that run sees all the others alive.
pub(crate) fn all_known(nodes: &mut [Node]) -> Duration {
    let begun = Instant::now();
    let others = running(nodes).count() - 1;
    for node in running(nodes) {
        until("it knows all members", PATIENCE, || {
            let status = node.status();
            status.alive == others && status.links == others
        });
    }
    begun.elapsed()
}

/// Runs a scenario; or, in a process that a scenario started, the node.
pub(crate) fn scenario(run: impl FnOnce()) {
    match std::env::var(NAME) {
        Ok(name) => block_on(crate::node::run(name)),
        Err(_) => run(),
    }
}

/// Runs what a process of its own is for.
pub(crate) fn block_on(task: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(task);
    runtime.shutdown_background();
}
