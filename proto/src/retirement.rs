//! Who takes over for a replica that will never return, as one replica knows it (rules Q1, Q2).

use std::collections::BTreeMap;

use crate::id::ReplicaId;

/// What became of a replica that will never return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Retirement {
    /// Who takes over its rights.
    pub heir: ReplicaId,
    /// The heir has learnt what all members knew of it: it may take over, and stays the heir.
    pub is_closed: bool,
}

/// Retired replicas, by id.
pub type Retirements = BTreeMap<ReplicaId, Retirement>;

/// Who says that it takes over for a replica, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeirClaim {
    /// It asks members to fence the replica.
    Asks {
        /// Who asks.
        heir: ReplicaId,
        /// Others who had begun it, and were asked before: they fenced it for this heir since.
        gave_way: Vec<ReplicaId>,
    },
    /// It has learnt what all members knew. Claimed by the heir itself alone.
    Closes {
        /// The node's own id.
        heir: ReplicaId,
    },
    /// The state shows that it took over.
    TookOver {
        /// Who did.
        heir: ReplicaId,
    },
}

impl HeirClaim {
    /// Who takes over.
    pub fn heir(&self) -> ReplicaId {
        match *self {
            Self::Asks { heir, .. } | Self::Closes { heir } | Self::TookOver { heir } => heir,
        }
    }
}

/// What the replica `own`, which knows these retirements, notes of a retired one when somebody claims to be its heir (rule
/// Q1). The claim was heard if whoever claims is [named](named_heir) then.
///
/// Whoever was noted first stays the heir while its fence is open, unless it was retired too. But it gives way to one with a
/// lower id that asks it, and the others follow once they are told that it did: so of several that begin at once, one
/// can always end it. It gives way to nobody once its fence is closed, also when it was retired itself: it may have taken
/// over, and whoever takes over from it goes on. So no two of them take over. Only where heirs that were retired name each
/// other in a circle, nobody goes on, and the one of them with the lowest id can get another heir; the same is true before an
/// id that this node itself [gave up](given_up).
///
/// ```
/// use stockmesh_proto::ReplicaId;
/// use stockmesh_proto::retirement::{HeirClaim, Retirements, noted};
///
/// let [low, high, member, dead] = [1, 2, 3, 4].map(ReplicaId::from_random);
/// let mut known = Retirements::new();
/// known.insert(dead, noted(&known, dead, &HeirClaim::Asks { heir: high, gave_way: vec![] }, member));
///
/// // Who comes later is told who was first; what that one says of it decides.
/// let later = HeirClaim::Asks { heir: low, gave_way: vec![] };
/// assert_eq!(noted(&known, dead, &later, member).heir, high);
/// assert_eq!(noted(&known, dead, &later, high).heir, low);
/// let later = HeirClaim::Asks { heir: low, gave_way: vec![high] };
/// assert_eq!(noted(&known, dead, &later, member).heir, low);
/// ```
pub fn noted(known: &Retirements, retired: ReplicaId, claim: &HeirClaim, own: ReplicaId) -> Retirement {
    let claimed = Retirement { heir: claim.heir(), is_closed: !matches!(claim, HeirClaim::Asks { .. }) };
    match known.get(&retired) {
        None => claimed,
        Some(noted) if noted.is_closed && !leads_nowhere(retired, known) => *noted,
        Some(noted) if noted.heir == claimed.heir || gives_way((retired, noted), claim, known, own) => claimed,
        Some(noted) => *noted,
    }
}

/// Whether an heir whose fence is open, as it was noted, gives way to what another one claims.
fn gives_way(
    (retired, noted): (ReplicaId, &Retirement),
    claim: &HeirClaim,
    known: &Retirements,
    own: ReplicaId,
) -> bool {
    match claim {
        // An heir that was retired too takes over nothing any more.
        HeirClaim::Asks { .. } if known.contains_key(&noted.heir) => true,
        // Of itself each knows best how far it is.
        HeirClaim::Asks { heir, .. } if noted.heir == own => *heir < own,
        HeirClaim::Asks { gave_way, .. } => gave_way.contains(&noted.heir),
        HeirClaim::Closes { .. } => false,
        // What a retired one took over it may have taken over alone, as others had agreed on another one already: it is for
        // that one to give way, while it can. The others follow its word.
        HeirClaim::TookOver { heir } if noted.is_closed || known.contains_key(heir) => {
            !noted.is_closed && noted.heir == own && !leads_back(*heir, retired, known)
        }
        HeirClaim::TookOver { .. } => true,
    }
}

/// Another one, not retired itself, to whom the replica `own` gave its word, and of whom it does not know that its fence is
/// closed. Before `own` begins it asks that one: the word is that one's to give back.
pub fn living_rival(known: &Retirements, retired: ReplicaId, own: ReplicaId) -> Option<ReplicaId> {
    let noted = known.get(&retired).filter(|noted| !noted.is_closed && noted.heir != own)?;
    (!known.contains_key(&noted.heir)).then_some(noted.heir)
}

/// Notes what follows from a claim, see [`noted`]. Whoever took over had closed its fence, and was the
/// [last heir](last_heir): if others are noted between, it goes on for them, and their fences were closed too. Returns the
/// rows that are new.
pub fn note(
    known: &mut Retirements,
    retired: ReplicaId,
    claim: &HeirClaim,
    own: ReplicaId,
) -> Vec<(ReplicaId, Retirement)> {
    let way = match claim {
        HeirClaim::TookOver { heir } => way_to(*heir, retired, known),
        HeirClaim::Asks { .. } | HeirClaim::Closes { .. } => None,
    };
    let mut rows = way.unwrap_or_else(|| vec![(retired, noted(known, retired, claim, own))]);
    rows.retain(|(replica, row)| known.get(replica) != Some(row));
    known.extend(rows.iter().copied());
    rows
}

/// The rows by which an heir goes on for a retired replica, each with its fence closed. None if it does not.
fn way_to(heir: ReplicaId, retired: ReplicaId, known: &Retirements) -> Option<Vec<(ReplicaId, Retirement)>> {
    let (mut way, mut replica) = (Vec::new(), retired);
    while way.len() < known.len() {
        let noted = known.get(&replica)?;
        way.push((replica, Retirement { is_closed: true, ..*noted }));
        if noted.heir == heir {
            return Some(way);
        }
        replica = noted.heir;
    }
    None
}

/// Whether nobody can go on for the heir of a closed fence, and this is where another one may be noted: at the lowest id of
/// a circle, or before an id that this node gave up since it was retired, see [`given_up`].
fn leads_nowhere(retired: ReplicaId, known: &Retirements) -> bool {
    let mut replica = retired;
    for _ in 0..known.len() {
        match known.get(&replica) {
            Some(noted) if noted.heir == replica => return true,
            Some(noted) if noted.is_closed => replica = noted.heir,
            _ => break,
        }
    }
    lowest_of_circle(retired, known) == Some(retired)
}

/// Whether nobody but the heir of `retired` could go on for this one, which was retired too: they were in a circle that was
/// opened there, or were led to nobody.
fn leads_back(heir: ReplicaId, retired: ReplicaId, known: &Retirements) -> bool {
    let mut replica = heir;
    for _ in 0..known.len() {
        match known.get(&replica) {
            None => return false,
            Some(noted) if noted.heir == replica || noted.heir == retired => return true,
            Some(noted) => replica = noted.heir,
        }
    }
    true
}

/// What a node notes of its own former id if it is told that this one was retired, and not by whom (rule Q6): it names itself,
/// until more is known.
pub fn given_up(former: ReplicaId) -> Retirement {
    Retirement { heir: former, is_closed: false }
}

/// The lowest of the replicas that name each other as heirs in a circle, if a retired one leads there. Who was not told that
/// a fence in it was closed, by an heir that was retired too, must open it at the same place as who was.
fn lowest_of_circle(retired: ReplicaId, known: &Retirements) -> Option<ReplicaId> {
    let leads_on = |replica: &ReplicaId, noted: &Retirement| {
        noted.is_closed || (noted.heir != *replica && known.contains_key(&noted.heir))
    };
    let next =
        |replica: &ReplicaId| known.get(replica).filter(|noted| leads_on(replica, noted)).map(|noted| noted.heir);
    let mut inside = retired;
    for _ in 0..known.len() {
        inside = next(&inside)?;
    }
    let (mut lowest, mut replica) = (inside, next(&inside)?);
    while replica != inside {
        lowest = lowest.min(replica);
        replica = next(&replica)?;
    }
    Some(lowest)
}

/// Whom the replica `own` names as the heir in answer to such a claim: the one that it [notes](noted), or behind a closed fence
/// whoever goes on for that one (rules Q1, Q4). Where nobody is known to, it is the one to be retired before; and so it is
/// for who closes its fence while one of its own before it is open.
pub fn named_heir(known: &Retirements, retired: ReplicaId, claim: &HeirClaim, own: ReplicaId) -> ReplicaId {
    let noted = noted(known, retired, claim, own);
    if !noted.is_closed {
        return noted.heir;
    }
    if let Some(lowest) = lowest_of_circle(noted.heir, known) {
        return lowest;
    }
    let goes_on = |next: &Retirement| {
        let is_its_own = matches!(*claim, HeirClaim::Closes { heir } if heir == next.heir);
        next.is_closed || !(known.contains_key(&next.heir) || is_its_own)
    };
    let mut heir = noted.heir;
    for _ in 0..known.len() {
        let Some(next) = known.get(&heir).filter(|next| goes_on(next)) else { break };
        heir = next.heir;
    }
    heir
}

/// Who takes over for a replica in the end: its heir, or the heir of an heir that was retired too (rule Q4). Nobody while
/// one of their fences is open: the heir before may have taken over what is not known here yet, and have sold it. Nobody
/// either if they name each other in a circle.
pub fn last_heir(retired: ReplicaId, known: &Retirements) -> Option<ReplicaId> {
    let closed_heir = |replica: &ReplicaId| known.get(replica).filter(|noted| noted.is_closed).map(|noted| noted.heir);
    let mut heir = closed_heir(&retired)?;
    for _ in 0..known.len() {
        if !known.contains_key(&heir) {
            return Some(heir);
        }
        heir = closed_heir(&heir)?;
    }
    None
}
