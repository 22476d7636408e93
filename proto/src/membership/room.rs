//! Room for members (rule N8): how many are kept, and who gives way to whom.

use std::collections::BTreeSet;

use super::driver::{Entry, Membership};
use crate::id::ReplicaId;
use crate::limits::MEMBERS_MAX;

/// What the list or datagram that is being judged has brought so far. It is applied as a whole, so the table does not
/// show it yet.
#[derive(Debug, Default)]
pub(super) struct Intake {
    /// Members that were admitted and are not in the table yet.
    arriving: BTreeSet<ReplicaId>,
    /// Members in the table of whom there is news: they keep their place until it is applied.
    renewed: BTreeSet<ReplicaId>,
    /// There was no room for hearsay, so the search need not be repeated.
    is_full: bool,
    /// It said something of this member. Once is enough: more would only make it refute again.
    pub(super) told_of_self: bool,
}

impl Membership {
    /// Whether a member that others tell of, and that was not known, can be taken in, if need be in the place of one
    /// that is gone.
    pub(super) fn has_room_for(&mut self, replica: ReplicaId) -> bool {
        if self.intake.arriving.contains(&replica) {
            return true;
        }
        let gone = |entry: &Entry| !entry.standing.is_up() && !entry.vouched;
        let has_room = !self.intake.is_full && (self.is_below_limit() || self.displace(|_, entry| gone(entry)));
        if has_room {
            self.intake.arriving.insert(replica);
        } else {
            self.intake.is_full = true;
            self.turned_away = self.turned_away.saturating_add(1);
        }
        has_room
    }

    /// The same for a member whose own word came over its link: it also displaces those that are known by hearsay alone.
    pub(super) fn has_room_for_vouched(&mut self) -> bool {
        let gone = |entry: &Entry| !entry.standing.is_up() && !entry.vouched;
        let has_room = self.is_below_limit()
            || self.displace(|_, entry| gone(entry))
            || self.displace(|is_linked, entry| !is_linked && !entry.vouched);
        if !has_room {
            self.turned_away = self.turned_away.saturating_add(1);
        }
        has_room
    }

    /// There is news of a member that is known: it is not displaced before that is applied.
    pub(super) fn keep_place(&mut self, replica: ReplicaId) {
        self.intake.renewed.insert(replica);
    }

    /// A member is in the table now.
    pub(super) fn has_arrived(&mut self, replica: ReplicaId) {
        self.intake.arriving.remove(&replica);
    }

    fn is_below_limit(&self) -> bool {
        self.entries.len() + self.intake.arriving.len() < MEMBERS_MAX
    }

    /// Forgets one such member, the one that was heard of last: of a flood of made-up members that is one of them.
    fn displace(&mut self, may_go: impl Fn(bool, &Entry) -> bool) -> bool {
        let may_go = |replica: &ReplicaId, entry: &Entry| {
            !self.intake.renewed.contains(replica) && may_go(self.links.contains_key(replica), entry)
        };
        let candidates = self.entries.iter().filter(|(replica, entry)| may_go(replica, entry));
        let last = candidates.max_by_key(|(_, entry)| entry.known_since).map(|(replica, _)| *replica);
        if let Some(replica) = last {
            self.forget(replica);
        }
        last.is_some()
    }
}
