//! How far claims of peers may fill a version vector.

use metrics::counter;
use stockmesh_proto::VersionVector;
use stockmesh_proto::limits::REPLICAS_MAX;
use tracing::error;

/// Replicas that claims of peers may bring a version vector to: half of what is read, so that own writes always find
/// room, and no peer makes a node's vectors unreadable with made-up replicas.
const VERSION_ENTRIES_CLAIMED_MAX: usize = REPLICAS_MAX / 2;

/// Whether a version vector may be joined with what a peer claims; if not, it is counted and reported.
pub(super) fn has_room(version: &VersionVector, claimed: &VersionVector) -> bool {
    if version.len() + claimed.len() <= VERSION_ENTRIES_CLAIMED_MAX {
        return true;
    }
    let new = claimed.iter().filter(|(replica, _)| version.get(*replica) == 0).count();
    let has_room = new == 0 || version.len() + new <= VERSION_ENTRIES_CLAIMED_MAX;
    if !has_room {
        counter!("stockmesh_claims_refused_total").increment(1);
        error!(replicas = version.len(), "a claim was not taken: the version vector would name too many replicas");
    }
    has_room
}
