//! Typed scripts against a pair of replicas that reconcile: messages are delivered, lost, doubled, changed or made up,
//! and writes happen in between. Errors are allowed, panics and false claims are not.

mod pair;

use arbitrary::{Arbitrary, Result, Unstructured};
use stockmesh_proto::reconcile::{Agreement, Direction, Effect, Session, Settings, StateView};
use stockmesh_proto::wire::{Message, Open, Part, Push, PushShard, Scope, Summary};
use stockmesh_proto::{Fingerprint, ShardIndex};

use crate::input::{number, products, replica, version};
use pair::{Replica, SHARDS, shard_count};

/// One step of a script.
#[derive(Debug)]
enum Step {
    /// A side writes; the other gets the push or does not.
    Write { side: usize, sku: u8, units: u8, pushed: bool },
    /// A side sends one message, which arrives as often as told: once, twice, or not at all. What is lost takes the rest of the
    /// conversation with it, as a stream does that breaks off.
    Send { side: usize, copies: u8 },
    /// A side sends one message, and one byte of it is changed on its way.
    Damage { side: usize, at: u16, byte: u8 },
    /// A message that was made up arrives at a side.
    Forge { side: usize, message: Message },
    /// A push that was made up arrives at a side, as of the other one or of somebody else.
    ForgePush { side: usize, push: Push },
}

/// Whether the first session is opened with an agreement, or is a pull, who only reads, and what happens.
#[derive(Debug)]
struct Script {
    agreement: Option<bool>,
    /// The first session is a pull of these shards.
    scope: Option<u8>,
    /// One side of the first session only reads, or also of all that follow.
    directions: [Direction; 2],
    reader_stays: bool,
    bytes_target: usize,
    steps: Vec<Step>,
}

fn side(input: &mut Unstructured<'_>) -> Result<usize> {
    Ok(usize::from(bool::arbitrary(input)?))
}

fn shard(input: &mut Unstructured<'_>) -> Result<ShardIndex> {
    // One more than there are.
    Ok(ShardIndex(u16::from(u8::arbitrary(input)?) % (SHARDS + 1)))
}

fn fingerprint(input: &mut Unstructured<'_>) -> Result<Fingerprint> {
    Ok(Fingerprint::from_bits(u128::from(u8::arbitrary(input)?)))
}

/// The shards of which the mask has the bit, one of them that does not exist; the first if there is none.
fn scope(mask: u8) -> Scope {
    let shards = (0..=SHARDS).filter(|shard| mask >> shard & 1 == 1).map(ShardIndex).collect();
    Scope::new(shards).unwrap_or_else(|| Scope::new(vec![ShardIndex(0)]).unwrap())
}

fn push(input: &mut Unstructured<'_>) -> Result<Push> {
    let one = |input: &mut Unstructured<'_>| {
        let (from, count) = (number(input)?, number(input)?);
        Ok(PushShard { shard: shard(input)?, from, to: from.saturating_add(count), products: products(input)? })
    };
    let shards = (0..1 + u8::arbitrary(input)? % 3).map(|_| one(input)).collect::<Result<_>>()?;
    Ok(Push { origin: replica(input)?, told: Vec::new(), shards })
}

fn message(input: &mut Unstructured<'_>) -> Result<Message> {
    Ok(match u8::arbitrary(input)? % 8 {
        0 if bool::arbitrary(input)? => Message::Pull(scope(u8::arbitrary(input)?)),
        0 => Message::Open(Open {
            root: fingerprint(input)?,
            groups: vec![fingerprint(input)?; usize::from(u8::arbitrary(input)? % 3)],
        }),
        1 => {
            let count = u8::arbitrary(input)? % 4;
            let one =
                |_| Ok(Summary { shard: shard(input)?, fingerprint: fingerprint(input)?, version: version(input)? });
            Message::Summary((0..count).map(one).collect::<Result<Vec<_>>>()?)
        }
        2 => Message::End,
        3 => Message::Equal,
        4 => Message::Done(u32::arbitrary(input)?),
        _ => {
            let (shard, full, last) = (shard(input)?, bool::arbitrary(input)?, bool::arbitrary(input)?);
            let version = if bool::arbitrary(input)? { Some(version(input)?) } else { None };
            let mut products = products(input)?;
            if bool::arbitrary(input)? {
                products.retain(|(sku, _)| shard_count().shard_of(sku) == shard);
            }
            Message::Part(Part { shard, version, products, full, last })
        }
    })
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u8::arbitrary(input)? % 12 {
            0..4 => {
                let (sku, units) = (u8::arbitrary(input)?, u8::arbitrary(input)?);
                Self::Write { side: side(input)?, sku, units, pushed: bool::arbitrary(input)? }
            }
            4..9 => Self::Send { side: side(input)?, copies: u8::arbitrary(input)? % 8 },
            9 => Self::Damage { side: side(input)?, at: u16::arbitrary(input)?, byte: u8::arbitrary(input)? },
            10 => Self::Forge { side: side(input)?, message: message(input)? },
            _ => Self::ForgePush { side: side(input)?, push: push(input)? },
        })
    }
}

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let agreement = Option::<bool>::arbitrary(input)?;
        let bytes_target = if bool::arbitrary(input)? { 0 } else { 1 << 16 };
        // Shards that exist, so that the session is an honest one.
        let scope = Option::<u8>::arbitrary(input)?.map(|mask| mask % (1 << SHARDS));
        let (directions, reader_stays) = match u8::arbitrary(input)? {
            0..160 => ([Direction::Both; 2], false),
            160..208 => (READER_OPENS, true),
            208..224 => ([Direction::ServeOnly, Direction::PullOnly], true),
            224..240 => (READER_OPENS, false),
            _ => ([Direction::ServeOnly, Direction::PullOnly], false),
        };
        let mut steps = Vec::new();
        while !input.is_empty() && steps.len() < 64 {
            steps.push(Step::arbitrary(input)?);
        }
        Ok(Self { agreement, scope, directions, reader_stays, bytes_target, steps })
    }
}

/// The side that opens only reads.
const READER_OPENS: [Direction; 2] = [Direction::PullOnly, Direction::ServeOnly];

impl Script {
    /// The directions of sessions that follow the first.
    fn directions_later(&self) -> [Direction; 2] {
        if self.reader_stays { self.directions } else { [Direction::Both; 2] }
    }
}

/// Runs one script, and then one session without faults.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::arbitrary(&mut Unstructured::new(data)) else { return };
    let mut replicas = [Replica::new(1), Replica::new(2)];
    let settings = Settings { shards: shard_count(), drift_ms_max: 60_000, chunk_bytes_target: script.bytes_target };
    let mut agreement =
        script.agreement.map(|with_peer| Agreement::of(&replicas[usize::from(with_peer)].tree(), shard_count()));
    let mut sessions = open(settings, &replicas, agreement.as_ref(), script.directions);
    if let Some(mask) = script.scope {
        sessions[0] = Session::pull(settings, scope(mask)).with_direction(script.directions[0]);
    }
    // Nothing was forged or damaged so far, so claims can be held against the writes that were made.
    let mut is_honest = true;
    for step in &script.steps {
        match step {
            Step::Write { side, sku, units, pushed } => {
                let parts = replicas[*side].write(*sku, *units);
                if *pushed {
                    let origin = replicas[*side].own;
                    replicas[1 - *side].receive(origin, &parts);
                }
            }
            Step::Send { side, copies } => {
                if let Some(message) = sessions[*side].poll_transmit(&replicas[*side]) {
                    let copies = [1, 1, 1, 1, 1, 1, 0, 2][usize::from(*copies)];
                    for _ in 0..copies {
                        deliver(&mut sessions[1 - *side], &mut replicas[1 - *side], message.clone());
                    }
                    let is_finished = sessions.iter().all(Session::is_finished);
                    if is_finished {
                        agreement = Some(finished(&sessions, &mut replicas));
                    }
                    if copies == 0 || is_finished {
                        // A link that broke off is a new one, without an agreement.
                        let known = agreement.as_ref().filter(|_| is_finished && script.reader_stays);
                        sessions = open(settings, &replicas, known, script.directions_later());
                    }
                }
            }
            Step::Damage { side, at, byte } => {
                if let Some(message) = sessions[*side].poll_transmit(&replicas[*side]) {
                    is_honest = false;
                    let mut frame = message.encode().unwrap()[4..].to_vec();
                    let at = usize::from(*at) % frame.len();
                    frame[at] = *byte;
                    if let Ok(message) = Message::decode(&frame) {
                        deliver(&mut sessions[1 - *side], &mut replicas[1 - *side], message);
                    }
                }
            }
            Step::Forge { side, message } => {
                is_honest = false;
                deliver(&mut sessions[*side], &mut replicas[*side], message.clone());
            }
            Step::ForgePush { side, push } => {
                is_honest = false;
                replicas[*side].receive(push.origin, &push.shards);
            }
        }
        if is_honest {
            pair::check_claims(&replicas);
        }
    }
    replicas.iter().for_each(Replica::check_sums);
    if is_honest {
        if script.reader_stays && script.directions == READER_OPENS {
            find_stranded(settings, &mut replicas);
        }
        end_well(settings, &mut replicas);
    }
}

/// How often a reader looks, to be sure of what is stranded.
const LOOKS: usize = 8;

/// A reader finds out, with no more faults, what it holds and the other does not (rule K9). Beyond that it may only suspect
/// shards that are the same by other writes, as vectors cannot tell.
fn find_stranded(settings: Settings, replicas: &mut [Replica; 2]) {
    let mut agreement = None;
    for _ in 0..LOOKS {
        let mut sessions = open(settings, replicas, agreement.as_ref(), READER_OPENS);
        talk(&mut sessions, replicas);
        agreement = Some(finished(&sessions, replicas));
    }
    let found = replicas[0].stranded_shards();
    for shard in shard_count().indexes() {
        let differs = pair::differs(replicas, shard);
        assert!(found.contains(&shard) || !differs.slots, "stranded writes were not found");
        assert!(!found.contains(&shard) || differs.slots || differs.vectors, "nothing is stranded");
    }
}

/// A session without faults leaves both equal.
fn end_well(settings: Settings, replicas: &mut [Replica; 2]) {
    let mut sessions = open(settings, replicas, None, [Direction::Both; 2]);
    talk(&mut sessions, replicas);
    assert!(sessions[0].outcome().peer_holds_all() && sessions[0].outcome().shards_refused == 0);
    pair::check_equal(replicas);
}

/// Delivers all messages, to the end of the session.
fn talk(sessions: &mut [Session; 2], replicas: &mut [Replica; 2]) {
    while !sessions.iter().all(Session::is_finished) {
        let mut moved = false;
        for side in [0, 1] {
            while let Some(message) = sessions[side].poll_transmit(&replicas[side]) {
                moved = true;
                assert!(deliver(&mut sessions[1 - side], &mut replicas[1 - side], message), "no error among friends");
            }
        }
        assert!(moved, "the session is stuck");
    }
}

/// Opens a session, as the first side. Whoever only reads asks for what it suspects too (rule K9).
fn open(
    settings: Settings,
    replicas: &[Replica; 2],
    agreement: Option<&Agreement>,
    directions: [Direction; 2],
) -> [Session; 2] {
    let mut opener = Session::open(settings, &replicas[0], agreement).with_direction(directions[0]);
    if directions[0] == Direction::PullOnly {
        opener = opener.with_suspects(replicas[0].suspects());
    }
    [opener, Session::accept(settings).with_direction(directions[1])]
}

/// What both keep in mind of a session that has ended.
fn finished(sessions: &[Session; 2], replicas: &mut [Replica; 2]) -> Agreement {
    for (session, replica) in sessions.iter().zip(replicas.iter_mut()) {
        replica.ended(&session.outcome());
    }
    Agreement::of(&replicas[0].tree(), shard_count())
}

/// Hands a message to a session and carries out the effects. False if the session found a rule broken.
fn deliver(session: &mut Session, replica: &mut Replica, message: Message) -> bool {
    let (shard, last) = match &message {
        Message::Part(part) => (Some(part.shard), part.last),
        _ => (None, false),
    };
    let Ok(effects) = session.handle(message, replica, 1_000) else { return false };
    for effect in effects {
        if let Effect::Merge { delta, claim } = &effect
            && shard.is_some()
        {
            assert_eq!((Some(delta.shard), claim.is_some()), (shard, last), "a claim comes with the last chunk alone");
        }
        replica.carry_out(effect);
    }
    true
}
