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
/// Q1). The claim was heard if the heir that is returned is the one that claims.
///
/// Whoever was noted first stays the heir, unless it was retired too. But an heir whose fence is open gives way to one with
/// a lower id that asks it, and the others follow once they are told that it did: so of several that begin at once, one
/// can always end it. Nobody who is asked gives way once it closed, or once it is the [last heir](last_heir), so that no two of
/// them take over.
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
    let heir = claim.heir();
    let is_closed = !matches!(claim, HeirClaim::Asks { .. });
    // Whoever is its last heir may have taken over already, also where heirs before it are noted: it gives no word away.
    if !is_closed && last_heir(retired, known) == Some(own) {
        return Retirement { heir: own, is_closed: true };
    }
    // An heir that was retired too takes over nothing any more. But who gave way to it does not close its fence for that.
    let is_replaced =
        |noted: &Retirement| known.contains_key(&noted.heir) && !matches!(claim, HeirClaim::Closes { .. });
    // And that it took over somewhere before says nothing against whom all agreed on since; nor does what this node itself
    // took over against its own word for another.
    let is_late = matches!(claim, HeirClaim::TookOver { heir } if known.contains_key(heir) || *heir == own);
    let gives_way = |noted: &Retirement| is_replaced(noted) || gives_way(noted, claim, own);
    match known.get(&retired) {
        None => Retirement { heir, is_closed },
        Some(noted) if noted.heir == heir => Retirement { heir, is_closed: noted.is_closed || is_closed },
        Some(noted) if !is_late && gives_way(noted) => Retirement { heir, is_closed },
        Some(noted) => *noted,
    }
}

/// Whether what was noted gives way to what another heir claims.
fn gives_way(noted: &Retirement, claim: &HeirClaim, own: ReplicaId) -> bool {
    let is_given_up = match claim {
        // Of itself each knows best how far it is.
        HeirClaim::Asks { heir, .. } if noted.heir == own => *heir < own,
        HeirClaim::Asks { gave_way, .. } => gave_way.contains(&noted.heir),
        HeirClaim::Closes { .. } => false,
        HeirClaim::TookOver { .. } => true,
    };
    is_given_up && !noted.is_closed
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
