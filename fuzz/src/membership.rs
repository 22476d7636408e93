//! Typed scripts over a few members: datagrams come late, twice, damaged or never, links come and go, lists are exchanged,
//! and members move, restart, leave and lie. What honest members send is never a breach, and in the end they all know
//! each other.

mod world;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use stockmesh_proto::limits::{GENERATION_MAX, GENERATION_STEP_MAX, MEMBER_DOWN_LISTED_S};
use stockmesh_proto::member::{Generation, Labels, ListedMember, MemberRecord, Software, Standing};
use stockmesh_proto::{Location, ReplicaId};

use world::{NODES, World};

const STEPS_MAX: usize = 48;

/// One step of a script; the first number says of whom, or which datagram.
#[derive(Debug)]
enum Step {
    /// So many tenths of a second.
    Pass(u8),
    /// Long enough that somebody is forgotten.
    PassDay,
    /// How often it arrives.
    Deliver(u8, u8),
    /// So many, in their order.
    DeliverAll(u8),
    Damage(u8, u8, u8),
    Link(u8, u8),
    Unlink(u8, u8),
    /// Two tell each other all that they know.
    Lists(u8, u8),
    /// A list that somebody made up.
    Lie(u8, u8, Vec<ListedMember>),
    /// Somebody with another's id says this of itself.
    Impostor(u8, MemberRecord),
    Move(u8, u8),
    ReadOnly(u8, bool),
    Resume(u8),
    Leave(u8),
    Restart(u8),
}

/// Small numbers mostly, and those beside the limits.
fn generation(input: &mut Unstructured<'_>) -> Result<Generation> {
    let number = match u8::arbitrary(input)? {
        byte @ 0..200 => 1 + u64::from(byte % 8),
        byte @ 200..220 => 60 + u64::from(byte - 200),
        byte @ 220..240 => GENERATION_STEP_MAX - 5 + u64::from(byte - 220),
        byte @ 240..250 => GENERATION_MAX - u64::from(byte - 240),
        _ => 1 + u64::arbitrary(input)? % GENERATION_MAX,
    };
    Ok(Generation::new(number).unwrap())
}

fn address(number: u8) -> SocketAddr {
    match number % 8 {
        0 => SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 9000)),
        number => SocketAddr::from(([10, 0, 0, number], 9000)),
    }
}

/// Somebody, of the cluster or not.
fn replica(number: u8) -> ReplicaId {
    // Mostly of the few that there are.
    ReplicaId::from_random(1 + u64::from(if number < 192 { number % 8 } else { number % 64 }))
}

fn record(input: &mut Unstructured<'_>) -> Result<MemberRecord> {
    let bits = u8::arbitrary(input)?;
    let labels = (0..bits % 3).map(|number| (format!("k{number}"), "v"));
    Ok(MemberRecord {
        replica: replica(u8::arbitrary(input)?),
        generation: generation(input)?,
        address: address(u8::arbitrary(input)?),
        location: Location::new(if bits & 4 == 0 { "here" } else { "there" }).unwrap(),
        labels: Labels::new(labels).unwrap(),
        software: Software::new("fuzzed").unwrap(),
        read_only: bits & 8 != 0,
        left: bits & 48 == 48,
    })
}

fn listed(input: &mut Unstructured<'_>) -> Result<ListedMember> {
    let record = record(input)?;
    let incarnation = match u8::arbitrary(input)? {
        byte @ 0..240 => u16::from(byte % 8),
        byte => u16::MAX - u16::from(byte - 240),
    };
    let standing = match u8::arbitrary(input)? % 4 {
        _ if record.left => Standing::Left,
        0 => Standing::Suspect,
        1 => Standing::Down,
        _ => Standing::Alive,
    };
    let down_for_s = if standing.is_up() { 0 } else { u32::from(u8::arbitrary(input)?) * MEMBER_DOWN_LISTED_S / 250 };
    Ok(ListedMember { record: Arc::new(record), incarnation, standing, down_for_s })
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let (kind, who, number) = <(u8, u8, u8)>::arbitrary(input)?;
        Ok(match kind % 32 {
            0..5 => Self::Pass(number),
            5 if number > 247 => Self::PassDay,
            5..10 => Self::Deliver(who, number),
            10..15 => Self::DeliverAll(number),
            15 | 16 => Self::Damage(who, number, u8::arbitrary(input)?),
            17..20 => Self::Link(who, number),
            20 => Self::Unlink(who, number),
            21 | 22 => Self::Lists(who, number),
            23 | 24 => {
                let many = u8::arbitrary(input)?;
                let count = if many < 224 { 1 + many % 4 } else { many % 32 };
                let list = (0..count).map(|_| listed(input)).collect::<Result<_>>()?;
                Self::Lie(who, number, list)
            }
            25 => Self::Impostor(number, record(input)?),
            26 => Self::Move(who, number),
            27 => Self::ReadOnly(who, number % 2 == 0),
            28 => Self::Resume(who),
            29 => Self::Leave(who),
            _ => Self::Restart(who),
        })
    }
}

/// Runs one script, and then lets all be linked for a while.
pub fn run(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(options) = u8::arbitrary(&mut input) else { return };
    let mut world = World::new(options);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        take(&mut world, step);
        world.check();
    }
    world.finish();
}

fn take(world: &mut World, step: Step) {
    let node = |who: u8| usize::from(who) % NODES;
    match step {
        Step::Pass(tenths) => world.pass(Duration::from_millis(100 * u64::from(tenths))),
        Step::PassDay => world.pass(Duration::from_secs(MEMBER_DOWN_LISTED_S.into())),
        Step::Deliver(which, copies) => world.deliver(which, [1, 1, 1, 1, 1, 1, 0, 2][usize::from(copies % 8)]),
        Step::DeliverAll(count) => (0..count).for_each(|_| world.deliver(0, 1)),
        Step::Damage(which, at, byte) => world.damage(which, at, byte),
        Step::Link(one, other) => world.link(node(one), node(other)),
        Step::Unlink(one, other) => world.unlink(node(one), node(other), other >= 128),
        Step::Lists(one, other) => world.exchange_lists(node(one), node(other)),
        Step::Lie(from, to, list) => world.lie(node(from), node(to), &list),
        Step::Impostor(to, record) => world.impostor(node(to), record),
        Step::Move(who, to) => world.tell(node(who), |member, now| member.set_address(address(to), now)),
        Step::ReadOnly(who, is) => world.tell(node(who), |member, now| member.set_read_only(is, now)),
        Step::Resume(who) => world.tell(node(who), |member, now| member.resume(now)),
        Step::Leave(who) => world.leave(node(who)),
        Step::Restart(who) => world.restart(node(who)),
    }
}
