//! Pulling from several peers: what is pulled from whom, and whole joins with deaths in between (rules J2 to J5).

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use stockmesh_proto::joining::{Plan, PullNumber};
use stockmesh_proto::limits::{PULL_PORTION_SHARDS_MAX, PULL_SHARDS_MAX, PULL_SILENCE_MS_MAX, PULL_SILENCE_MS_MIN};
use stockmesh_proto::operation::Operation;
use stockmesh_proto::reconcile::{Session, SessionError, StateView};
use stockmesh_proto::wire::{Message, Scope, Summary};
use stockmesh_proto::{Fingerprint, ReplicaId, ShardIndex, VersionVector};

use crate::support::conversation::{Conversation, reconcile, settings};
use crate::support::generate::operations;
use crate::support::oracle::Log;
use crate::support::replica::Replica;
use crate::support::{config, location, replica_id, shard_count, sku};

/// What happens to a plan.
#[derive(Clone, Debug)]
enum Step {
    Next(Index),
    Arrive(Index, Index),
    Hear(Index),
    Finish(Index),
    Fail(Index),
    /// A call for a pull that is over, as of an answer that comes twice or late.
    Late(Index, Index),
    Offer(Index, BTreeSet<u16>),
    Leave(Index),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<Index>;
    prop_oneof![
        8 => index().prop_map(Step::Next),
        8 => (index(), index()).prop_map(|(pull, shard)| Step::Arrive(pull, shard)),
        2 => index().prop_map(Step::Hear),
        2 => index().prop_map(Step::Finish),
        2 => index().prop_map(Step::Fail),
        2 => (index(), index()).prop_map(|(pull, shard)| Step::Late(pull, shard)),
        3 => (index(), btree_set(0_u16..64, 0..64)).prop_map(|(peer, shards)| Step::Offer(peer, shards)),
        1 => index().prop_map(Step::Leave),
        2 => (0_u64..3_000).prop_map(Step::Wait),
    ]
}

/// One of the four peers.
fn nth(peer: &Index) -> ReplicaId {
    replica_id(u64::try_from(peer.index(4)).unwrap() + 1)
}

/// A plan, and an account of it that is kept apart.
#[derive(Default)]
struct Account {
    plan: Plan,
    now_ms: u64,
    offers: BTreeMap<ReplicaId, BTreeSet<ShardIndex>>,
    pulls: BTreeMap<PullNumber, (ReplicaId, BTreeSet<ShardIndex>)>,
    over: Vec<PullNumber>,
    arrived: BTreeSet<ShardIndex>,
    done_before: usize,
}

impl Account {
    fn offer(&mut self, peer: ReplicaId, shards: BTreeSet<ShardIndex>) {
        self.plan.offer(peer, shards.iter().copied());
        self.offers.insert(peer, shards);
    }

    fn next(&mut self, peer: ReplicaId) -> bool {
        let Some((number, scope)) = self.plan.next(peer, self.now_ms) else { return false };
        let shards: BTreeSet<ShardIndex> = scope.shards().iter().copied().collect();
        assert!(shards.is_subset(&self.offers[&peer]), "only what the peer offers");
        assert!(shards.is_disjoint(&self.arrived), "what arrived is not asked for again");
        assert!(shards.len() <= PULL_PORTION_SHARDS_MAX.min(PULL_SHARDS_MAX));
        for (_, pulled) in self.pulls.values() {
            assert!(shards.is_disjoint(pulled), "no shard is pulled from two peers at once");
        }
        assert!(self.pulls.insert(number, (peer, shards)).is_none(), "a number is used once");
        true
    }

    fn pick(&self, index: &Index) -> Option<PullNumber> {
        (!self.pulls.is_empty()).then(|| *self.pulls.keys().nth(index.index(self.pulls.len())).unwrap())
    }

    fn arrive(&mut self, number: PullNumber, shard: &Index) {
        let shards = &mut self.pulls.get_mut(&number).unwrap().1;
        let Some(shard) = shards.iter().copied().nth(shard.index(shards.len().max(1))) else { return };
        shards.remove(&shard);
        self.plan.arrived(number, shard);
        self.arrived.insert(shard);
    }

    fn end(&mut self, number: PullNumber, is_whole: bool) {
        let (_, shards) = self.pulls.remove(&number).unwrap();
        self.over.push(number);
        if is_whole {
            self.plan.finished(number);
            self.arrived.extend(shards);
        } else {
            self.plan.failed(number, self.now_ms);
        }
    }

    fn leave(&mut self, peer: ReplicaId) {
        self.plan.leave(peer);
        self.offers.remove(&peer);
        let gone: Vec<PullNumber> = self.pulls.iter().filter(|(_, pull)| pull.0 == peer).map(|pull| *pull.0).collect();
        self.pulls.retain(|number, _| !gone.contains(number));
        self.over.extend(gone);
    }

    fn end_overdue(&mut self) {
        for number in self.plan.overdue(self.now_ms) {
            let (peer, _) = self.pulls.remove(&number).expect("only what is under way is overdue");
            assert!(self.offers.keys().any(|other| *other != peer), "somebody else can help");
            self.over.push(number);
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Next(peer) => _ = self.next(nth(peer)),
            Step::Arrive(pull, shard) => _ = self.pick(pull).map(|number| self.arrive(number, shard)),
            Step::Hear(pull) => _ = self.pick(pull).map(|number| self.plan.heard(number, self.now_ms)),
            Step::Finish(pull) => _ = self.pick(pull).map(|number| self.end(number, true)),
            Step::Fail(pull) => _ = self.pick(pull).map(|number| self.end(number, false)),
            Step::Late(pull, shard) => {
                if let Some(number) = self.over.get(pull.index(self.over.len().max(1))) {
                    self.plan.arrived(*number, ShardIndex(u16::try_from(shard.index(64)).unwrap()));
                    self.plan.finished(*number);
                    self.plan.failed(*number, self.now_ms);
                }
            }
            Step::Offer(peer, shards) => {
                self.offer(nth(peer), shards.iter().map(|shard| ShardIndex(*shard)).collect());
            }
            Step::Leave(peer) => self.leave(nth(peer)),
            Step::Wait(milliseconds) => {
                self.now_ms += milliseconds;
                self.end_overdue();
            }
        }
        self.check();
    }

    /// What must hold at any time.
    fn check(&mut self) {
        let pulls: BTreeMap<_, _> =
            self.plan.pulls().map(|(number, peer, shards)| (number, (peer, shards.clone()))).collect();
        assert_eq!(pulls, self.pulls);
        let (done, total) = self.plan.progress();
        assert_eq!(done, self.arrived.len(), "late calls count for nothing");
        assert!(self.done_before <= done && done <= total, "progress does not go back");
        self.done_before = done;
    }

    /// Lets those who are still there do the rest.
    fn run_to_the_end(&mut self) {
        let peers: Vec<ReplicaId> = self.offers.keys().copied().collect();
        for _ in 0..1_000 {
            if self.plan.is_over() {
                return;
            }
            self.now_ms += PULL_SILENCE_MS_MAX;
            peers.iter().for_each(|peer| _ = self.next(*peer));
            let pulls: Vec<PullNumber> = self.pulls.keys().copied().collect();
            pulls.iter().for_each(|number| self.end(*number, true));
            self.check();
        }
        panic!("the plan does not end");
    }
}

proptest! {
    #![proptest_config(config(500))]

    #[test]
    fn a_plan_pulls_each_shard_from_one_peer_at_a_time_and_ends(steps in vec(step(), 0..120)) {
        let mut account = Account::default();
        steps.iter().for_each(|step| account.take(step));
        account.run_to_the_end();
        for offers in account.offers.values() {
            prop_assert!(offers.is_subset(&account.arrived), "whatever a peer that lives offers arrived");
        }
    }
}

fn all(shards: u32) -> BTreeSet<ShardIndex> {
    shard_count(shards).indexes().collect()
}

/// One peer alone is asked a few times, several share the work about evenly.
#[test]
fn work_is_cut_into_few_portions_and_shared() {
    for (shards, peers, pulls_max) in
        [(256, 1_u64, 8), (256, 3, 16), (16, 1, 8), (16, 3, 16), (1, 3, 1), (4_096, 3, 80)]
    {
        let mut account = Account::default();
        (1..=peers).for_each(|peer| account.offer(replica_id(peer), all(shards)));
        let mut shares = BTreeMap::<ReplicaId, usize>::new();
        while !account.plan.is_over() {
            (1..=peers).for_each(|peer| _ = account.next(replica_id(peer)));
            for (number, (peer, shards)) in account.pulls.clone() {
                *shares.entry(peer).or_default() += shards.len();
                account.end(number, true);
            }
        }
        assert_eq!(account.arrived, all(shards));
        assert!(account.over.len() <= pulls_max, "{shards} shards of {peers} peers took {} pulls", account.over.len());
        let least = shares.values().min().unwrap();
        assert!(shards < 16 || *least * shares.len() * 3 >= all(shards).len(), "{shares:?}");
    }
}

/// Rule J5: a silent peer loses its work to an idle one, not to nobody; and its pause is over in time.
#[test]
fn a_silent_peer_loses_its_work_to_an_idle_one() {
    let mut account = Account::default();
    let (slow, other) = (replica_id(1), replica_id(2));
    account.offer(slow, all(16));
    while account.next(slow) {}
    account.now_ms = PULL_SILENCE_MS_MIN * 10;
    account.end_overdue();
    assert_eq!(account.pulls.values().map(|pull| pull.1.len()).sum::<usize>(), 16, "nobody else can do it");
    let kept = *account.pulls.keys().next().unwrap();
    account.plan.heard(kept, account.now_ms);
    account.offer(other, all(16));
    assert!(account.plan.may_need(other));
    account.end_overdue();
    assert_eq!(account.pulls.keys().copied().collect::<Vec<_>>(), [kept], "only what was silent");
    account.now_ms += 2 * PULL_SILENCE_MS_MIN - 1;
    assert!(!account.next(slow), "it is not asked again at once");
    assert!(account.next(other));
    account.now_ms += 1;
    assert!(account.next(slow), "but after a while");
}

/// A peer that dies when all has arrived, and only its receipt is missing, holds nothing up.
#[test]
fn a_receipt_that_never_comes_holds_nothing_up() {
    let mut account = Account::default();
    account.offer(replica_id(1), all(4));
    while account.next(replica_id(1)) {}
    for (number, (_, shards)) in account.pulls.clone() {
        assert!(!account.plan.is_over());
        shards.into_iter().for_each(|shard| account.plan.arrived(number, shard));
    }
    assert!(account.plan.is_over());
}

/// A joiner and its peers, and the pulls under way.
struct Join {
    joiner: Replica,
    peers: BTreeMap<ReplicaId, Replica>,
    plan: Plan,
    pulls: Vec<(PullNumber, Conversation)>,
    log: Log,
    now_ms: u64,
    slots_received: u64,
    served: BTreeSet<ReplicaId>,
}

impl Join {
    /// Surveys all peers.
    fn new(joiner: Replica, peers: Vec<Replica>, log: Log) -> Self {
        let mut plan = Plan::new();
        for peer in &peers {
            let (ours, theirs) = (joiner.tree(), peer.tree());
            plan.offer(peer.id, joiner.count.indexes().filter(|shard| ours.leaf(*shard) != theirs.leaf(*shard)));
        }
        let peers = peers.into_iter().map(|peer| (peer.id, peer)).collect();
        let (pulls, served) = (Vec::new(), BTreeSet::new());
        Self { joiner, peers, plan, pulls, log, now_ms: 1_000, slots_received: 0, served }
    }

    fn begin(&mut self, peer: ReplicaId) -> bool {
        let Some((number, scope)) = self.plan.next(peer, self.now_ms) else { return false };
        let settings = settings(self.joiner.count, 0, 60_000);
        self.pulls.push((number, Conversation::pull(&self.joiner, &self.peers[&peer], settings, scope)));
        true
    }

    /// One side of a pull sends or is delivered its next message.
    fn step(&mut self, position: usize, side: usize, sends: bool) -> bool {
        let (number, conversation) = &mut self.pulls[position];
        let peer = conversation.parties[1];
        let replica = if side == 0 { &mut self.joiner } else { self.peers.get_mut(&peer).unwrap() };
        if sends {
            return conversation.send(side, replica);
        }
        let before: Vec<VersionVector> = replica.contents().1;
        let moved = conversation.deliver(side, replica, self.now_ms).unwrap();
        assert_eq!(self.log.missing(replica), None);
        if side == 0 {
            for (shard, before) in self.joiner.count.indexes().zip(before) {
                if *self.joiner.shard(shard).version() != before {
                    self.plan.arrived(*number, shard);
                    self.served.insert(peer);
                }
            }
        }
        if self.pulls[position].1.is_over() {
            let (number, conversation) = self.pulls.remove(position);
            let outcome = conversation.sessions[0].outcome();
            assert!(outcome.scoped && !outcome.peer_holds_all(), "a pull tells nothing of the other shards");
            self.slots_received += outcome.slots_received;
            self.plan.finished(number);
        }
        moved
    }

    fn kill(&mut self, peer: ReplicaId) {
        if self.peers.len() > 1 && self.peers.remove(&peer).is_some() {
            self.plan.leave(peer);
            self.pulls.retain(|(_, conversation)| conversation.parties[1] != peer);
        }
    }

    fn finish(&mut self) {
        while !self.plan.is_over() || !self.pulls.is_empty() {
            self.now_ms += PULL_SILENCE_MS_MAX;
            let ids: Vec<ReplicaId> = self.peers.keys().copied().collect();
            let mut moved = ids.into_iter().fold(false, |moved, peer| self.begin(peer) | moved);
            for position in (0..self.pulls.len()).rev() {
                for (side, sends) in [(0, true), (1, true), (0, false), (1, false)] {
                    if self.pulls.get(position).is_some() {
                        moved |= self.step(position, side, sends);
                    }
                }
            }
            assert!(moved, "the join is stuck");
        }
    }
}

/// Peers with some history that they know of each other in part, and a joiner that may have written too.
fn histories(steps: &[(Index, Vec<Operation>, Index)], count: u32) -> (Vec<Replica>, Log) {
    let mut replicas: Vec<Replica> = (1..=4).map(|bits| Replica::new(replica_id(bits), shard_count(count))).collect();
    let mut log = Log::default();
    for (writer, operations, met) in steps {
        let (writer, met) = (writer.index(4), met.index(4));
        log.note(replicas[writer].id, &replicas[writer].write(operations, 1_000).0);
        if writer != met {
            let [left, right] = replicas.get_disjoint_mut([writer, met]).unwrap();
            reconcile(left, right, 1_000);
        }
    }
    (replicas, log)
}

proptest! {
    #![proptest_config(config(150))]

    /// Whatever dies in between: claims are never false, the plan ends if one peer lives, and what it left out, as peers
    /// differ, one plain reconciliation brings.
    #[test]
    fn joins_with_deaths_end_in_the_state_of_whoever_lives(
        steps in vec((any::<Index>(), operations(), any::<Index>()), 1..12),
        moves in vec((any::<Index>(), any::<Index>(), any::<bool>(), any::<bool>(), 0_u8..40), 0..120),
        count in prop_oneof![Just(1_u32), Just(8)],
    ) {
        let (mut replicas, log) = histories(&steps, count);
        let joiner = replicas.remove(0);
        let mut join = Join::new(joiner, replicas, log);
        for (peer, pull, is_joiner, sends, luck) in moves {
            let ids: Vec<ReplicaId> = join.peers.keys().copied().collect();
            let peer = ids[peer.index(ids.len())];
            match luck {
                0 => join.kill(peer),
                1 if !join.pulls.is_empty() => {
                    let (number, _) = join.pulls.remove(pull.index(join.pulls.len()));
                    join.plan.failed(number, join.now_ms);
                }
                2..10 => _ = join.begin(peer),
                _ if !join.pulls.is_empty() => {
                    join.step(pull.index(join.pulls.len()), usize::from(!is_joiner), sends);
                }
                _ => {}
            }
        }
        join.finish();
        prop_assert_eq!(join.log.missing(&join.joiner), None);
        for peer in join.peers.values_mut() {
            reconcile(&mut join.joiner, peer, 5_000);
            prop_assert_eq!(join.joiner.contents(), peer.contents());
        }
        join.joiner.check_sums();
        prop_assert_eq!(join.joiner.slots_repaired + join.joiner.own_futures, 0);
    }
}

fn receive(number: usize) -> Operation {
    let reason = stockmesh_proto::movement::Reason::Found;
    Operation::Adjust { sku: sku(&format!("SKU-{number}")), location: location("x"), units: 1, reason }
}

/// Of three equal peers each serves a part, and each slot arrives once.
#[test]
fn three_peers_serve_a_part_each_and_nothing_comes_twice() {
    let (mut full, mut log) = (Replica::new(replica_id(1), shard_count(64)), Log::default());
    let products: Vec<Operation> = (0..500).map(receive).collect();
    log.note(full.id, &full.write(&products, 1_000).0);
    let mut peers = vec![full];
    for bits in [2, 3] {
        let mut peer = Replica::new(replica_id(bits), shard_count(64));
        reconcile(&mut peer, &mut peers[0], 1_000);
        peers.push(peer);
    }
    let contents = peers[0].contents();
    let mut join = Join::new(Replica::new(replica_id(9), shard_count(64)), peers, log);
    join.finish();
    assert_eq!(join.joiner.contents(), contents);
    assert_eq!(join.slots_received, 500);
    assert_eq!(join.served.len(), 3);
}

fn scope(shards: &[u16]) -> Scope {
    Scope::new(shards.iter().map(|shard| ShardIndex(*shard)).collect()).unwrap()
}

fn empty(shard: u16) -> Summary {
    Summary { shard: ShardIndex(shard), fingerprint: Fingerprint::EMPTY, version: VersionVector::new() }
}

/// Rule J2: a scope names shards that exist, all of them are summarised, and no others.
#[test]
fn a_pull_keeps_to_its_scope() {
    let replica = Replica::new(replica_id(1), shard_count(4));
    let accept = || Session::accept(settings(replica.count, 0, 60_000));
    let mut session = accept();
    assert!(matches!(session.handle(Message::Pull(scope(&[1, 4])), &replica, 0), Err(SessionError::Delta(_))));
    let mut session = accept();
    session.handle(Message::Pull(scope(&[1, 2])), &replica, 0).unwrap();
    let twice = session.handle(Message::Pull(scope(&[1, 2])), &replica, 0);
    assert!(matches!(twice, Err(SessionError::Unexpected(_))));
    let other = session.handle(Message::Summary(vec![empty(3)]), &replica, 0);
    assert_eq!(other, Err(SessionError::OutOfScope(ShardIndex(3))));
    let mut session = accept();
    session.handle(Message::Pull(scope(&[1, 2])), &replica, 0).unwrap();
    session.handle(Message::Summary(vec![empty(1)]), &replica, 0).unwrap();
    let half = session.handle(Message::End, &replica, 0);
    assert_eq!(half, Err(SessionError::Unsummarised { got: 1, wanted: 2 }));
}

/// The side that pulls takes nothing from outside of the scope, and is asked nothing.
#[test]
fn whoever_pulls_takes_nothing_but_what_it_asked_for() {
    let mut replica = Replica::new(replica_id(1), shard_count(4));
    replica.write(&[receive(1), receive(2)], 1_000);
    let mut session = Session::pull(settings(replica.count, 0, 60_000), scope(&[1]));
    while session.poll_transmit(&replica).is_some() {}
    let asked = session.handle(Message::Summary(vec![empty(1)]), &replica, 0);
    assert!(matches!(asked, Err(SessionError::Unexpected(_))));
    let part = stockmesh_proto::wire::Part {
        shard: ShardIndex(2),
        version: Some(VersionVector::new()),
        products: Vec::new(),
        full: false,
        last: true,
    };
    assert_eq!(session.handle(Message::Part(part), &replica, 0), Err(SessionError::OutOfScope(ShardIndex(2))));
}

/// Equal shards cost one round trip, whatever the shards outside of the scope hold.
#[test]
fn a_pull_of_equal_shards_is_over_at_once() {
    let (mut left, right) = (Replica::new(replica_id(1), shard_count(4)), Replica::new(replica_id(2), shard_count(4)));
    left.write(&[receive(1)], 1_000);
    let written = left.count.shard_of(&sku("SKU-1"));
    let others: Vec<ShardIndex> = left.count.indexes().filter(|shard| *shard != written).collect();
    let (mut left, mut right) = (left, right);
    let mut conversation =
        Conversation::pull(&left, &right, settings(left.count, 0, 60_000), Scope::new(others).unwrap());
    assert!(conversation.run(&mut left, &mut right, 1_000).equal);
    assert_eq!(conversation.turns(), 2);
    assert!(right.product_of("SKU-1").is_empty());
}
