//! Membership: records and datagrams, single steps, liars, and whole clusters in virtual time.

mod floods;
mod lies;
mod records;
mod simulated;
mod steps;
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use stockmesh_proto::limits::GENERATION_MAX;
use stockmesh_proto::member::{Generation, Labels, MemberRecord, Software};
use stockmesh_proto::membership::{Effect, Membership, Timing};
use stockmesh_proto::{Location, ReplicaId};

pub(crate) fn replica(number: u64) -> ReplicaId {
    ReplicaId::from_random(number)
}

pub(crate) fn record(number: u64) -> MemberRecord {
    let octets = u32::try_from(number).unwrap().to_be_bytes();
    MemberRecord {
        replica: replica(number),
        generation: Generation::FIRST,
        address: SocketAddr::from(([10, octets[1], octets[2], octets[3]], 9000)),
        location: Location::new("warehouse-north").unwrap(),
        labels: Labels::new([("role", "shop")]).unwrap(),
        software: Software::new("stockmesh 0.1.0").unwrap(),
        read_only: false,
        left: false,
    }
}

/// A member that may speak.
pub(crate) fn member_of(record: MemberRecord) -> Membership {
    let generation = record.generation;
    let mut member = Membership::new(record, Timing::Lan, 7, Duration::ZERO);
    member.reserved(Generation::new((generation.get() + 1000).min(GENERATION_MAX)).unwrap(), Duration::ZERO);
    member
}

pub(crate) fn sends_to(effects: &[Effect], receiver: ReplicaId) -> Vec<Vec<u8>> {
    let of = |effect: &Effect| match effect {
        Effect::Send { to, bytes } if *to == receiver => Some(bytes.clone()),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}
