//! Runs the program, and nodes of it.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything may take that should be done at once, on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn stockmesh() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stockmesh"));
    command.stdin(Stdio::null());
    command
}

/// What a command printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// The one JSON document that it printed.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

pub(crate) fn run(arguments: &[&str]) -> Ran {
    Ran::of(stockmesh().args(arguments).output().unwrap())
}

/// A directory with an authority and certificates, and nodes that were started in it.
pub(crate) struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let site = Self { directory };
        run(&["cert", "ca", "--out", &site.path("authority"), "--name", "tests"]).ended_with(0);
        site
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    /// Issues a certificate; its fingerprint.
    pub(crate) fn issue(&self, name: &str) -> String {
        let (authority, out) = (self.path("authority"), self.path("."));
        let issued = run(&["cert", "node", "--ca", &authority, "--name", name, "--out", &out]).ended_with(0);
        issued.out.lines().find_map(|line| line.strip_prefix("fingerprint ")).unwrap().to_owned()
    }

    /// Starts a node with more lines in its configuration, before its tables, and waits until it is up.
    pub(crate) fn node(&self, name: &str, more: &str) -> Node {
        if !Path::new(&self.path(&format!("{name}.pem"))).exists() {
            self.issue(name);
        }
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "data_dir = \"{name}.db\"\nlocation = \"{name}\"\nlisten = \"127.0.0.1:{port}\"\nshards = 16\n{more}\n[identity]\n\
             authority = \"authority/ca.pem\"\ncertificate = \"{name}.pem\"\nkey = \"{name}.key\"\n"
        );
        let path = PathBuf::from(self.path(&format!("{name}.toml")));
        std::fs::write(&path, config).unwrap();
        Node::start(path, format!("127.0.0.1:{port}"))
    }

    /// Runs a command against a node with a certificate of this site.
    pub(crate) fn ask(&self, certificate: &str, node: &str, arguments: &[&str]) -> Ran {
        let (ca, cert, key) = (
            self.path("authority/ca.pem"),
            self.path(&format!("{certificate}.pem")),
            self.path(&format!("{certificate}.key")),
        );
        let identity = ["--connect", node, "--ca", &ca, "--cert", &cert, "--key", &key];
        run(&[arguments, &identity].concat())
    }
}

/// A running node; killed when it is dropped.
pub(crate) struct Node {
    child: Child,
    pub(crate) address: String,
    pub(crate) config: PathBuf,
}

impl Node {
    fn start(config: PathBuf, address: String) -> Self {
        let mut child = stockmesh().arg("node").arg("--config").arg(&config).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut told = Vec::new();
        loop {
            match log.next() {
                Some(line) => told.push(line.unwrap()),
                None => panic!("the node ended: {told:#?}"),
            }
            if told.last().is_some_and(|line| line.contains("the node is up")) {
                break;
            }
        }
        // A pipe that nobody reads would stop it one day.
        std::thread::spawn(move || log.for_each(drop));
        Self { child, address, config }
    }

    /// Kills it without a farewell.
    pub(crate) fn kill(mut self) -> (PathBuf, String) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (self.config.clone(), self.address.clone())
    }

    pub(crate) fn restart((config, address): (PathBuf, String)) -> Self {
        Self::start(config, address)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
