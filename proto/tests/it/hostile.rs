//! Peers that break the rules: errors, never panics, never a claim without its whole delta, memory within limits.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use stockmesh_proto::check::{DeltaRefused, DriftCheck};
use stockmesh_proto::gossip::check_push;
use stockmesh_proto::limits::{REPLICAS_MAX, SESSION_VERSION_ENTRIES_MAX};
use stockmesh_proto::reconcile::{Comparison, Direction, Effect, Session, SessionError, StateView};
use stockmesh_proto::wire::{Message, Open, Part, Push, PushShard, Scope, Summary};
use stockmesh_proto::{Fingerprint, ShardIndex, VersionVector};

use crate::support::conversation::settings;
use crate::support::generate::{of_shard, operations, products, version};
use crate::support::replica::Replica;
use crate::support::{config, replica_id, shard_count};

fn fingerprint() -> impl Strategy<Value = Fingerprint> {
    prop_oneof![3 => Just(Fingerprint::EMPTY), 1 => any::<u128>().prop_map(Fingerprint::from_bits)]
}

fn shard() -> impl Strategy<Value = ShardIndex> {
    prop_oneof![12 => 0_u16..4, 1 => any::<u16>()].prop_map(ShardIndex)
}

fn part() -> impl Strategy<Value = Message> {
    (shard(), proptest::option::of(version()), products(), any::<bool>(), any::<bool>(), 0_u8..10).prop_map(
        |(shard, version, products, full, last, foreign)| {
            let products = if foreign == 0 { products } else { of_shard(&products, shard_count(4), shard) };
            Message::Part(Part { shard, version, products, full, last })
        },
    )
}

fn summary() -> impl Strategy<Value = Message> {
    let one = (shard(), fingerprint(), version());
    let one = one.prop_map(|(shard, fingerprint, version)| Summary { shard, fingerprint, version });
    vec(one, 0..4).prop_map(Message::Summary)
}

fn scope() -> impl Strategy<Value = Scope> {
    proptest::collection::btree_set(shard(), 1..5).prop_map(|shards| Scope::new(shards.into_iter().collect()).unwrap())
}

fn message() -> impl Strategy<Value = Message> {
    let groups = prop_oneof![8 => Just(1_usize), 1 => 0_usize..4];
    let open = (fingerprint(), groups)
        .prop_map(|(root, groups)| Message::Open(Open { root, groups: vec![Fingerprint::EMPTY; groups] }));
    let push = Push { origin: replica_id(1), told: Vec::new(), shards: Vec::new() };
    prop_oneof![
        3 => open,
        2 => scope().prop_map(Message::Pull),
        4 => summary(),
        10 => part(),
        4 => Just(Message::End),
        1 => Just(Message::Equal),
        1 => any::<u32>().prop_map(Message::Done),
        1 => Just(Message::Push(push)),
    ]
}

/// The shard whose chunks are arriving, by an account kept apart from the session's.
#[derive(Default)]
struct Account {
    versions: BTreeMap<ShardIndex, VersionVector>,
    refused: bool,
    /// In a pull: its scope, outside of which nothing may be touched (rule J2).
    scope: Option<Scope>,
}

impl Account {
    /// Checks what a session made of a message that it accepted (rules R4, R6).
    fn check(&mut self, message: &Message, before: &Replica, effects: &[Effect]) {
        if let Message::Part(part) = message {
            if let Some(version) = &part.version {
                assert!(self.versions.insert(part.shard, version.clone()).is_none(), "a shard comes once");
                self.refused = false;
            }
            self.refused |= effects.iter().any(|effect| matches!(effect, Effect::Refused { .. }));
        }
        if let Message::Pull(scope) = message {
            self.scope = Some(scope.clone());
        }
        for effect in effects {
            if let (Effect::Merge { delta, .. }, Some(scope)) = (effect, &self.scope) {
                assert!(scope.contains(delta.shard), "nothing outside of a pull's scope is merged");
            }
            match (message, effect) {
                (Message::Part(part), Effect::Merge { delta, claim }) => {
                    assert!(!self.refused, "nothing after a refused chunk is merged");
                    assert_eq!((delta.shard, &delta.products), (part.shard, &part.products));
                    assert_eq!(claim.is_some(), part.last, "a claim comes with the last chunk alone");
                    assert!(claim.as_ref().is_none_or(|claim| Some(claim) == self.versions.get(&part.shard)));
                }
                (Message::Summary(_) | Message::End, Effect::Merge { delta, claim }) => {
                    assert!(delta.products.is_empty() && claim.is_some());
                    // Every generated summary of this fingerprint is of the empty state.
                    assert_eq!(before.summary(delta.shard).fingerprint, Fingerprint::EMPTY);
                }
                (_, Effect::OwnFuture { shard, sequence }) => {
                    assert!(*sequence > before.summary(*shard).version.get(before.id));
                }
                (Message::Part(part), Effect::Compared { shard, vectors: (ours, theirs), .. }) => {
                    assert_eq!((*shard, Some(theirs)), (part.shard, part.version.as_ref()));
                    assert_eq!(*ours, before.summary(*shard).version);
                }
                (Message::Summary(_) | Message::End, Effect::Compared { shard, vectors: (ours, _), comparison }) => {
                    let known = before.summary(*shard);
                    assert_eq!(*ours, known.version);
                    // Every generated summary is of the empty state.
                    assert!(*comparison != Comparison::Same || known.fingerprint == Fingerprint::EMPTY);
                }
                (Message::Part(_), Effect::Refused { .. }) => {}
                (Message::Summary(_) | Message::End, Effect::InDoubt { .. }) => {}
                (Message::Equal | Message::Done(_), Effect::Finished(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(config(1_500))]

    #[test]
    fn any_messages_in_any_order_give_errors_at_most(
        script in vec((message(), any::<bool>()), 0..16),
        is_opener in any::<bool>(),
        direction in prop::sample::select(vec![Direction::Both, Direction::PullOnly, Direction::ServeOnly]),
        scope in proptest::option::of(proptest::sample::subsequence(vec![0_u16, 1, 2, 3], 1..4)),
        with_opening in any::<bool>(),
        own in operations(),
        now_ms in prop_oneof![Just(1_000_u64), Just(1_u64 << 47)],
    ) {
        let count = shard_count(4);
        let mut replica = Replica::new(replica_id(1), count);
        replica.write(&own, 1_000);
        let settings = settings(count, 0, 60_000);
        let scope = scope.map(|shards| Scope::new(shards.into_iter().map(ShardIndex).collect()).unwrap());
        let mut session = match &scope {
            Some(scope) if is_opener => Session::pull(settings, scope.clone()),
            None if is_opener => Session::open(settings, &replica, None),
            _ => Session::accept(settings),
        };
        session = session.with_direction(direction);
        let mut account = Account { scope: scope.filter(|_| is_opener), ..Account::default() };
        let opening = Open { root: Fingerprint::from_bits(1), groups: vec![Fingerprint::from_bits(1)] };
        let opening = [(Message::Open(opening), true), (Message::End, true)];
        let opening = opening.into_iter().filter(|_| with_opening && !is_opener);
        let mut sent = 0;
        while session.poll_transmit(&replica).is_some() {}
        for (message, drains) in opening.chain(script) {
            let before = replica.clone();
            match session.handle(message.clone(), &replica, now_ms) {
                Ok(effects) => {
                    account.check(&message, &before, &effects);
                    // Rule K3: nothing of a read-only member is merged or claimed, whatever it sends.
                    let merges = effects.iter().any(|effect| matches!(effect, Effect::Merge { .. }));
                    prop_assert!(!merges || direction != Direction::ServeOnly);
                    effects.into_iter().filter(|effect| !matches!(effect, Effect::Finished(_)))
                        .for_each(|effect| replica.carry_out(effect));
                }
                // The link is closed; a caller that goes on must not be harmed either.
                Err(_) if !drains => break,
                Err(_) => {}
            }
            while let Some(reply) = session.poll_transmit(&replica) {
                sent += 1;
                prop_assert!(reply.encode().is_ok());
                if let (Message::Part(part), Direction::PullOnly) = (&reply, direction) {
                    prop_assert!(part.products.is_empty() && part.last && part.version.is_some());
                }
                prop_assert!(sent < 2_000, "a session ends");
            }
        }
        replica.check_sums();
    }

    /// Honest messages, cut short anywhere, with one of them twice: an error or silence, and no false claim.
    #[test]
    fn honest_sessions_with_one_message_twice_claim_nothing_false(
        batches in vec((operations(), any::<bool>()), 1..6),
        at in any::<Index>(),
        cut in any::<Index>(),
    ) {
        use crate::support::conversation::{ACCEPTER, OPENER};
        use crate::support::oracle::Log;
        let count = shard_count(4);
        let (mut left, mut right) = (Replica::new(replica_id(1), count), Replica::new(replica_id(2), count));
        let mut log = Log::default();
        for (operations, is_left) in &batches {
            let writer = if *is_left { &mut left } else { &mut right };
            log.note(writer.id, &writer.write(operations, 1_000).0);
        }
        let settings = settings(count, 0, 60_000);
        let mut sessions = [Session::open(settings, &left, None), Session::accept(settings)];
        let mut sides = [left, right];
        let mut messages = Vec::new();
        let (at, cut) = (at.index(24), cut.index(48));
        'talk: while sessions.iter().any(|session| !session.is_finished()) && messages.len() < cut {
            for side in [OPENER, ACCEPTER] {
                let other = 1 - side;
                while let Some(message) = sessions[side].poll_transmit(&sides[side]) {
                    let copies = if messages.len() == at { 2 } else { 1 };
                    messages.push(message.kind());
                    for _ in 0..copies {
                        let Ok(effects) = sessions[other].handle(message.clone(), &sides[other], 1_000) else {
                            break 'talk;
                        };
                        effects.into_iter().filter(|effect| !matches!(effect, Effect::Finished(_)))
                            .for_each(|effect| sides[other].carry_out(effect));
                        prop_assert_eq!(log.missing(&sides[other]), None);
                    }
                }
            }
        }
        for side in &sides {
            prop_assert_eq!(log.missing(side), None);
            prop_assert_eq!((side.slots_repaired, side.own_futures), (0, 0));
        }
    }
}

fn vector(first: u64, entries: usize) -> VersionVector {
    (first..).take(entries).map(|bits| (replica_id(bits), 1)).collect()
}

/// Section 2: a session keeps a bounded number of version-vector entries of its peer, and names the limit.
#[test]
fn a_session_refuses_version_vectors_beyond_its_limit() {
    let count = shard_count(4096);
    let replica = Replica::new(replica_id(1), count);
    let mut session = Session::accept(settings(count, 1 << 16, 60_000));
    let groups = vec![Fingerprint::EMPTY; 256];
    session.handle(Message::Open(Open { root: Fingerprint::EMPTY, groups }), &replica, 0).unwrap();
    let full = SESSION_VERSION_ENTRIES_MAX / REPLICAS_MAX;
    let version = vector(2, REPLICAS_MAX);
    for shard in 0..=u16::try_from(full).unwrap() {
        let summary = Summary { shard: ShardIndex(shard), fingerprint: Fingerprint::EMPTY, version: version.clone() };
        let handled = session.handle(Message::Summary(vec![summary]), &replica, 0);
        if usize::from(shard) < full {
            handled.unwrap();
        } else {
            assert_eq!(handled, Err(SessionError::TooManyEntries(SESSION_VERSION_ENTRIES_MAX)));
        }
    }
}

/// Checks of a push (rule P2): what its origin did not write, or what lies outside the range, refuses it whole.
#[test]
fn a_push_of_what_its_origin_did_not_write_is_refused() {
    let count = shard_count(1);
    let (mut writer, mut other) = (Replica::new(replica_id(1), count), Replica::new(replica_id(2), count));
    let operation = |name: &str| stockmesh_proto::operation::Operation::Adjust {
        sku: crate::support::sku(name),
        location: crate::support::location("x"),
        units: 1,
        reason: stockmesh_proto::movement::Reason::Found,
    };
    let honest = writer.write(&[operation("A"), operation("B")], 1_000).1.remove(0);
    let foreign = other.write(&[operation("A")], 1_000).1.remove(0);
    let drift = DriftCheck { now_ms: 1_000, drift_ms_max: 60_000 };
    assert_eq!(check_push(&honest, count, drift), Ok(()));
    let variants: [fn(&mut PushShard, &Push); 8] = [
        |part, _| part.from = 0,
        |part, _| part.to = 3,
        |part, _| part.products.clear(),
        |part, _| part.from = 2,
        |part, _| part.to = 1,
        |part, foreign| part.products.clone_from(&foreign.shards[0].products),
        |part, _| part.shard = ShardIndex(1),
        |part, _| part.to = 0,
    ];
    let mut twice = honest.clone();
    twice.shards.push(honest.shards[0].clone());
    assert!(check_push(&twice, count, drift).unwrap_err().is_violation(), "a shard may come once only (rule P2)");
    for variant in variants {
        let mut push = honest.clone();
        variant(&mut push.shards[0], &foreign);
        let refused = check_push(&push, count, drift).unwrap_err();
        assert!(refused.is_violation(), "{refused}");
    }
    let mut elsewhere = honest;
    elsewhere.shards[0].shard = ShardIndex(0);
    let refused = check_push(&elsewhere, shard_count(4096), drift).unwrap_err();
    assert!(matches!(refused, DeltaRefused::ForeignProduct { .. }), "{refused}");
}
