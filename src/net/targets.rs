//! What is known of those that are dialled: when the last dial was, why it failed, when the next one may be.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use parking_lot::Mutex;
use stockmesh_proto::ReplicaId;
use tokio::time::Instant;

use super::address::can_be_dialled;
use super::discovery::Candidate;
use crate::limits::{CANDIDATES_MAX, DIAL_PAUSE_MAX, DIAL_PAUSE_MIN, DIALS_SHOWN_MAX, SOURCE_SHOWN_MAX, SURPLUS_PAUSE};
use crate::watch;

/// A source of candidates, as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceStatus {
    /// What it calls itself.
    pub name: String,
    /// How often it told something.
    pub told: u64,
    /// Candidates that it told the last time, that could be dialled.
    pub candidates: usize,
    /// Why it told nothing the last time.
    pub last_error: Option<String>,
}

/// A member or a candidate that this node dialled, or will dial.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DialStatus {
    /// The address.
    pub address: SocketAddr,
    /// The member that is expected, or was met, there.
    pub replica: Option<ReplicaId>,
    /// Who named it: `member`, or the name of a source.
    pub source: String,
    /// Dials so far.
    pub attempts: u64,
    /// Until it may be dialled again. `None` if that may be now, if it is needed.
    pub next_in: Option<Duration>,
    /// Why the last dial failed, or the last link ended.
    pub last_error: Option<String>,
}

/// Who is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// A member, wherever it is.
    Member(ReplicaId),
    /// Whoever is at a candidate's address.
    Address(SocketAddr),
}

#[derive(Clone, Debug)]
struct Entry {
    address: SocketAddr,
    source: Arc<str>,
    replica: Option<ReplicaId>,
    attempts: u64,
    /// Failures in a row. A link that ended soon counts as one.
    failures: u32,
    not_before: Option<Instant>,
    /// The pause is one that the member asked for, since it has links enough: a link for a while it bears.
    is_declined: bool,
    last_error: Option<String>,
}

#[derive(Debug, Default)]
struct Entries {
    targets: BTreeMap<Target, Entry>,
    sources: Vec<SourceStatus>,
}

/// All targets of dials but the peers that the operator named, which the registry knows.
#[derive(Debug)]
pub(super) struct Targets {
    entries: Mutex<Entries>,
    changes: watch::Sender<u64>,
}

/// A pause after so many failures in a row: it doubles up to a limit, and is shortened by up to a half at random, so that
/// nodes that lost each other at one moment do not dial at one moment.
pub(super) fn pause_after(failures: u32) -> Duration {
    let doubled = DIAL_PAUSE_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(DIAL_PAUSE_MAX).mul_f64(crate::chance::random_range(0.5..=1.0))
}

fn shortened(text: &str) -> String {
    text.chars().take(SOURCE_SHOWN_MAX).collect()
}

impl Entry {
    fn new(address: SocketAddr, source: Arc<str>, replica: Option<ReplicaId>) -> Self {
        let (attempts, failures, not_before) = Default::default();
        Self { address, source, replica, attempts, failures, not_before, is_declined: false, last_error: None }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }
}

impl Entries {
    /// Whether another candidate may be taken in. Of those that fail, the one that failed most makes room.
    fn has_room(&mut self) -> bool {
        let candidates = || self.targets.iter().filter(|(target, _)| matches!(target, Target::Address(_)));
        if candidates().count() < CANDIDATES_MAX {
            return true;
        }
        let dead = candidates().filter(|(_, entry)| entry.failures > 0 && entry.replica.is_none());
        let worst = dead.max_by_key(|(_, entry)| entry.failures).map(|(target, _)| *target);
        worst.is_some_and(|target| self.targets.remove(&target).is_some())
    }
}

impl Targets {
    pub(super) fn new() -> Self {
        Self { entries: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// Wakes up when there are new candidates.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The number names the source below.
    pub(super) fn add_source(&self, name: &str) -> usize {
        let mut entries = self.entries.lock();
        entries.sources.push(SourceStatus { name: shortened(name), told: 0, candidates: 0, last_error: None });
        entries.sources.len() - 1
    }

    /// Takes in what a source told. Where there is no room, those that never answered make it.
    pub(super) fn heard(&self, source: usize, candidates: &[Candidate]) {
        let mut entries = self.entries.lock();
        let Some(status) = entries.sources.get_mut(source) else { return };
        let good = || candidates.iter().map(|candidate| candidate.address).filter(|address| can_be_dialled(*address));
        let bad = candidates.iter().find(|candidate| !can_be_dialled(candidate.address));
        status.told += 1;
        status.candidates = good().take(CANDIDATES_MAX).count();
        status.last_error = bad.map(|candidate| format!("{} is no address that can be dialled", candidate.address));
        let name: Arc<str> = status.name.as_str().into();
        for address in good().take(CANDIDATES_MAX) {
            let target = Target::Address(address);
            if !entries.targets.contains_key(&target) && entries.has_room() {
                entries.targets.insert(target, Entry::new(address, Arc::clone(&name), None));
            }
        }
        drop(entries);
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn source_failed(&self, source: usize, error: &str) {
        if let Some(status) = self.entries.lock().sources.get_mut(source) {
            status.last_error = Some(shortened(error));
        }
    }

    /// The candidates that may be dialled now, with who was met there, and how often each was dialled.
    pub(super) fn due_candidates(&self, now: Instant) -> Vec<(SocketAddr, Option<ReplicaId>, u64)> {
        let entries = self.entries.lock();
        let candidates = entries.targets.range(Target::Address(SocketAddr::from(([0, 0, 0, 0], 0)))..);
        let due = candidates.filter(|(_, entry)| entry.is_due(now));
        due.map(|(_, entry)| (entry.address, entry.replica, entry.attempts)).collect()
    }

    pub(super) fn is_due(&self, target: Target, now: Instant) -> bool {
        self.entries.lock().targets.get(&target).is_none_or(|entry| entry.is_due(now))
    }

    /// The same for a link that lasts a while only.
    pub(super) fn is_due_for_a_while(&self, target: Target, now: Instant) -> bool {
        self.entries.lock().targets.get(&target).is_none_or(|entry| entry.is_declined || entry.is_due(now))
    }

    /// A dial begins.
    pub(super) fn begin(&self, target: Target, address: SocketAddr) {
        counter!("stockmesh_dials_total").increment(1);
        let replica = match target {
            Target::Member(replica) => Some(replica),
            Target::Address(_) => None,
        };
        let mut entries = self.entries.lock();
        let entry = entries.targets.entry(target).or_insert_with(|| Entry::new(address, "member".into(), replica));
        entry.address = address;
        entry.attempts += 1;
        // A link that ends soon is no success, see `lasted`.
        entry.failures = entry.failures.saturating_add(1);
        entry.is_declined &= !entry.is_due(Instant::now());
        if !entry.is_declined {
            entry.not_before = Some(Instant::now() + pause_after(entry.failures));
        }
    }

    /// The dial failed, or its link ended. The pause is stretched where many are to be dialled.
    pub(super) fn failed(&self, target: Target, error: String, stretch: f64) {
        if let Some(entry) = self.entries.lock().targets.get_mut(&target) {
            entry.not_before = Some(Instant::now() + pause_after(entry.failures).mul_f64(stretch));
            (entry.is_declined, entry.last_error) = (false, Some(error));
        }
    }

    /// Somebody answered and is linked.
    pub(super) fn succeeded(&self, target: Target, replica: ReplicaId) {
        if let Some(entry) = self.entries.lock().targets.get_mut(&target) {
            entry.last_error = None;
            if matches!(target, Target::Address(_)) {
                entry.replica = Some(replica);
            }
        }
    }

    /// Its link has lasted a while: the next dial need not wait.
    pub(super) fn lasted(&self, target: Target) {
        if let Some(entry) = self.entries.lock().targets.get_mut(&target).filter(|entry| entry.failures > 0) {
            entry.failures = 0;
            if !entry.is_declined {
                entry.not_before = None;
            }
        }
    }

    /// A member has links enough, and ended one that this node dialled: it is left alone for some minutes.
    pub(super) fn declined(&self, replica: ReplicaId, address: SocketAddr, reason: String) {
        let mut entries = self.entries.lock();
        let new = || Entry::new(address, "member".into(), Some(replica));
        entries.targets.entry(Target::Member(replica)).or_insert_with(new);
        let until = Instant::now() + SURPLUS_PAUSE.mul_f64(crate::chance::random_range(0.75..=1.25));
        for (target, entry) in &mut entries.targets {
            if *target == Target::Member(replica) || entry.replica == Some(replica) {
                (entry.not_before, entry.is_declined) = (Some(until), true);
                entry.last_error = Some(reason.clone());
            }
        }
    }

    /// Puts off the next dial of a candidate that is not needed now.
    pub(super) fn put_off(&self, target: Target, pause: Duration) {
        if let Some(entry) = self.entries.lock().targets.get_mut(&target) {
            entry.not_before = Some(Instant::now() + pause);
        }
    }

    /// All are dialled soon: there is no link left.
    pub(super) fn hurry(&self) {
        let now = Instant::now();
        for entry in self.entries.lock().targets.values_mut() {
            if entry.not_before.is_some_and(|at| at > now + DIAL_PAUSE_MAX) {
                entry.not_before = Some(now + DIAL_PAUSE_MAX.mul_f64(crate::chance::random()));
            }
        }
    }

    /// Forgets those that are members no more.
    pub(super) fn keep_members(&self, members: &BTreeSet<ReplicaId>) {
        self.entries.lock().targets.retain(|target, _| match target {
            Target::Member(replica) => members.contains(replica),
            Target::Address(_) => true,
        });
    }

    /// When the next target may be dialled that may not be now.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.entries.lock().targets.values().filter_map(|entry| entry.not_before).filter(|at| *at > now).min()
    }

    pub(super) fn sources(&self) -> Vec<SourceStatus> {
        self.entries.lock().sources.clone()
    }

    /// Those that failed first, as far as there is room.
    pub(super) fn status(&self) -> Vec<DialStatus> {
        let (entries, now) = (self.entries.lock(), Instant::now());
        let mut shown: Vec<&Entry> = entries.targets.values().collect();
        shown.sort_by_key(|entry| entry.last_error.is_none());
        let of = |entry: &Entry| DialStatus {
            address: entry.address,
            replica: entry.replica,
            source: entry.source.to_string(),
            attempts: entry.attempts,
            next_in: entry.not_before.and_then(|at| at.checked_duration_since(now)),
            last_error: entry.last_error.clone(),
        };
        shown.into_iter().take(DIALS_SHOWN_MAX).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(number: u32) -> Candidate {
        Candidate::new(SocketAddr::from((number.to_be_bytes(), 7400)))
    }

    #[test]
    fn candidates_are_bounded_and_dead_ones_make_room() {
        let targets = Targets::new();
        let source = targets.add_source("many");
        let many: Vec<Candidate> = (1 << 24..).take(5_000).map(candidate).collect();
        targets.heard(source, &many);
        let now = Instant::now();
        assert_eq!(targets.due_candidates(now).len(), CANDIDATES_MAX);
        assert_eq!(targets.sources()[0].candidates, CANDIDATES_MAX);
        // None has failed, so none makes room.
        let late = candidate(9 << 24);
        targets.heard(source, &[late]);
        assert!(targets.due_candidates(now).iter().all(|(address, ..)| *address != late.address));
        let (dead, known) = (Target::Address(many[7].address), Target::Address(many[8].address));
        for (target, candidate) in [(dead, many[7]), (known, many[8]), (known, many[8])] {
            targets.begin(target, candidate.address);
        }
        targets.succeeded(known, ReplicaId::from_random(1));
        targets.failed(dead, "no answer".into(), 1.0);
        targets.heard(source, &[late]);
        let due = targets.due_candidates(Instant::now() + DIAL_PAUSE_MAX);
        assert_eq!(due.len(), CANDIDATES_MAX);
        assert!(due.iter().any(|(address, ..)| *address == late.address));
        assert!(due.iter().all(|(address, ..)| *address != many[7].address), "the dead one is forgotten");
    }

    #[test]
    fn pauses_double_up_to_ten_seconds_and_a_lasting_link_ends_them() {
        let longest: Vec<Duration> =
            (1..20).map(|failures| (0..50).map(|_| pause_after(failures)).max().unwrap()).collect();
        assert!(longest[0] <= DIAL_PAUSE_MIN && longest[3] > DIAL_PAUSE_MIN * 6 && longest[3] <= DIAL_PAUSE_MIN * 8);
        assert!(longest[18] > DIAL_PAUSE_MAX / 2 && longest[18] <= DIAL_PAUSE_MAX);
        let targets = Targets::new();
        let (target, address) = (Target::Member(ReplicaId::from_random(1)), candidate(1 << 24).address);
        for _ in 0..10 {
            targets.begin(target, address);
            targets.succeeded(target, ReplicaId::from_random(1));
        }
        let now = Instant::now();
        assert!(!targets.is_due(target, now + DIAL_PAUSE_MAX / 4), "links that end soon are failures");
        targets.lasted(target);
        assert!(targets.is_due(target, now));
    }

    #[test]
    fn a_member_that_declines_is_left_alone_until_there_is_no_other() {
        let targets = Targets::new();
        let (replica, address) = (ReplicaId::from_random(1), candidate(1 << 24).address);
        let source = targets.add_source("file");
        targets.heard(source, &[Candidate::new(address)]);
        targets.begin(Target::Address(address), address);
        targets.succeeded(Target::Address(address), replica);
        targets.declined(replica, address, "links enough".into());
        let now = Instant::now();
        for target in [Target::Member(replica), Target::Address(address)] {
            assert!(!targets.is_due(target, now + SURPLUS_PAUSE / 2));
        }
        assert!(targets.status().iter().all(|dial| dial.last_error.as_deref() == Some("links enough")));
        assert!(targets.is_due_for_a_while(Target::Member(replica), now), "but for a while it may be dialled");
        targets.begin(Target::Member(replica), address);
        targets.succeeded(Target::Member(replica), replica);
        targets.lasted(Target::Member(replica));
        assert!(!targets.is_due(Target::Member(replica), now + SURPLUS_PAUSE / 2), "it still is left alone");
        targets.hurry();
        assert!(targets.is_due(Target::Member(replica), now + DIAL_PAUSE_MAX + DIAL_PAUSE_MIN));
        targets.keep_members(&BTreeSet::new());
        assert_eq!(targets.status().len(), 1, "a candidate stays");
    }

    #[test]
    fn addresses_that_no_node_can_have_are_named_and_left_out() {
        let targets = Targets::new();
        let source = targets.add_source(&"x".repeat(1_000));
        let bad = ["0.0.0.0:7400", "192.0.2.1:0", "224.0.0.1:7400", "[::]:1"];
        targets.heard(source, &bad.map(|text| Candidate::new(text.parse().unwrap())));
        let status = targets.sources().remove(0);
        assert_eq!((status.told, status.candidates, status.name.len()), (1, 0, SOURCE_SHOWN_MAX));
        assert!(status.last_error.unwrap().starts_with("0.0.0.0:7400 is no address"));
        targets.source_failed(source, "gone");
        assert_eq!(targets.sources()[0].last_error.as_deref(), Some("gone"));
        assert!(targets.status().is_empty());
    }
}
