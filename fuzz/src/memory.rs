//! Any bytes, read as every kind of frame and record: memory grows with their number and no faster, whatever lengths they
//! announce. The bound is that of the core's own test of memory, which explains the factor.

use std::time::Duration;

use peak_alloc::PeakAlloc;
use stockmesh_proto::fingerprint::FingerprintTree;
use stockmesh_proto::hold::Hold;
use stockmesh_proto::member::ListedMember;
use stockmesh_proto::reconcile::{Session, Settings, StateView};
use stockmesh_proto::shard::Chunk;
use stockmesh_proto::wire::client::{Answer, Request};
use stockmesh_proto::wire::{BatchRecord, FrameKind, LedgerRecord, Message, SnapshotRecord, Summary};
use stockmesh_proto::{Fingerprint, ReplicaId, ShardCount, ShardIndex, Sku, VersionVector};

use crate::decode::member;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Most bytes for each byte that is read, value and scratch together.
const FACTOR: usize = 48;
/// What any input may take, however short.
const BASE_BYTES: usize = 256 << 10;

/// Reads bytes as everything that they could be, and looks at the allocator.
pub fn run(data: &[u8]) {
    let frame = |kind: u8| [&[kind], data.get(1..).unwrap_or_default()].concat();
    for kind in FrameKind::ALL {
        let frame = frame(kind.byte());
        check(&format!("{kind:?}"), frame.len(), || drop(Message::decode(&frame)));
    }
    for kind in Request::KINDS {
        let frame = frame(kind.byte);
        check("a client's request", frame.len(), || drop(Request::decode(&frame)));
    }
    for kind in Answer::KINDS {
        let frame = frame(kind.byte);
        check("an answer to a client", frame.len(), || drop(Answer::decode(&frame)));
    }
    check("a batch", data.len(), || drop(BatchRecord::decode(data)));
    check("a snapshot", data.len(), || drop(SnapshotRecord::decode(data)));
    check("an entry of the ledger", data.len(), || drop(LedgerRecord::decode(data)));
    check("a hold", data.len(), || drop(Hold::decode(data)));
    check("a member", data.len(), || drop(ListedMember::decode(data)));
    take_in(data);
}

/// What is read is taken in too, by a node that knows nothing.
fn take_in(data: &[u8]) {
    let peer = ReplicaId::from_random(2);
    let mut node = member(ReplicaId::from_random(1));
    node.linked(peer, Duration::ZERO);
    check("a datagram", data.len(), || drop(node.datagram(peer, data, Duration::ZERO)));
    let shards = ShardCount::new(4).unwrap();
    let settings = Settings { shards, drift_ms_max: 60_000, chunk_bytes_target: 1 << 16 };
    let view = Empty(FingerprintTree::new(shards));
    for kind in FrameKind::ALL {
        let frame = [&[kind.byte()], data.get(1..).unwrap_or_default()].concat();
        let Ok(message) = Message::decode(&frame) else { continue };
        for mut session in [Session::accept(settings), Session::open(settings, &view, None)] {
            while session.poll_transmit(&view).is_some() {}
            let message = message.clone();
            check("a session", frame.len(), || drop(session.handle(message, &view, 0)));
        }
    }
}

struct Empty(FingerprintTree);

impl StateView for Empty {
    fn own(&self) -> ReplicaId {
        ReplicaId::from_random(1)
    }

    fn tree(&self) -> FingerprintTree {
        self.0.clone()
    }

    fn summary(&self, shard: ShardIndex) -> Summary {
        Summary { shard, fingerprint: Fingerprint::EMPTY, version: VersionVector::new() }
    }

    fn extract(&self, _: ShardIndex, _: &VersionVector, _: Option<&Sku>, _: usize) -> Chunk {
        Chunk { version: VersionVector::new(), products: Vec::new(), next: None }
    }
}

/// Runs what reads so many bytes.
fn check(what: &str, length: usize, read: impl FnOnce()) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    read();
    let taken = ALLOCATOR.peak_usage().saturating_sub(before);
    assert!(taken <= BASE_BYTES + FACTOR * length, "{what}: {length} bytes took {taken}");
}
