//! Who should be linked with whom (rules T1 to T5): with all members while they are few, else with a bounded random part
//! of them, so that what a node spends on links does not grow with the cluster.
//!
//! Each node dials some members of its own choice, and takes the links that others dial. The union of all these choices
//! is a random graph, which is connected but for a chance that vanishes (Fenner and Frieze 1982, "On the connectivity of
//! random m-orientable graphs and digraphs"), and stays so when half of the nodes are gone.

use std::collections::BTreeSet;

use crate::id::{InvalidInput, Location, ReplicaId};
use crate::limits::{FAR_LINKS_SHARE, FAR_RECONCILIATIONS_SHARE, LINKS_MAX, LINKS_MIN, OWN_LINKS_MIN};

/// How many links a node keeps: with all members while there are not more of them, and else about so many.
///
/// ```
/// use stockmesh_proto::topology::LinkBudget;
///
/// let budget = LinkBudget::new(64)?;
/// assert_eq!((budget.own(), budget.kept_max()), (32, 98));
/// assert!(LinkBudget::new(1).is_err());
/// # Ok::<(), stockmesh_proto::InvalidInput>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkBudget(usize);

impl LinkBudget {
    /// A budget of so many links.
    ///
    /// # Errors
    /// If it is less than 2 or more than 1,024.
    pub fn new(links: usize) -> Result<Self, InvalidInput> {
        if !(LINKS_MIN..=LINKS_MAX).contains(&links) {
            return Err(InvalidInput::new("links", links, format!("must be {LINKS_MIN} to {LINKS_MAX}")));
        }
        Ok(Self(links))
    }

    /// Links of a node.
    pub fn links(self) -> usize {
        self.0
    }

    /// Members that a node dials of its own choice if it is not to link with all: half of the links, since as many come in.
    pub fn own(self) -> usize {
        self.0.div_ceil(2).max(LINKS_MIN)
    }

    /// Links beyond which a node ends some that others dialled: half as many again, since how many come in is up to chance.
    pub fn kept_max(self) -> usize {
        self.0 + self.0 / 2 + 2
    }
}

/// A member that answers, or may still answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer<'a> {
    /// Its id.
    pub replica: ReplicaId,
    /// Its home location.
    pub location: &'a Location,
    /// Whether it may be dialled now. It counts as a member also if not.
    pub may_be_dialled: bool,
}

/// An open link, or one that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linked<'a> {
    /// The peer.
    pub replica: ReplicaId,
    /// Its home location.
    pub location: &'a Location,
    /// Whether this node dialled it: its own choice, for it to replace.
    pub is_own: bool,
    /// Whether it may be ended: not if the peer is one that the operator named, or may know nobody else yet.
    pub may_be_ended: bool,
}

/// What a node should do about its links.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Members to dial.
    pub dial: Vec<ReplicaId>,
    /// Links to end.
    pub end: Vec<ReplicaId>,
}

/// One link in place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// To be ended, once the other one is open.
    pub old: ReplicaId,
    /// To be dialled.
    pub new: ReplicaId,
}

/// The cluster as one node sees it, from which it chooses its links.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The node itself.
    pub own: ReplicaId,
    /// Its home location.
    pub home: &'a Location,
    /// The members that answer, or may still answer. The node itself may be among them.
    pub peers: &'a [Peer<'a>],
    /// The links, those that are oldest first.
    pub links: &'a [Linked<'a>],
    /// How many links the node keeps.
    pub budget: LinkBudget,
}

impl View<'_> {
    /// What to do about the links now: dials those that are lacking, ends those that are too many. `random` draws 64
    /// random bits. Costs O(n log n) for n members.
    pub fn plan(&self, random: &mut dyn FnMut() -> u64) -> Plan {
        let others = self.others().count();
        let (links, own) = (self.links.len(), self.own_links().count());
        if others <= self.budget.links() {
            return Plan { dial: self.open().map(|peer| peer.replica).collect(), end: Vec::new() };
        }
        // As many as others dialled need not be dialled; but some are of the own choice in any case, or a group of nodes
        // that are linked among themselves would look for nobody else.
        let wanted = self.budget.own();
        let room = self.budget.links().saturating_sub(links);
        let at_least = wanted.min(OWN_LINKS_MIN).saturating_sub(own);
        let lacking = wanted.saturating_sub(own).min(room).max(at_least);
        Plan { dial: self.draw(lacking, random), end: self.surplus(random) }
    }

    /// A link to replace, so that the graph changes over time: the oldest that this node dialled, by a random one to about
    /// as far a place. `None` while all members are linked, or there is nobody else.
    pub fn refresh(&self, random: &mut dyn FnMut() -> u64) -> Option<Replacement> {
        if self.others().count() <= self.budget.links() {
            return None;
        }
        let old = self.own_links().find(|link| link.may_be_ended)?;
        let (mut near, mut far) = self.open_near_and_far();
        let group = if self.is_far(old.location) { &mut far } else { &mut near };
        let new = take_random(group, random).or_else(|| take_random(&mut near, random));
        let new = new.or_else(|| take_random(&mut far, random))?;
        Some(Replacement { old: old.replica, new })
    }

    /// How many of the own links should lead to other locations: a quarter, but no more than would give nodes there as
    /// many as nodes here, or a lone node far away would have a link from everybody.
    pub fn far_wanted(&self) -> usize {
        let far = self.others().filter(|peer| self.is_far(peer.location)).count();
        let near = self.others().count() - far + 1;
        let fair = self.budget.own() * far;
        // Who is to have the part of a link that remains is up to the ids, so that it does not change with each look.
        let remains = u64::try_from(fair % near).unwrap_or_default();
        let draw = self.own.bits() % u64::try_from(near).unwrap_or(u64::MAX);
        let fair = fair / near + usize::from(draw < remains);
        fair.min(self.budget.own().div_ceil(FAR_LINKS_SHARE))
    }

    fn is_far(&self, location: &Location) -> bool {
        location != self.home
    }

    fn others(&self) -> impl Iterator<Item = &Peer<'_>> {
        self.peers.iter().filter(|peer| peer.replica != self.own)
    }

    fn own_links(&self) -> impl Iterator<Item = &Linked<'_>> {
        self.links.iter().filter(|link| link.is_own)
    }

    /// Members that may be dialled and are not linked.
    fn open(&self) -> impl Iterator<Item = &Peer<'_>> {
        let linked: BTreeSet<ReplicaId> = self.links.iter().map(|link| link.replica).collect();
        self.others().filter(move |peer| peer.may_be_dialled && !linked.contains(&peer.replica))
    }

    fn open_near_and_far(&self) -> (Vec<ReplicaId>, Vec<ReplicaId>) {
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for peer in self.open() {
            if self.is_far(peer.location) { &mut far } else { &mut near }.push(peer.replica);
        }
        (near, far)
    }

    /// Draws members to dial: first the part that leads elsewhere, then near ones; whichever are too few, the others fill up.
    fn draw(&self, count: usize, random: &mut dyn FnMut() -> u64) -> Vec<ReplicaId> {
        if count == 0 {
            return Vec::new();
        }
        let (mut near, mut far) = self.open_near_and_far();
        let has_far = self.own_links().filter(|link| self.is_far(link.location)).count();
        let far_lacking = self.far_wanted().saturating_sub(has_far).min(count);
        let mut drawn: Vec<ReplicaId> = (0..far_lacking).map_while(|_| take_random(&mut far, random)).collect();
        while drawn.len() < count {
            match take_random(&mut near, random).or_else(|| take_random(&mut far, random)) {
                Some(replica) => drawn.push(replica),
                None => break,
            }
        }
        drawn
    }

    /// Links to end: the oldest of the own ones beyond what was wanted of them, and a random choice of those that others
    /// dialled, as many as are beyond what is kept.
    fn surplus(&self, random: &mut dyn FnMut() -> u64) -> Vec<ReplicaId> {
        let mut too_many = self.links.len().saturating_sub(self.budget.links());
        let own_too_many = self.own_links().count().saturating_sub(self.budget.own()).min(too_many);
        let spare = self.own_links().filter(|link| link.may_be_ended).map(|link| link.replica);
        let mut ended: Vec<ReplicaId> = spare.take(own_too_many).collect();
        too_many = self.links.len().saturating_sub(ended.len() + self.budget.kept_max());
        let of_others = self.links.iter().filter(|link| !link.is_own && link.may_be_ended);
        let mut of_others: Vec<ReplicaId> = of_others.map(|link| link.replica).collect();
        ended.extend((0..too_many).map_while(|_| take_random(&mut of_others, random)));
        ended
    }
}

/// Which of two members dials first while all are to be linked: half of the pairs each, known to both without a word.
/// The other one waits a little, so that there are not two links between them for each that is needed.
pub fn dials_first(own: ReplicaId, peer: ReplicaId) -> bool {
    let is_even = (own.bits() ^ peer.bits()).count_ones().is_multiple_of(2);
    (own < peer) == is_even
}

/// Picks whom to reconcile with, by its place in the list of locations: anybody, but now and then somebody in another
/// location than `home`, if there is one. `None` if the list is empty.
pub fn reconcile_with(home: &Location, locations: &[&Location], random: &mut dyn FnMut() -> u64) -> Option<usize> {
    let mut all: Vec<usize> = (0..locations.len()).collect();
    let mut far: Vec<usize> = Vec::new();
    if random().is_multiple_of(FAR_RECONCILIATIONS_SHARE) {
        far = locations.iter().enumerate().filter(|(_, location)| **location != home).map(|(place, _)| place).collect();
    }
    take_random(&mut far, random).or_else(|| take_random(&mut all, random))
}

/// Takes a random element out, whatever becomes of the order of the others.
fn take_random<T>(of: &mut Vec<T>, random: &mut dyn FnMut() -> u64) -> Option<T> {
    let count = u64::try_from(of.len()).ok().filter(|count| *count > 0)?;
    Some(of.swap_remove(usize::try_from(random() % count).unwrap_or_default()))
}
