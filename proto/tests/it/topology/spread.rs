//! How an update spreads in a cluster of a thousand: pushes, and reconciliation for those that pushes missed.

use std::collections::{BTreeMap, BTreeSet};

use stockmesh_proto::counter::Counters;
use stockmesh_proto::gossip::{choose, note_told};
use stockmesh_proto::limits::{PUSH_FAN_OUT_DEFAULT, PUSH_TOLD_MAX};
use stockmesh_proto::product::{Product, StockSlot};
use stockmesh_proto::topology::reconcile_with;
use stockmesh_proto::wire::{Message, Push, PushShard};
use stockmesh_proto::{Location, ReplicaId, ShardIndex};

use super::graph::Cluster;
use crate::support::{location, sku};

/// What spreading some updates took.
#[derive(Debug, Default)]
struct Figures {
    updates: usize,
    members: usize,
    copies: usize,
    bytes: usize,
    /// Hops until no push is under way any more, at the most.
    push_rounds: usize,
    /// … and reconciliations of each node until all have it.
    rounds: usize,
    /// Nodes that no push reached.
    missed: usize,
    told_most: usize,
}

impl Figures {
    fn copies_per_node(&self) -> f64 {
        self.copies as f64 / (self.updates * self.members) as f64
    }

    fn bytes_per_node(&self) -> f64 {
        self.bytes as f64 / (self.updates * self.members) as f64
    }
}

fn an_update(origin: ReplicaId) -> Push {
    let counters = Counters { added: 1_000, removed: 900, ..Counters::default() };
    let slot = StockSlot { location: location("location-1"), replica: origin, sequence: 1_000, counters };
    let products = vec![(sku("MUG-0123456789"), Product::of_stock(slot))];
    Push {
        origin,
        told: Vec::new(),
        shards: vec![PushShard { shard: ShardIndex(1), from: 1_000, to: 1_000, products }],
    }
}

/// Bytes of the frame of an update's push with so many told.
fn sizes() -> Vec<usize> {
    let mut push = an_update(ReplicaId::from_random(u64::MAX));
    let mut size = |told: usize| {
        push.told = vec![ReplicaId::from_random(u64::MAX); told];
        Message::Push(push.clone()).encode().unwrap().len()
    };
    (0..=PUSH_TOLD_MAX).map(&mut size).collect()
}

/// Spreads updates of random members, one after the other.
fn spread(cluster: &mut Cluster, updates: usize, fan_out: usize, lost_per_thousand: u64) -> Figures {
    let (members, sizes) = (cluster.members(), sizes());
    let mut figures = Figures { updates, members: members.len(), ..Figures::default() };
    for origin in cluster.shuffled().into_iter().cycle().take(updates) {
        let mut has = BTreeSet::from([origin]);
        // What is under way: from, to, the list of those told.
        let mut under_way = Vec::new();
        forward(cluster, (None, origin), an_update(origin), fan_out, &mut under_way);
        let mut rounds = 0;
        while !under_way.is_empty() {
            rounds += 1;
            let mut next = Vec::new();
            for (from, to, push) in std::mem::take(&mut under_way) {
                figures.told_most = figures.told_most.max(push.told.len());
                if cluster.chance.draw() % 1_000 < lost_per_thousand {
                    continue;
                }
                figures.copies += 1;
                figures.bytes += sizes[push.told.len()];
                if has.insert(to) {
                    forward(cluster, (Some(from), to), push, fan_out, &mut next);
                }
            }
            under_way = next;
        }
        figures.push_rounds = figures.push_rounds.max(rounds);
        figures.missed += members.len() - has.len();
        while has.len() < members.len() {
            rounds += 1;
            reconcile(cluster, &mut has);
            assert!(rounds < 100);
        }
        figures.rounds = figures.rounds.max(rounds);
    }
    figures
}

/// As `net::push::spread` does.
fn forward(
    cluster: &mut Cluster,
    (from, at): (Option<ReplicaId>, ReplicaId),
    mut push: Push,
    fan_out: usize,
    under_way: &mut Vec<(ReplicaId, ReplicaId, Push)>,
) {
    let linked: Vec<ReplicaId> = cluster.linked(at).into_iter().filter(|peer| Some(*peer) != from).collect();
    let targets = choose(&linked, &push, fan_out, &mut || cluster.chance.draw());
    note_told(&mut push, &targets);
    under_way.extend(targets.into_iter().map(|to| (at, to, push.clone())));
}

/// Each node reconciles with one of those that it is linked with.
fn reconcile(cluster: &mut Cluster, has: &mut BTreeSet<ReplicaId>) {
    let locations: BTreeMap<ReplicaId, Location> = cluster.locations.clone();
    for node in cluster.shuffled() {
        let linked = cluster.linked(node);
        let places: Vec<&Location> = linked.iter().map(|peer| &locations[peer]).collect();
        let Some(chosen) = reconcile_with(&locations[&node], &places, &mut || cluster.chance.draw()) else { continue };
        if has.contains(&node) || has.contains(&linked[chosen]) {
            has.extend([node, linked[chosen]]);
        }
    }
}

fn settled(members: usize, links: usize, seed: u64) -> Cluster {
    let mut cluster = Cluster::new(links, seed);
    cluster.join(members, |number| number % 10);
    cluster.settle();
    cluster
}

fn rounds_goal(members: usize) -> usize {
    members.next_power_of_two().ilog2() as usize + 5
}

/// The goal: all of a thousand have an update after log2 n + 5 rounds, although of a hundred pushes one is lost.
#[test]
fn an_update_reaches_a_thousand_members_within_the_goal() {
    let mut cluster = settled(1_000, 64, 1);
    for fan_out in [PUSH_FAN_OUT_DEFAULT, 8, 4] {
        let figures = spread(&mut cluster, 10, fan_out, 10);
        println!(
            "1,000 members, 64 links, fan-out {fan_out}, 1 % lost: {:.2} copies and {:.0} bytes per node and update, \
             {} hops of pushes, {} of 10,000 missed by pushes, {} rounds until all have it",
            figures.copies_per_node(),
            figures.bytes_per_node(),
            figures.push_rounds,
            figures.missed,
            figures.rounds,
        );
        assert!(figures.rounds <= rounds_goal(1_000), "{figures:?}");
        assert!(figures.copies_per_node() <= fan_out as f64, "{figures:?}");
        assert!(figures.told_most <= PUSH_TOLD_MAX, "{figures:?}");
    }
}

/// What a node gets of an update does not grow with the cluster.
#[test]
fn copies_and_bytes_per_node_do_not_grow_with_the_cluster() {
    let mut known = Vec::new();
    for members in [8, 50, 250, 1_000, 1_500] {
        let mut cluster = settled(members, 64, 2);
        let figures = spread(&mut cluster, 4, PUSH_FAN_OUT_DEFAULT, 10);
        println!(
            "{members} members: {:.2} copies, {:.0} bytes per node and update, {} rounds, links {:?}",
            figures.copies_per_node(),
            figures.bytes_per_node(),
            figures.rounds,
            cluster.degrees(),
        );
        assert!(figures.rounds <= rounds_goal(members), "{figures:?}");
        known.push((figures.copies_per_node(), figures.bytes_per_node()));
    }
    // All nodes told by the origin itself: nothing to forward, one copy each.
    assert!(known[0].0 <= 1.0, "{known:?}");
    assert!(known[4].0 <= known[3].0 * 1.1 && known[4].1 <= known[3].1 * 1.1, "{known:?}");
}

/// Also where each node has three links.
#[test]
fn an_update_reaches_a_thousand_members_of_three_links() {
    let mut cluster = settled(1_000, 3, 3);
    let figures = spread(&mut cluster, 20, PUSH_FAN_OUT_DEFAULT, 10);
    println!("1,000 members of 3 links: {:.2} copies per node, {figures:?}", figures.copies_per_node());
    assert!(figures.rounds <= rounds_goal(1_000), "{figures:?}");
    assert!(figures.copies_per_node() < 6.0, "{figures:?}");
}

/// After half of the members died, before anybody made a new link.
#[test]
fn an_update_reaches_the_half_that_survives() {
    let mut cluster = settled(1_000, 64, 4);
    let dead: BTreeSet<_> = cluster.shuffled().into_iter().take(500).collect();
    cluster.die(&dead);
    let figures = spread(&mut cluster, 10, PUSH_FAN_OUT_DEFAULT, 10);
    println!("500 survivors: {figures:?}");
    assert!(figures.rounds <= rounds_goal(500), "{figures:?}");
}
