//! Nodes that leave, die and are retired, return, or lose bits of what they stored.

use std::time::Duration;

use stockmesh::{Durability, LeaveError, Left};
use tokio::task::JoinHandle;

use crate::chance::Chance;
use crate::disks::Images;
use crate::network::address;
use crate::operations::Caller;
use crate::plan::Directory;
use crate::world::{Node, World};

/// How long a node may take to leave, and to retire another.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often it is tried to retire a node, and the pause between.
const RETIRE_TRIES: u32 = 3;
const RETIRE_PAUSE: Duration = Duration::from_secs(4);
/// Bits that flip on a disk, at the most.
const ROT_BITS_MAX: u64 = 8;
/// Places that are looked at to find one that holds something.
const ROT_DRAWS: usize = 8;

/// A node that is about to leave.
pub(crate) type Leaving = JoinHandle<Result<Left, LeaveError>>;

impl World {
    /// A node begins to leave, while its callers go on.
    pub(crate) fn leave(&mut self, number: u16) {
        let Some(node) = self.node(number) else { return };
        if let (Some(store), None) = (&node.store, &node.leaving) {
            let leave = store.leave().deadline(DEADLINE);
            node.leaving = Some(tokio::spawn(leave.into_future()));
        }
    }

    /// Nodes whose leaving has come to an end are not opened any more.
    pub async fn note_departures(&mut self) {
        let mut ended = Vec::new();
        for node in &mut self.nodes {
            if node.leaving.as_ref().is_none_or(|leaving| !leaving.is_finished()) {
                continue;
            }
            let Some(leaving) = node.leaving.take() else { continue };
            let left = leaving.await;
            self.trace.note(format_args!("node {}: leaves: {left:?}", node.number));
            if matches!(left, Ok(Ok(_))) {
                // What it said when it went, its callers hear; then the process ends.
                node.store = None;
                node.watched = None;
                node.images = node.disks.kill();
                node.is_out = true;
                ended.push(node.number);
                self.network.unplug(address(node.number));
            }
        }
        ended.into_iter().for_each(|number| self.witness_ended(number));
    }

    /// Waits for those that are leaving.
    pub(crate) async fn departures_end(&mut self) {
        while self.nodes.iter().any(|node| node.leaving.is_some()) {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.note_departures().await;
        }
    }

    /// A node loses power, and stays away.
    pub(crate) fn die(&mut self, number: u16) {
        let power = u64::from(number) ^ self.plan.seed;
        self.kill(number, Some(power));
        let Some(node) = self.node(number) else { return };
        if node.images[0].is_empty() || node.is_out {
            return;
        }
        (node.is_out, node.is_dead) = (true, true);
        self.books.doubt(number, Duration::ZERO);
        self.doubt_departed();
    }

    /// What only a node had that is gone: also what it held of those that are gone themselves.
    pub(crate) fn doubt_departed(&self) {
        for gone in self.nodes.iter().filter(|node| node.is_out) {
            self.books.doubt(gone.number, Duration::ZERO);
        }
    }

    /// A node retires a dead one, unless somebody cannot be reached.
    pub(crate) fn retire(&mut self, number: u16, dead: u16) {
        let Some(replica) = self.node(dead).filter(|node| node.is_dead).and_then(|node| node.replica) else { return };
        let (books, trace) = (self.books.clone(), self.trace.clone());
        let Some(node) = self.node(number) else { return };
        let Some(store) = node.store.clone() else { return };
        node.callers.spawn(async move {
            for _ in 0..RETIRE_TRIES {
                let retired = store.retire(replica).deadline(DEADLINE).await;
                trace.note(format_args!("node {number}: retires node {dead}: {retired:?}"));
                if retired.is_ok() {
                    books.note_retired(dead);
                }
                if retired.is_ok() || store.status().durability == Durability::Closed {
                    return;
                }
                tokio::time::sleep(RETIRE_PAUSE).await;
            }
        });
    }

    /// A dead node may be opened again: whatever was taken over from it counts twice where it sold it itself.
    pub(crate) fn may_return(&mut self, number: u16) -> bool {
        let Some(node) = self.node(number).filter(|node| node.is_dead) else { return false };
        (node.is_out, node.is_dead, node.was_set_back, node.has_returned) = (false, false, true, true);
        true
    }

    /// The operator of a member that only reads deletes its directory: it gets all from the others.
    pub(crate) async fn begin_anew(&mut self, number: u16) -> Result<(), String> {
        self.trace.note(format_args!("node {number}: says that it holds what no other does, and begins anew"));
        self.kill(number, None);
        let Some(node) = self.node(number) else { return Ok(()) };
        node.images = Images::default();
        self.open(number, Directory::Own).await
    }

    /// Some bits of a node that is down flip, on one of its two disks: the mark is the second witness of what was
    /// durable, and where both are damaged at once the loss of the last commit goes unnoticed. A loss of power does that to the
    /// mark, which is not synced.
    pub(crate) fn rot(&mut self, number: u16, seed: u64) {
        let may_rot = |node: &&mut Node| node.store.is_none() && !node.images[0].is_empty() && !node.has_lost_power;
        let Some(node) = self.node(number).filter(may_rot) else { return };
        let mut chance = Chance::new(seed);
        let image = &mut node.images[usize::from(chance.per_mille(200))];
        for _ in 0..chance.within(1..=ROT_BITS_MAX) {
            // Most of a file holds nothing yet.
            let drawn: [usize; ROT_DRAWS] = std::array::from_fn(|_| chance.below(image.len()));
            let at = drawn.into_iter().find(|at| image[*at] != 0).unwrap_or(drawn[0]);
            if let Some(byte) = image.get_mut(at) {
                *byte ^= 1 << chance.below(8);
            }
        }
        node.is_rotten = true;
    }

    /// Loads the identity anew.
    pub(crate) fn rotate(&mut self, number: u16) -> Result<(), String> {
        let Some(node) = self.node(number) else { return Ok(()) };
        let Some(store) = node.store.clone() else { return Ok(()) };
        let identity = crate::endpoint::identity(node.certificate).map_err(|error| error.to_string())?;
        store.reload_identity(identity).map_err(|error| format!("node {number} does not take its identity: {error}"))
    }

    /// Callers of a node whose writes were not answered ask again.
    pub(crate) fn ask_again(&mut self, number: u16) {
        let (books, trace) = (self.books.clone(), self.trace.clone());
        let Some(node) = self.node(number) else { return };
        let Some(store) = node.store.clone() else { return };
        // Under another id a write might be done a second time.
        let unanswered = if node.was_set_back { Vec::new() } else { books.unanswered(number) };
        for (write, action) in unanswered {
            let (store, books, trace) = (store.clone(), books.clone(), trace.clone());
            node.callers.spawn(Caller { node: number, store, books, trace }.retry(write, action));
        }
    }
}
