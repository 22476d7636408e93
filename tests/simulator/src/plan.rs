//! What happens in a run: generated from the seed before anything runs, so that parts of it can be left out.
//!
//! Each seed switches a random part of the faults and of the operations on (Groce et al. 2012, "Swarm Testing"): where all
//! are on all the time, some hide what others would show.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use stockmesh::MembershipTiming;

use crate::network::Line;

/// How large a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Nodes at the beginning: 3 to 100, or 3 to 9, as the seed says.
    pub nodes: Option<u16>,
    /// Simulated minutes with faults.
    pub minutes: u64,
}

/// What a seed may switch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// Units are held, and holds resolved.
    Holds,
    /// Prices are set.
    Prices,
    /// Counts and corrections, which may take stock below zero.
    Facts,
    /// Stock moves between locations.
    Transfers,
    /// Several operations at once.
    Batches,
    /// Processes are killed.
    Kills,
    /// Power is lost.
    PowerLosses,
    /// Nodes are closed and opened again.
    Restarts,
    /// A node is cut off from all others.
    Partitions,
    /// Lines are cut in one direction.
    OneWayCuts,
    /// Lines are cut and mended again and again.
    Flapping,
    /// Lines lose, double, reorder and delay.
    Noise,
    /// Lines are narrow.
    Narrow,
    /// All lines are long, and membership is timed for that.
    Distance,
    /// Clocks jump.
    Jumps,
    /// Clocks run too fast or too slow.
    Drift,
    /// Disks are slow for a while.
    SlowDisks,
    /// Syncs fail, and the node is opened again.
    FailingDisks,
    /// Disks are full, and the node is opened again.
    FullDisks,
    /// A node is opened with an old copy of its directory, and told so.
    OldCopies,
    /// A node is opened with an old copy of its directory, and nobody says so.
    SecretCopies,
    /// Bits of a node's disks flip while it is down.
    Rot,
    /// Nodes come later.
    Joins,
    /// Nodes leave for good.
    Leaves,
    /// Nodes die for good, and are retired.
    Deaths,
    /// The dead return after all.
    Returns,
    /// Identities are loaded anew.
    Rotations,
    /// A clock jumps so far ahead that the others refuse its stamps for a while.
    FarJumps,
    /// There are members that only read.
    Readers,
    /// Products are listed, and taken off the list.
    Listings,
    /// A node's directory is copied to another machine, and both go on.
    Twins,
}

/// Something that happens at one node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Action {
    Receive {
        sku: String,
        place: &'static str,
        units: u64,
    },
    Sell {
        sku: String,
        place: &'static str,
        units: u64,
    },
    Hold {
        sku: String,
        place: &'static str,
        units: u64,
        seconds: u64,
    },
    CommitHold {
        pick: u64,
        part: bool,
    },
    ReleaseHold {
        pick: u64,
    },
    Adjust {
        sku: String,
        place: &'static str,
        units: i64,
    },
    Stocktake {
        sku: String,
        place: &'static str,
        counted: u64,
    },
    Transfer {
        sku: String,
        from: &'static str,
        to: &'static str,
        units: u64,
    },
    Batch {
        receive: Vec<(String, u64)>,
        sell: Vec<(String, u64)>,
    },
    Price {
        sku: String,
        cents: u64,
    },
    List {
        sku: String,
        listed: bool,
    },
    Kill,
    LosePower {
        seed: u64,
    },
    Close,
    /// A node that is down, or that there was not yet, is opened.
    Open {
        with: Directory,
    },
    Copy,
    /// A node that is down loses some bits of what it stored.
    Rot {
        seed: u64,
    },
    Leave,
    /// A node loses power, and nobody opens it again.
    Die,
    /// The dead node is retired from this one, if it can be.
    Retire {
        dead: u16,
    },
    /// The dead node is opened after all.
    Return,
    Rotate,
    /// A copy of that node's directory is opened at this one, and that node knows nothing of it.
    Twin {
        of: u16,
        has_its_certificate: bool,
    },
    Change {
        to: u16,
        line: Line,
    },
    ShiftClock {
        by_ms: i64,
    },
    DriftClock {
        millionths: i64,
    },
    SlowDisk {
        sync_ms: u64,
    },
    FailSync,
    FillDisk,
}

/// What a node is opened with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    /// What it left behind.
    Own,
    /// The old copy, if there is one, and the node is told so.
    Copy,
    /// The old copy, if there is one, without a word.
    SecretCopy,
}

/// When and where an action happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Since the beginning.
    pub at: Duration,
    /// The node.
    pub node: u16,
    /// What.
    pub action: Action,
}

/// All that is to happen in one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was generated from.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: u16,
    /// All numbers that nodes have.
    pub numbers: Vec<u16>,
    /// What is on.
    pub features: BTreeSet<Feature>,
    /// What happens, in its order.
    pub events: Vec<Event>,
    /// When the faults end.
    pub ends: Duration,
    /// Lines where nothing else is said.
    pub usual: Line,
    /// How fast failures are noticed.
    pub timing: MembershipTiming,
    /// How often nodes reconcile.
    pub reconcile_every: Duration,
    /// Shards of the cluster.
    pub shards: u32,
    /// How many links each keeps.
    pub links: usize,
    /// How long the nodes may take to agree once the faults have ended.
    pub agree_time_max: Duration,
    /// How long a sync takes, and up to how much longer.
    pub sync_time: (Duration, Duration),
    /// Length beyond which journals are folded.
    pub journal_bytes_max: u64,
}

/// Where stock lies.
pub const PLACES: [&str; 2] = ["hall", "shop"];

/// Whether only sales and the like touch a product, and no facts, so that it can never be oversold.
#[must_use]
pub fn is_guarded(sku: &str) -> bool {
    sku.starts_with("guarded")
}

impl fmt::Display for Plan {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, nodes, ends, features, events, .. } = self;
        write!(formatter, "seed {seed}: {nodes} nodes, {} s, {} events, {features:?}", ends.as_secs(), events.len())
    }
}
