//! What comes of what the core says: the table of members, events, figures and log lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use metrics::{counter, gauge};
use stockmesh_proto::ReplicaId;
use stockmesh_proto::member::{MemberRecord, Standing};
use tracing::info;

use crate::member::{Member, MemberState};
use crate::net::shared::Shared;
use crate::subscribe::Notice;

/// Enters how a member stands now. Returns it if that is news for an application: not so a suspicion and its refutation,
/// and what was gone before it was known.
pub(super) fn note_change(
    record: &MemberRecord,
    standing: Standing,
    before: Option<Standing>,
    shared: &Shared,
) -> Option<Member> {
    let member = Member::new(record, standing.into());
    let was_up = before.is_some_and(Standing::is_up);
    match standing {
        Standing::Alive if !was_up => {
            info!(member = %member.replica, address = %member.address, location = %member.location, "member up");
        }
        Standing::Down if was_up => {
            counter!("stockmesh_member_failures_total").increment(1);
            info!(member = %member.replica, address = %member.address, location = %member.location, "member down");
        }
        Standing::Left if before != Some(Standing::Left) => {
            info!(member = %member.replica, address = %member.address, location = %member.location, "member left");
        }
        _ => {}
    }
    shared.members.set(member.clone());
    (was_up != standing.is_up()).then_some(member)
}

/// Tells all subscriptions, at once: one by one, the members of a large cluster would make them lag.
pub(super) fn tell_subscribers(members: Vec<Member>, shared: &Shared) {
    if !members.is_empty()
        && let Some(changes) = shared.committer.changes().upgrade()
    {
        let _ = changes.send(Arc::new(Notice { members, ..Notice::default() }));
    }
}

/// Forgets a member.
pub(super) fn note_forgotten(replica: ReplicaId, shared: &Shared) {
    info!(member = %replica, "member forgotten");
    shared.members.remove(replica);
}

/// Shows how many members stand in which way.
pub(super) fn note_figures(shared: &Shared) {
    let states = [MemberState::Alive, MemberState::Suspect, MemberState::Down, MemberState::Left];
    let mut counts: BTreeMap<MemberState, u32> = states.into_iter().map(|state| (state, 0)).collect();
    for member in shared.members.all() {
        *counts.entry(member.state).or_default() += 1;
    }
    for (state, count) in counts {
        let label = match state {
            MemberState::Alive => "alive",
            MemberState::Suspect => "suspect",
            MemberState::Down => "down",
            MemberState::Left => "left",
        };
        gauge!("stockmesh_members", "state" => label).set(f64::from(count));
    }
}
