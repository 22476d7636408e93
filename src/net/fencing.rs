//! Whom the heir of a retired replica asks, and in which turn: who cannot be reached must not keep the others from being
//! asked (rules Q1, Q3).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use stockmesh_proto::ReplicaId;
use stockmesh_proto::limits::RIVALS_MAX;
use stockmesh_proto::reconcile::StateView;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::link::Link;
use super::members::MemberState;
use super::refusal::CloseCode;
use super::shared::Shared;
use super::wishes::Errand;
use crate::error::RetireError;
use crate::limits::{RETIRE_AT_ONCE_MAX, RETIRE_LOOK_EVERY};
use crate::retirements::{HeirClaim, named_heir, noted};

/// How it ended what was done with a member over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Done,
    /// The link ended, or no answer came over it.
    Again,
    /// It will not do it.
    Refused,
    /// It will, once this other heir has.
    Behind(ReplicaId),
}

/// Who must be asked: all that are or may come back, but those that are left out on purpose. Nobody who is linked right
/// now is left out, since it goes on taking writes.
fn concerned(
    retired: ReplicaId,
    without: &BTreeSet<ReplicaId>,
    holders: &BTreeSet<ReplicaId>,
    shared: &Shared,
) -> BTreeSet<ReplicaId> {
    let members = shared.members.all();
    let with_state = |has_left: bool| {
        let fitting = members.iter().filter(move |member| (member.state == MemberState::Left) == has_left);
        fitting.filter(move |member| has_left || !member.read_only).map(|member| member.replica)
    };
    let left: BTreeSet<ReplicaId> = with_state(true).collect();
    let mut concerned: BTreeSet<ReplicaId> = with_state(false).chain(holders.difference(&left).copied()).collect();
    concerned.retain(|replica| !without.contains(replica));
    let links = shared.registry.links().into_iter();
    concerned.extend(links.filter(|link| !link.read_only).map(|link| link.replica));
    // Behind a fence that is open here one may live: whoever asked for it may not have come to the end.
    let lives = |replica: ReplicaId| {
        let is_up = |state| matches!(state, MemberState::Alive | MemberState::Suspect);
        members.iter().any(|member| member.replica == replica && is_up(member.state))
    };
    shared.committer.retired(|known| {
        concerned.retain(|replica| known.get(replica).is_none_or(|noted| !noted.is_closed && lives(*replica)));
    });
    let (former, own) = (shared.committer.former_replicas(), shared.table.own());
    concerned.retain(|replica| ![retired, own].contains(replica) && !former.contains(replica));
    concerned
}

/// All replicas that have rights anywhere: each is or was a member, and may come back, however long it has been away. Goes
/// through the whole state.
async fn holders(shared: &Shared) -> BTreeSet<ReplicaId> {
    let mut holders = BTreeSet::new();
    for shard in shared.table.count().indexes() {
        shared.table.read(shard, |state| {
            for entry in state.range(Bound::Unbounded) {
                let product = &entry.product;
                let rights = product.locations().into_iter().flat_map(|location| product.rights_at(location));
                holders.extend(rights.filter(|(_, units)| *units != 0).map(|(replica, _)| replica));
            }
        });
        tokio::task::yield_now().await;
    }
    holders
}

/// A replica that is being retired, and how.
pub(super) struct Fencing<'a> {
    pub(super) retired: ReplicaId,
    pub(super) without: &'a BTreeSet<ReplicaId>,
    /// This node's id when it began.
    pub(super) heir: ReplicaId,
    pub(super) until: Instant,
    pub(super) shared: &'a Shared,
    /// The one to whom this node gave its word before, once it has answered that it gives it back.
    pub(super) gave_way: OnceLock<ReplicaId>,
}

type Ended = Result<(ReplicaId, Result<Attempt, RetireError>), JoinError>;

/// Members with whom something is to be done.
struct Turns<'a> {
    shared: &'a Shared,
    waiting: BTreeSet<ReplicaId>,
    running: BTreeSet<ReplicaId>,
    /// Those whose link ended before they were done: not tried again at once.
    again: BTreeSet<ReplicaId>,
    refused: BTreeSet<ReplicaId>,
    /// Those that wait until another heir, whom they know of, gives way.
    behind: BTreeMap<ReplicaId, ReplicaId>,
    /// All other heirs that were named.
    rivals: BTreeSet<ReplicaId>,
    /// Those whose links are kept no longer than others need.
    done: BTreeSet<ReplicaId>,
    /// All that are done, also in rounds before.
    agreed: BTreeSet<ReplicaId>,
    /// All that were concerned at any time.
    seen: BTreeSet<ReplicaId>,
    /// Who was the last for whom a link was asked for.
    last: Option<ReplicaId>,
}

impl<'a> Turns<'a> {
    fn new(members: BTreeSet<ReplicaId>, agreed: BTreeSet<ReplicaId>, shared: &'a Shared) -> Self {
        let [running, again, refused, rivals, done] = std::array::from_fn(|_| BTreeSet::new());
        let (behind, seen) = (BTreeMap::new(), members.clone());
        Self { shared, waiting: members, running, again, refused, behind, rivals, done, agreed, seen, last: None }
    }

    /// The next whose turn it is: only those that are linked take one up, the others may be away for long.
    fn next(&mut self) -> Option<Arc<Link>> {
        if self.running.len() >= RETIRE_AT_ONCE_MAX {
            return None;
        }
        let is_fit = |link: &Arc<Link>| link.knows_retirement && link.is_open();
        let link = self.waiting.iter().find_map(|member| self.shared.registry.link(*member).filter(is_fit))?;
        self.waiting.remove(&link.replica);
        self.running.insert(link.replica);
        Some(link)
    }

    fn end(&mut self, member: ReplicaId, attempt: Attempt) {
        self.running.remove(&member);
        match attempt {
            Attempt::Done => {
                self.agreed.insert(member);
                self.done.insert(member)
            }
            Attempt::Again => self.again.insert(member),
            Attempt::Refused => self.refused.insert(member),
            Attempt::Behind(rival) => {
                self.behind.insert(member, rival);
                self.rivals.insert(rival)
            }
        };
    }

    /// Other heirs that gave way.
    fn gave_way(&self) -> Vec<ReplicaId> {
        self.rivals.intersection(&self.agreed).copied().take(RIVALS_MAX).collect()
    }

    /// Whose turn comes again, of those that are still concerned. Fails with another heir that cannot be asked.
    fn again(&mut self, concerned: &BTreeSet<ReplicaId>) -> Result<(), ReplicaId> {
        self.seen.extend(concerned);
        self.waiting.append(&mut self.again);
        let (ready, behind): (BTreeMap<ReplicaId, ReplicaId>, _) =
            std::mem::take(&mut self.behind).into_iter().partition(|(_, rival)| self.agreed.contains(rival));
        self.behind = behind;
        self.waiting.extend(ready.into_keys());
        // Who left meanwhile, or was left out on purpose and has lost its link, is waited for no more. It is not done
        // either: should it come back, it is asked.
        self.waiting.retain(|member| concerned.contains(member));
        self.refused.retain(|member| concerned.contains(member));
        self.behind.retain(|member, _| concerned.contains(member));
        for rival in self.behind.values() {
            let is_asked = [&self.waiting, &self.running, &self.refused].into_iter().any(|asked| asked.contains(rival));
            if !is_asked && !self.behind.contains_key(rival) {
                // Whoever is left out on purpose is not asked whether it gives way.
                if !concerned.contains(rival) {
                    return Err(*rival);
                }
                self.waiting.insert(*rival);
            }
        }
        Ok(())
    }

    /// Asks for links with those whose turn comes, and ends those that are needed no more.
    fn look(&mut self) {
        let Self { shared, waiting, last, .. } = self;
        self.done.retain(|member| is_kept(*member, shared));
        for member in self.behind.keys() {
            is_kept(*member, shared);
        }
        // Theirs must last.
        self.running.iter().for_each(|member| shared.want_link(*member, Errand::Retirement));
        let is_unlinked = |member: &ReplicaId| shared.registry.link(*member).is_none();
        let (down, others): (BTreeSet<ReplicaId>, BTreeSet<ReplicaId>) =
            waiting.iter().copied().filter(is_unlinked).partition(|member| is_down(*member, shared));
        // Dials of those that are down take long, and the node makes some anyway.
        let wanted = if others.is_empty() { down } else { others };
        let start = last.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = wanted.range((start, Bound::Unbounded));
        for member in behind.chain(&wanted).take(RETIRE_AT_ONCE_MAX.min(wanted.len())) {
            shared.want_link(*member, Errand::Retirement);
            *last = Some(*member);
        }
    }

    fn missing(&self) -> BTreeSet<ReplicaId> {
        let missing = [&self.waiting, &self.running, &self.again, &self.refused].into_iter().flatten();
        missing.chain(self.behind.keys()).copied().collect()
    }

    /// Another heir that did not answer.
    fn silent_rival(&self) -> Option<ReplicaId> {
        self.behind.values().find(|rival| !self.agreed.contains(rival)).copied()
    }

    fn is_over(&self) -> bool {
        let is_open = self.behind.values().any(|rival| !self.refused.contains(rival));
        !is_open && self.waiting.is_empty() && self.running.is_empty() && self.again.is_empty()
    }
}

pub(super) fn is_down(member: ReplicaId, shared: &Shared) -> bool {
    shared.members.get(member).is_none_or(|member| member.state == MemberState::Down)
}

/// Makes room for the next links, if the one with a member was made for a while only. Whether it is there still.
fn is_kept(member: ReplicaId, shared: &Shared) -> bool {
    let Some(link) = shared.registry.link(member) else { return false };
    let is_temporary = link.is_temporary.load(Ordering::SeqCst);
    if is_temporary {
        link.close(CloseCode::Surplus, "the link was wanted for a while only");
    }
    !is_temporary
}

impl Fencing<'_> {
    /// Does something with all who are concerned, until nobody new is, and once more with all if one of them is not concerned
    /// any more before it was its turn (rule Q3). Each is told which other heirs gave way. Returns how many they were.
    pub(super) async fn with_all<Work>(
        &self,
        work: impl Fn(Arc<Link>, Vec<ReplicaId>) -> Work,
    ) -> Result<usize, RetireError>
    where
        Work: Future<Output = Result<Attempt, RetireError>> + Send + 'static,
    {
        let [mut done, mut ever_done, mut undone] = std::array::from_fn(|_| BTreeSet::new());
        loop {
            // Anew each time: rights may turn up in what the members tell.
            let holders = holders(self.shared).await;
            let mut new = self.concerned(&holders);
            // Who is waited for no more may have told the others what they did not know when it was their turn.
            if undone.difference(&new).any(|gone| !self.without.contains(gone)) {
                done.clear();
            }
            new.retain(|replica| !done.contains(replica));
            if new.is_empty() {
                self.check()?;
                return Ok(done.len());
            }
            (done, undone) = self.with_each(new, done, &holders, &work).await.map_err(|error| match error {
                // Those that were done once are there, and not what keeps it from its end.
                RetireError::Unreachable { members } if !ever_done.is_superset(&members.iter().copied().collect()) => {
                    let never = members.into_iter().filter(|member| !ever_done.contains(member));
                    RetireError::Unreachable { members: never.collect() }
                }
                error => error,
            })?;
            ever_done.extend(done.iter().copied());
        }
    }

    /// Does something with each of these members, with some at a time: a node may be able to keep fewer links than there are
    /// members. A link is asked for before, and kept for as long. Returns them besides those that were done before; and
    /// those that were concerned at any time and were not done.
    async fn with_each<Work>(
        &self,
        members: BTreeSet<ReplicaId>,
        done: BTreeSet<ReplicaId>,
        holders: &BTreeSet<ReplicaId>,
        work: impl Fn(Arc<Link>, Vec<ReplicaId>) -> Work,
    ) -> Result<(BTreeSet<ReplicaId>, BTreeSet<ReplicaId>), RetireError>
    where
        Work: Future<Output = Result<Attempt, RetireError>> + Send + 'static,
    {
        let mut turns = Turns::new(members, done, self.shared);
        let mut tasks = JoinSet::new();
        let mut look = tokio::time::interval(RETIRE_LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !turns.is_over() {
            self.check()?;
            turns.look();
            while let Some(link) = turns.next() {
                let (member, work) = (link.replica, work(link, turns.gave_way()));
                tasks.spawn(async move { (member, work.await) });
            }
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(self.until) => break,
                Some(ended) = tasks.join_next() => {
                    let ended: Ended = ended;
                    let (member, attempt) = ended.map_err(|_| RetireError::Stopped)?;
                    turns.end(member, attempt?);
                }
                _ = look.tick() => {
                    turns.again(&self.concerned(holders)).map_err(|heir| self.other(heir))?;
                }
                () = self.shared.until_changed() => {}
            }
        }
        let missing = turns.missing();
        match turns.silent_rival() {
            _ if missing.is_empty() => {
                let undone = turns.seen.difference(&turns.agreed).copied().collect();
                Ok((turns.agreed, undone))
            }
            Some(heir) => Err(self.other(heir)),
            None => Err(RetireError::Unreachable { members: missing.into_iter().collect() }),
        }
    }

    /// What this node claims to itself.
    pub(super) fn claim(&self) -> HeirClaim {
        HeirClaim::Asks { heir: self.heir, gave_way: self.gave_way.get().copied().into_iter().collect() }
    }

    /// Another one that this node knows as the heir, or that is to be retired before.
    pub(super) fn other_heir(&self) -> Option<ReplicaId> {
        let (retired, heir) = (self.retired, self.heir);
        let asks = self.claim();
        self.shared.committer.retired(|known| {
            let is_noted = noted(known, retired, &asks, heir).heir == heir;
            (!is_noted).then(|| named_heir(known, retired, &HeirClaim::Closes { heir }, heir))
        })
    }

    pub(super) fn other(&self, heir: ReplicaId) -> RetireError {
        RetireError::OtherHeir { replica: self.retired, heir }
    }

    fn concerned(&self, holders: &BTreeSet<ReplicaId>) -> BTreeSet<ReplicaId> {
        concerned(self.retired, self.without, holders, self.shared)
    }

    /// Nobody who is linked is retired, and only under the id that the members were told, unless this node gave way.
    pub(super) fn check(&self) -> Result<(), RetireError> {
        self.check_node()?;
        self.other_heir().map_or(Ok(()), |heir| Err(self.other(heir)))
    }

    /// The same, but for who is noted as the heir.
    pub(super) fn check_node(&self) -> Result<(), RetireError> {
        if self.shared.committer.is_closed() {
            return Err(RetireError::Stopped);
        }
        if self.shared.table.own() != self.heir {
            let why = "it took a new replica id meanwhile; call again, and retire its former id first if that is named"
                .into();
            return Err(RetireError::Heir { heir: self.heir, why });
        }
        match self.shared.registry.link(self.retired) {
            Some(_) => Err(RetireError::Alive { replica: self.retired, at: self.heir }),
            None => Ok(()),
        }
    }
}
