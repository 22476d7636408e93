//! Whether this node still lacks what its peers hold, and how far it got (rules J3 to J6).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use metrics::{counter, gauge};
use parking_lot::Mutex;
use stockmesh_proto::joining::{Plan, PullNumber};
use stockmesh_proto::wire::Scope;
use stockmesh_proto::{ReplicaId, ShardIndex};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::info;

use super::registry::Others;
use crate::limits::JOIN_AMONG_JOINERS_TIME;
use crate::watch;

/// How far a node has caught up with its peers. Nothing in it goes back, but `peers` may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JoinProgress {
    /// Whether the node catches up. If not, the other figures are those of the end.
    pub catching_up: bool,
    /// Shards that arrived whole.
    pub shards_done: u32,
    /// Shards in which a peer turned out to hold something else. It may grow as more peers are met.
    pub shards_total: u32,
    /// Products that arrived, one that came in parts counted for each.
    pub products: u64,
    /// Slots that arrived: counters of a replica at a location, and registers.
    pub slots: u64,
    /// Bytes of UDP payload that arrived meanwhile, whatever they were for.
    pub bytes: u64,
    /// The peers that served, and how many shards of each arrived.
    pub peers: BTreeMap<ReplicaId, u32>,
}

/// Where a node stands between its opening and its first full reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No peer was ever known, so there is nobody to catch up with.
    Alone,
    CatchingUp,
    Done,
}

/// The state of catching up. Its plan is also made by a node that was away for long.
#[derive(Debug)]
pub(super) struct CatchUp {
    state: Mutex<State>,
    figures: Mutex<Figures>,
    /// Counts changes of the plan, for those who wait for work.
    changes: watch::Sender<u64>,
    /// The clock of plans, which count milliseconds.
    begun: Instant,
}

/// What is told, and to whom: to nobody any more once the node is closed.
#[derive(Debug)]
struct Figures {
    now: JoinProgress,
    readers: Option<tokio::sync::watch::Sender<JoinProgress>>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Slots were lost, or had not arrived before the last end.
    lossy: bool,
    plan: Option<Plan>,
    /// Ends the pulls under way.
    cancels: BTreeMap<PullNumber, oneshot::Sender<()>>,
    /// Peers that catch up themselves, with which all is reconciled, …
    joiners: BTreeSet<ReplicaId>,
    /// … and since when there is one.
    among_joiners_since: Option<Instant>,
    bytes_before: u64,
}

/// A pull that is to be made.
pub(super) struct Assignment {
    pub(super) number: PullNumber,
    pub(super) scope: Scope,
    /// Resolves when the pull is given to another peer.
    pub(super) cancelled: oneshot::Receiver<()>,
}

impl CatchUp {
    /// A node that was opened. `lossy` says that something of its state was lost, or had not arrived before its last end.
    pub(super) fn new(lossy: bool) -> Self {
        let state = State {
            phase: Phase::Alone,
            lossy,
            plan: None,
            cancels: BTreeMap::new(),
            joiners: BTreeSet::new(),
            among_joiners_since: None,
            bytes_before: 0,
        };
        let figures = Figures { now: JoinProgress::default(), readers: Some(tokio::sync::watch::Sender::default()) };
        Self {
            state: Mutex::new(state),
            figures: Mutex::new(figures),
            changes: watch::Sender::new(0),
            begun: Instant::now(),
        }
    }

    /// A peer was configured, found or linked. The first one decides whether there is something to catch up with: not
    /// if this node has a state of its own by then, and lacked nothing at open. Returns whether it begins to catch up now.
    pub(super) fn peer_known(&self, is_empty: bool, bytes_received: u64) -> bool {
        let begins = {
            let mut state = self.state.lock();
            if state.phase != Phase::Alone {
                return false;
            }
            let begins = is_empty || state.lossy;
            state.phase = if begins { Phase::CatchingUp } else { Phase::Done };
            state.bytes_before = bytes_received;
            begins
        };
        if begins {
            gauge!("stockmesh_catching_up").set(1.0);
            self.tell(|progress| progress.catching_up = true);
        }
        begins
    }

    pub(super) fn is_catching_up(&self) -> bool {
        self.state.lock().phase == Phase::CatchingUp
    }

    /// Whether the node catches up, or pulls what it missed: its peers leave it to it.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.state.lock();
        state.phase == Phase::CatchingUp || state.plan.is_some()
    }

    pub(super) fn figures(&self) -> JoinProgress {
        self.figures.lock().now.clone()
    }

    /// The figures from now on; `None` once the node is closed.
    pub(super) fn progress(&self) -> Option<tokio::sync::watch::Receiver<JoinProgress>> {
        self.figures.lock().readers.as_ref().map(tokio::sync::watch::Sender::subscribe)
    }

    /// Nothing more is told: the node closes.
    pub(super) fn close(&self) {
        self.figures.lock().readers = None;
    }

    fn tell(&self, change: impl FnOnce(&mut JoinProgress)) {
        let mut figures = self.figures.lock();
        change(&mut figures.now);
        if let Some(readers) = &figures.readers {
            readers.send_replace(figures.now.clone());
        }
    }

    /// The same, if the node catches up.
    fn tell_if_catching_up(&self, change: impl FnOnce(&mut JoinProgress)) {
        if self.is_catching_up() {
            self.tell(change);
        }
    }

    /// Wakes up at each change of the plan.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes note of the shards in which a peer differs. Returns whether they are to be pulled: always while this node
    /// catches up or pulls already, else if the difference is large.
    pub(super) fn offer(&self, peer: ReplicaId, shards: &[ShardIndex], is_large: bool) -> bool {
        {
            let mut state = self.state.lock();
            if !is_large && state.phase != Phase::CatchingUp && state.plan.is_none() {
                return false;
            }
            state.plan.get_or_insert_default().offer(peer, shards.iter().copied());
        }
        self.changed();
        true
    }

    /// The next pull from a peer; `None` if there is none for it now.
    pub(super) fn next(&self, peer: ReplicaId) -> Option<Assignment> {
        let now_ms = self.now_ms();
        let mut state = self.state.lock();
        let (number, scope) = state.plan.as_mut()?.next(peer, now_ms)?;
        let (cancel, cancelled) = oneshot::channel();
        state.cancels.insert(number, cancel);
        Some(Assignment { number, scope, cancelled })
    }

    /// Whether a peer may still be needed for what others pull now.
    pub(super) fn may_need(&self, peer: ReplicaId) -> bool {
        self.state.lock().plan.as_ref().is_some_and(|plan| plan.may_need(peer))
    }

    /// Something came for a pull.
    pub(super) fn heard(&self, number: PullNumber) {
        let now_ms = self.now_ms();
        if let Some(plan) = &mut self.state.lock().plan {
            plan.heard(number, now_ms);
        }
    }

    /// A shard of a pull arrived whole.
    pub(super) fn arrived(&self, number: PullNumber, peer: ReplicaId, shard: ShardIndex) {
        counter!("stockmesh_shards_pulled_total").increment(1);
        if let Some(plan) = &mut self.state.lock().plan {
            plan.arrived(number, shard);
        }
        self.tell_if_catching_up(|progress| *progress.peers.entry(peer).or_default() += 1);
        self.publish();
    }

    /// A pull ended, whole or not.
    pub(super) fn ended(&self, number: PullNumber, is_whole: bool) {
        let now_ms = self.now_ms();
        {
            let mut state = self.state.lock();
            state.cancels.remove(&number);
            match &mut state.plan {
                Some(plan) if is_whole => plan.finished(number),
                Some(plan) => plan.failed(number, now_ms),
                None => {}
            }
        }
        self.changed();
    }

    /// A peer is gone, or breaks rules.
    pub(super) fn leave(&self, peer: ReplicaId) {
        {
            let State { plan, cancels, .. } = &mut *self.state.lock();
            if let Some(plan) = plan {
                plan.leave(peer);
                cancels.retain(|number, _| plan.pulls().any(|(pull, ..)| pull == *number));
            }
        }
        self.changed();
    }

    /// Ends the pulls of peers that are silent while others could do their work.
    pub(super) fn end_overdue(&self) {
        let now_ms = self.now_ms();
        let overdue: Vec<oneshot::Sender<()>> = {
            let mut state = self.state.lock();
            let overdue = state.plan.as_mut().map(|plan| plan.overdue(now_ms)).unwrap_or_default();
            overdue.iter().filter_map(|number| state.cancels.remove(number)).collect()
        };
        if overdue.is_empty() {
            return;
        }
        for cancel in overdue {
            counter!("stockmesh_pulls_passed_on_total").increment(1);
            let _ = cancel.send(());
        }
        self.changed();
    }

    /// Forgets a plan that is over. While the node catches up it is kept, since it knows what arrived.
    pub(super) fn close_plan(&self) {
        let mut state = self.state.lock();
        if state.phase != Phase::CatchingUp && state.plan.as_ref().is_some_and(Plan::is_over) {
            state.plan = None;
        }
    }

    /// Counts what came in, by whatever way.
    pub(super) fn note_received(&self, products: usize, slots: usize, bytes_received: u64) {
        let bytes_before = self.state.lock().bytes_before;
        let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        self.tell_if_catching_up(|progress| {
            progress.products = progress.products.saturating_add(wide(products));
            progress.slots = progress.slots.saturating_add(wide(slots));
            progress.bytes = progress.bytes.max(bytes_received.saturating_sub(bytes_before));
        });
    }

    /// A plain reconciliation was complete. It ends the catching up (rule J6) if nothing is left to be pulled. If the peer
    /// catches up itself, this is so only if no other kind of peer is linked, and none is missing or appeared for a while.
    /// Returns whether it ended.
    pub(super) fn reconciled(
        &self,
        peer: ReplicaId,
        peer_catches_up: bool,
        others: impl Fn(&BTreeSet<ReplicaId>) -> Others,
    ) -> bool {
        {
            let mut state = self.state.lock();
            let pulls = state.plan.as_ref().is_some_and(|plan| !plan.is_over());
            if state.phase != Phase::CatchingUp || pulls {
                return false;
            }
            if peer_catches_up {
                state.joiners.insert(peer);
                let since = *state.among_joiners_since.get_or_insert_with(Instant::now);
                match others(&state.joiners) {
                    Others::Linked => return false,
                    Others::Missing if since.elapsed() < JOIN_AMONG_JOINERS_TIME => return false,
                    Others::Missing | Others::None => {}
                }
            }
            state.phase = Phase::Done;
            state.plan = None;
        }
        gauge!("stockmesh_catching_up").set(0.0);
        info!(%peer, "the node has caught up with its peers");
        self.tell(|progress| {
            progress.shards_done = progress.shards_total;
            progress.catching_up = false;
        });
        true
    }

    fn publish(&self) {
        let Some((done, total)) = self.state.lock().plan.as_ref().map(Plan::progress) else { return };
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.tell_if_catching_up(|progress| {
            progress.shards_done = progress.shards_done.max(narrow(done));
            progress.shards_total = progress.shards_total.max(narrow(total));
        });
    }

    fn changed(&self) {
        self.publish();
        self.changes.send_modify(|count| *count += 1);
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(Duration::as_millis(&self.begun.elapsed())).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn peer(bits: u64) -> ReplicaId {
        ReplicaId::from_random(bits)
    }

    /// A plain reconciliation with one peer ends nothing while another one is being pulled from (rule J6).
    #[test]
    fn catching_up_goes_on_while_something_is_pulled() {
        let catch_up = CatchUp::new(false);
        assert!(catch_up.peer_known(true, 0));
        assert!(catch_up.offer(peer(1), &[ShardIndex(3)], false));
        let pull = catch_up.next(peer(1)).unwrap();
        assert!(!catch_up.reconciled(peer(2), false, |_| Others::None));
        catch_up.ended(pull.number, true);
        assert!(catch_up.reconciled(peer(2), false, |_| Others::None));
        assert!(!catch_up.is_busy());
        assert!(!catch_up.figures().catching_up);
    }

    /// Among peers that catch up too it goes on while there may be another kind (rule J6).
    #[test]
    fn among_joiners_it_ends_when_nobody_else_is_there() {
        let catch_up = CatchUp::new(true);
        assert!(catch_up.peer_known(false, 0), "something was lost, though not all");
        assert!(!catch_up.reconciled(peer(1), true, |_| Others::Linked));
        assert!(!catch_up.reconciled(peer(1), true, |_| Others::Missing));
        assert!(catch_up.reconciled(peer(1), true, |known| {
            assert!(known.contains(&peer(1)));
            Others::None
        }));
    }

    /// A pull of a peer that is gone is given up, and its work offered to the next one.
    #[test]
    fn a_peer_that_is_gone_leaves_its_work() {
        let catch_up = CatchUp::new(false);
        catch_up.peer_known(true, 0);
        for bits in [1, 2] {
            catch_up.offer(peer(bits), &[ShardIndex(3)], false);
        }
        let pull = catch_up.next(peer(1)).unwrap();
        assert!(catch_up.next(peer(2)).is_none() && catch_up.may_need(peer(2)));
        catch_up.leave(peer(1));
        let Assignment { number, scope, .. } = catch_up.next(peer(2)).unwrap();
        assert!(number != pull.number && scope.contains(ShardIndex(3)));
        assert_eq!(catch_up.state.lock().cancels.len(), 1);
    }
}
