//! What limits add up to.

use stockmesh_proto::limits::{FRAME_BYTES_MAX, SESSION_VERSION_ENTRIES_MAX, TELL_BYTES_MAX};

use super::*;

/// What decoding may take for each byte of a frame, value and scratch together: the core's own test measures it.
const DECODING_FACTOR: usize = 48;
/// What a decoded value takes for each byte of its frame.
const DECODED_FACTOR: usize = 14;
/// What an entry of a version vector takes in memory.
const ENTRY_BYTES: usize = 32;

/// ARCHITECTURE.md states the sum. Whoever raises one of these raises what each peer can take.
#[test]
fn what_one_peer_can_take_of_this_nodes_memory_is_bounded() {
    let window = usize::try_from(CONNECTION_WINDOW_BYTES).unwrap();
    // Unread, unacknowledged, and pushes that wait for it.
    let waiting = 2 * window + PUSH_QUEUE_BYTES_MAX;
    // Reconciliations that it opened, the one that this node opened, and pushes: a frame of each is read and decoded.
    let reading = SESSIONS_MAX + 1 + PUSH_STREAMS_MAX;
    let frames = reading * FRAME_BYTES_MAX * (1 + DECODING_FACTOR) + ASKS_MAX * TELL_BYTES_MAX;
    let unmerged = usize::try_from(PEER_UNMERGED_KIB_MAX).unwrap() * 1024 * DECODED_FACTOR;
    let vectors = (SESSIONS_MAX + 1) * SESSION_VERSION_ENTRIES_MAX * ENTRY_BYTES;
    let sum_mib = (waiting + frames + unmerged + vectors) >> 20;
    assert!(sum_mib <= 656, "one peer can take {sum_mib} MiB");
}
