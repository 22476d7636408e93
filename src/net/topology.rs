//! Keeps the links that the core chooses (rules T1 to T5), and tries for ever those members that do not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::topology::{Linked, Peer, Plan, View, dials_first};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info};

use super::address::can_be_dialled;
use super::dial::dial_one;
use super::handshake::HandshakeError;
use super::link::{Allowance, Link};
use super::members::{Member, MemberState};
use super::own_dials::LEADS_HERE;
use super::refusal::CloseCode;
use super::shared::Shared;
use super::targets::Target;
use super::trust::retired;
use super::wishes::{Errand, LinkWanted};
use crate::limits::{
    DEAD_DIALLED_OFTEN_MAX, DIAL_GRACE, DIALS_AT_ONCE_MAX, DIALS_OF_DEAD_MAX, DIALS_PER_SECOND_MAX, LINK_LASTING,
    LINK_SETTLED, OWN_ADDRESS_TIME, SURPLUS_PAUSE, TEMPORARY_LINK_TIME, TEMPORARY_LINKS_MAX, TOPOLOGY_LOOK_EVERY,
    TOPOLOGY_PAUSE_MIN, URGENT_MAX,
};

/// Why a member is dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// It was chosen, or may be somebody new.
    Chosen,
    /// In place of this one.
    Instead(ReplicaId),
    /// Somebody asked for it.
    Temporary(Errand),
}

/// A dial that ended.
struct Dialled {
    target: Target,
    purpose: Purpose,
    result: Result<Arc<Link>, HandshakeError>,
}

/// Links and members at one moment.
struct Picture {
    /// Those that are oldest first.
    links: Vec<Arc<Link>>,
    members: BTreeMap<ReplicaId, Arc<Member>>,
    /// No link is left: whoever can be dialled is dialled.
    is_lonely: bool,
}

impl Picture {
    fn take(shared: &Shared) -> Self {
        let mut links = shared.registry.links();
        links.sort_by_key(|link| link.since);
        let is_lonely = links.iter().all(|link| link.is_temporary.load(Ordering::SeqCst));
        let mut members: BTreeMap<ReplicaId, Arc<Member>> =
            shared.members.all().into_iter().map(|member| (member.replica, member)).collect();
        // They let nobody in under that id, and are let in by nobody.
        shared.committer.retired(|retired| members.retain(|replica, _| !retired.contains_key(replica)));
        members.retain(|_, _| shared.follows_members);
        Self { links, members, is_lonely }
    }

    fn link(&self, replica: ReplicaId) -> Option<&Arc<Link>> {
        self.links.iter().find(|link| link.replica == replica)
    }

    fn of_state(&self, wanted: impl Fn(MemberState) -> bool) -> impl Iterator<Item = &Member> {
        self.members.values().map(Arc::as_ref).filter(move |member| wanted(member.state))
    }

    fn live(&self) -> impl Iterator<Item = &Member> {
        self.of_state(|state| matches!(state, MemberState::Alive | MemberState::Suspect))
    }

    /// Who is linked and was met at this address.
    fn linked_at(&self, address: SocketAddr) -> Option<ReplicaId> {
        self.links.iter().find(|link| link.address == address).map(|link| link.replica)
    }
}

struct Topology {
    dials: JoinSet<Dialled>,
    dialling: BTreeMap<Target, Purpose>,
    rate: Allowance,
    /// Until when links last that somebody asked for, and for what.
    temporary: BTreeMap<ReplicaId, (Instant, Errand)>,
    /// Since when members are known and not linked.
    unlinked: BTreeMap<ReplicaId, Instant>,
    refresh_at: Instant,
    refresh_every: Duration,
}

/// Makes and ends links, for as long as the node lives.
pub(super) async fn keep_topology(mut wanted: mpsc::Receiver<LinkWanted>, refresh_every: Duration, shared: Shared) {
    let mut topology = Topology {
        dials: JoinSet::new(),
        dialling: BTreeMap::new(),
        rate: Allowance::full(DIALS_PER_SECOND_MAX),
        temporary: BTreeMap::new(),
        unlinked: BTreeMap::new(),
        refresh_at: Instant::now() + jittered(refresh_every),
        refresh_every,
    };
    let (mut links, mut members) = (shared.registry.changes(), shared.members.changes());
    let mut candidates = shared.targets.changes();
    let mut asked = BTreeSet::new();
    loop {
        shared.until_online().await;
        topology.look(&shared);
        let pause = topology.pause(&shared);
        tokio::select! {
            // Dials are few; of wishes there may always be one more. Of everything else that waits the next look tells.
            biased;
            Some(ended) = topology.dials.join_next() => if let Ok(dialled) = ended { topology.end(dialled, &shared) },
            wish = wanted.recv() => match wish {
                Some(wish) => drop(asked.insert(wish)),
                None => return,
            },
            _ = links.changed() => {}
            _ = members.changed() => {}
            _ = candidates.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
        // All that waits, each member once however often it was asked for.
        for _ in 0..URGENT_MAX {
            let Ok(wish) = wanted.try_recv() else { break };
            asked.insert(wish);
        }
        while let Some(ended) = topology.dials.try_join_next() {
            if let Ok(dialled) = ended {
                topology.end(dialled, &shared);
            }
        }
        std::mem::take(&mut asked).into_iter().for_each(|wish| topology.want(wish, &shared));
        // What changes together is looked at once.
        tokio::time::sleep(TOPOLOGY_PAUSE_MIN).await;
    }
}

fn jittered(time: Duration) -> Duration {
    time.mul_f64(crate::chance::random_range(0.75..=1.25))
}

impl Topology {
    fn look(&mut self, shared: &Shared) {
        let picture = Picture::take(shared);
        if picture.is_lonely {
            shared.targets.hurry();
        }
        for link in picture.links.iter().filter(|link| link.since.elapsed() >= LINK_LASTING) {
            shared.targets.lasted(Target::Member(link.replica));
            shared.targets.lasted(Target::Address(link.address));
        }
        let members: BTreeSet<ReplicaId> = picture.members.keys().copied().collect();
        shared.targets.keep_members(&members);
        self.end_temporary(&picture);
        self.follow_plan(&picture, shared);
        self.dial_dead(&picture, shared);
        self.dial_candidates(&picture, shared);
    }

    /// Makes and ends links of live members as the core says.
    fn follow_plan(&mut self, picture: &Picture, shared: &Shared) {
        let live: Vec<&Member> = picture.live().collect();
        let is_all = live.len() <= shared.budget.links();
        self.unlinked.retain(|replica, _| picture.link(*replica).is_none() && picture.members.contains_key(replica));
        let peers: Vec<Peer<'_>> = (live.iter())
            .map(|member| Peer {
                replica: member.replica,
                location: &member.location,
                may_be_dialled: self.may_dial(member, is_all, picture, shared),
            })
            .collect();
        let links = self.as_seen(picture, shared);
        let own = shared.table.own();
        let view = View { own, home: &shared.location, peers: &peers, links: &links, budget: shared.budget };
        let Plan { dial, end } = view.plan(&mut crate::chance::random::<u64>);
        let replaced = if Instant::now() >= self.refresh_at {
            self.refresh_at = Instant::now() + jittered(self.refresh_every);
            view.refresh(&mut crate::chance::random::<u64>)
        } else {
            None
        };
        for replica in dial {
            self.make(replica, Purpose::Chosen, picture, shared);
        }
        if let Some(replaced) = replaced {
            self.make(replaced.new, Purpose::Instead(replaced.old), picture, shared);
        }
        for link in end.iter().filter_map(|replica| picture.link(*replica)) {
            info!(peer = %link.replica, "a link is ended: there are enough");
            link.close(CloseCode::Surplus, "the node has links enough, and the peer knows other members");
        }
    }

    /// The links as the core sees them, with those that are being made.
    fn as_seen<'a>(&self, picture: &'a Picture, shared: &Shared) -> Vec<Linked<'a>> {
        let lasting = picture.links.iter().filter(|link| !link.is_temporary.load(Ordering::SeqCst));
        let mut links: Vec<Linked<'a>> = lasting
            .map(|link| {
                let is_own = link.dialled_by == link.told;
                let is_settled = link.since.elapsed() >= LINK_SETTLED;
                let may_be_ended = is_settled && (is_own || link.knows_surplus);
                let is_named = is_own && shared.registry.is_peer(link.replica);
                let may_be_ended = may_be_ended && !is_named;
                Linked { replica: link.replica, location: &link.location, is_own, may_be_ended }
            })
            .collect();
        for (target, purpose) in &self.dialling {
            if let (Target::Member(replica), Purpose::Chosen) = (target, purpose)
                && let Some(member) = picture.members.get(replica)
                && picture.link(*replica).is_none()
            {
                links.push(Linked { replica: *replica, location: &member.location, is_own: true, may_be_ended: false });
            }
        }
        links
    }

    /// Whether a live member may be dialled now.
    fn may_dial(&mut self, member: &Member, is_all: bool, picture: &Picture, shared: &Shared) -> bool {
        if picture.link(member.replica).is_some() {
            // A link that was made for a while may become one that lasts.
            return true;
        }
        let since = *self.unlinked.entry(member.replica).or_insert_with(Instant::now);
        // The one that is not first waits a little, and so does the topology for what the operator named.
        let grace = match () {
            () if picture.is_lonely => Duration::ZERO,
            () if shared.registry.is_peer(member.replica) => DIAL_GRACE * 3,
            () if is_all && !dials_first(shared.table.own(), member.replica) => DIAL_GRACE,
            () => Duration::ZERO,
        };
        since.elapsed() >= grace && self.can_dial(member, picture, shared)
    }

    fn can_dial(&self, member: &Member, picture: &Picture, shared: &Shared) -> bool {
        let target = Target::Member(member.replica);
        can_be_dialled(member.address)
            && !self.dialling.contains_key(&target)
            && shared.targets.is_due(target, Instant::now())
            && !shared.own_dials.leads_here(member.address)
            // Somebody else is there now, and linked.
            && picture.linked_at(member.address).is_none()
    }

    /// Makes a link to a member, or lets one last that was made for a while.
    fn make(&mut self, replica: ReplicaId, purpose: Purpose, picture: &Picture, shared: &Shared) {
        if let Some(link) = picture.link(replica) {
            link.is_temporary.store(false, Ordering::SeqCst);
            self.temporary.remove(&replica);
        } else if let Some(member) = picture.members.get(&replica) {
            self.dial(Target::Member(replica), member.address, purpose, DIALS_AT_ONCE_MAX, shared);
        }
    }

    /// Dials members that do not answer any more: they may be back, or on the other side of a cut that has healed.
    fn dial_dead(&mut self, picture: &Picture, shared: &Shared) {
        let dead = picture.of_state(|state| state == MemberState::Down);
        let mut dead: Vec<&Member> = dead.filter(|member| picture.link(member.replica).is_none()).collect();
        dead.retain(|member| self.can_dial(member, picture, shared));
        let at_once = if picture.is_lonely { DIALS_AT_ONCE_MAX } else { DIALS_OF_DEAD_MAX };
        while !dead.is_empty() {
            let member = dead.swap_remove(crate::chance::random_range(0..dead.len()));
            if !self.dial(Target::Member(member.replica), member.address, Purpose::Chosen, at_once, shared) {
                return;
            }
        }
    }

    /// Dials candidates that may be somebody new.
    fn dial_candidates(&mut self, picture: &Picture, shared: &Shared) {
        let now = Instant::now();
        let mut due = shared.targets.due_candidates(now);
        let at_once = if picture.is_lonely { DIALS_AT_ONCE_MAX } else { DIALS_OF_DEAD_MAX };
        // Whoever left may have made room for somebody new, at the same address.
        let is_here_still = |member: &&Member| member.state != MemberState::Left;
        let member_at: BTreeMap<SocketAddr, &Member> = picture
            .members
            .values()
            .map(Arc::as_ref)
            .filter(is_here_still)
            .map(|member| (member.address, member))
            .collect();
        while !due.is_empty() {
            let (address, replica, attempts) = due.swap_remove(crate::chance::random_range(0..due.len()));
            let target = Target::Address(address);
            let is_here = shared.own_dials.leads_here(address) || shared.is_listening_at(address);
            if is_here {
                shared.targets.failed(target, LEADS_HERE.into(), 1.0);
                shared.targets.put_off(target, OWN_ADDRESS_TIME);
                continue;
            }
            let is_linked = replica.is_some_and(|replica| picture.link(replica).is_some());
            if self.dialling.contains_key(&target) || is_linked || picture.linked_at(address).is_some() {
                continue;
            }
            // Members are dialled as such, if they are needed; but in need also where they were met and say they are not.
            let met = || picture.members.get(&replica?).map(Arc::as_ref).filter(is_here_still);
            let known = member_at.get(&address).copied().or_else(met);
            let is_of_use = |member: &Member| picture.is_lonely && member.address != address;
            if known.is_some_and(|member| !is_of_use(member)) {
                continue;
            }
            let is_full = picture.links.len() >= shared.budget.links();
            if is_full && attempts > 0 {
                shared.targets.put_off(target, jittered(SURPLUS_PAUSE));
            } else if !self.dial(target, address, Purpose::Chosen, at_once, shared) {
                return;
            }
        }
    }

    /// Somebody needs a link to a member for a while.
    fn want(&mut self, (replica, errand): LinkWanted, shared: &Shared) {
        let until = Instant::now() + TEMPORARY_LINK_TIME;
        if shared.registry.link(replica).is_some() {
            self.temporary.entry(replica).and_modify(|(known, _)| *known = until);
            return;
        }
        let is_barred = !shared.follows_members || retired(replica, shared).is_some();
        let member = shared.members.get(replica).filter(|member| member.state != MemberState::Left && !is_barred);
        let Some(member) = member.filter(|member| can_be_dialled(member.address)) else { return };
        // Each errand has room of its own: messages are many, and a retirement would wait for theirs to end.
        let under_way = self.dialling.values().filter(|purpose| **purpose == Purpose::Temporary(errand)).count();
        let kept = self.temporary.values().filter(|(_, other)| *other == errand).count();
        let target = Target::Member(replica);
        // In proportion to the others, since at the other side they count as those do.
        let most = (shared.budget.links() / 2).clamp(1, TEMPORARY_LINKS_MAX);
        let has_room = kept + under_way < most;
        // However often it is asked for: whoever does not answer is dialled at the usual pauses.
        let is_due = shared.targets.is_due_for_a_while(target, Instant::now()) && !self.dialling.contains_key(&target);
        if has_room && is_due {
            self.dial(target, member.address, Purpose::Temporary(errand), DIALS_AT_ONCE_MAX, shared);
        }
    }

    /// Ends those links that were wanted for a while only.
    fn end_temporary(&mut self, picture: &Picture) {
        let now = Instant::now();
        self.temporary.retain(|replica, (until, _)| {
            let Some(link) = picture.link(*replica) else { return false };
            let is_temporary = link.is_temporary.load(Ordering::SeqCst);
            if is_temporary && *until <= now {
                link.close(CloseCode::Surplus, "the link was wanted for a while only");
            }
            is_temporary && *until > now
        });
    }

    /// Begins a dial; false if there are too many already.
    fn dial(&mut self, target: Target, address: SocketAddr, purpose: Purpose, at_once: usize, shared: &Shared) -> bool {
        if self.dials.len() >= at_once || !self.rate.take(1) {
            return false;
        }
        shared.targets.begin(target, address);
        self.dialling.insert(target, purpose);
        let shared = shared.clone();
        self.dials.spawn(async move {
            let result = dial_one(address, &shared).await;
            Dialled { target, purpose, result }
        });
        true
    }

    fn end(&mut self, dialled: Dialled, shared: &Shared) {
        let Dialled { target, purpose, result } = dialled;
        self.dialling.remove(&target);
        let link = match result {
            Ok(link) => link,
            Err(error) => {
                debug!(?target, %error, "dialling failed");
                let picture = Picture::take(shared);
                let down = picture.of_state(|state| state == MemberState::Down).count();
                // Where many are dead, each is dialled less often, so that all together are not dialled more often.
                let stretch = if picture.is_lonely { 1 } else { down.div_ceil(DEAD_DIALLED_OFTEN_MAX).max(1) };
                return shared.targets.failed(
                    target,
                    error.reason,
                    f64::from(u32::try_from(stretch).unwrap_or(u32::MAX)),
                );
            }
        };
        shared.targets.succeeded(target, link.replica);
        match (target, purpose) {
            (Target::Member(replica), _) if replica != link.replica => {
                // It has a new id, or another node has its address now: membership will find out.
                let reason = format!("its address {} leads to replica {} now", link.address, link.replica);
                shared.targets.failed(target, reason, 1.0);
            }
            (_, Purpose::Temporary(errand)) => {
                link.is_temporary.store(true, Ordering::SeqCst);
                self.temporary.insert(link.replica, (Instant::now() + TEMPORARY_LINK_TIME, errand));
            }
            (_, Purpose::Instead(old)) => {
                if let Some(old) = shared.registry.link(old).filter(|old| old.dialled_by == old.told) {
                    debug!(old = %old.replica, new = %link.replica, "a link is replaced by another");
                    old.close(CloseCode::Surplus, "the node links with another member instead");
                }
            }
            (_, Purpose::Chosen) => {}
        }
    }

    /// How long nothing need be looked at, if nothing changes.
    fn pause(&self, shared: &Shared) -> Duration {
        let now = Instant::now();
        let next = shared.targets.next_due(now).map_or(TOPOLOGY_LOOK_EVERY, |at| at - now);
        next.clamp(TOPOLOGY_PAUSE_MIN, TOPOLOGY_LOOK_EVERY)
    }
}
