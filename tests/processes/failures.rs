//! Nodes are killed, cut off, and far away.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::process::{Cluster, Node, PATIENCE, all_known, kib_sent, phase, running, scenario, until};

/// Within this a node that was killed is known to be down, as the timing for a LAN promises, and a second for looking.
const NOTICED_WITHIN: Duration = Duration::from_secs(21);

fn grown(test: &'static str, count: usize) -> (Cluster, Vec<Node>) {
    let mut cluster = Cluster::new(test);
    let mut nodes: Vec<Node> = (0..count).map(|number| cluster.node(&format!("n{number}"))).collect();
    let bootstrap = nodes[0].address;
    nodes.iter_mut().for_each(|node| cluster.start(node, &[bootstrap]));
    all_known(&mut nodes);
    cluster.stock(&mut nodes[0], 1_000_000);
    nodes.iter_mut().for_each(|node| node.say("load on"));
    (cluster, nodes)
}

#[test]
fn half_are_killed_and_the_first_never_returns() {
    scenario(|| {
        let (cluster, mut nodes) = grown("failures::half_are_killed_and_the_first_never_returns", 12);
        let bootstrap = nodes[0].address;
        sleep(phase(3));
        // What the first has told by now, all hold; what it tells later may go with it.
        nodes.iter_mut().for_each(Node::rest);
        println!("settled under way in {:?}", cluster.settle(&mut nodes, &[]));
        let settled = nodes[0].told();
        assert!(nodes[0].acknowledged() > 0, "it had something to lose");
        nodes.iter_mut().for_each(|node| node.say("load on"));
        sleep(phase(1));
        nodes[0].lose(&settled);
        for number in [2, 4, 6, 8, 10] {
            nodes[number].kill();
        }
        let begun = Instant::now();
        for node in running(&mut nodes) {
            until("the failures are noticed", PATIENCE, || node.status().down >= 6);
        }
        let noticed = begun.elapsed();
        println!("6 of 12 killed: noticed by all others after {noticed:?}");
        assert!(noticed < NOTICED_WITHIN);
        running(&mut nodes).for_each(|node| node.say("load off"));
        println!("those that are left settled in {:?}", cluster.settle_alive(&mut nodes));

        // The address that they knew in the beginning is gone; one that is new needs any that lives.
        let mut new = cluster.node("new");
        cluster.start(&mut new, &[nodes[1].address]);
        nodes.push(new);
        for number in [2, 4, 6, 8, 10] {
            cluster.start(&mut nodes[number], &[bootstrap]);
        }
        println!("all know all after {:?}", all_known(&mut nodes));
        let (gone, rest) = nodes.split_at_mut(1);
        println!("settled in {:?}, {} KiB were sent", cluster.settle(rest, &[&gone[0]]), kib_sent(rest));
    });
}

#[test]
fn two_halves_are_apart_and_come_together() {
    scenario(|| {
        let (cluster, mut nodes) = grown("failures::two_halves_are_apart_and_come_together", 8);
        let addresses: Vec<SocketAddr> = nodes.iter().map(|node| node.address).collect();
        let (left, right) = addresses.split_at(4);
        for (number, node) in nodes.iter_mut().enumerate() {
            let others = if number < 4 { right } else { left };
            let others: Vec<String> = others.iter().map(SocketAddr::to_string).collect();
            node.say(&format!("cut {}", others.join(" ")));
        }
        // Longer than it takes to count each other as dead.
        sleep(phase(40));
        let apart: Vec<_> = running(&mut nodes).map(Node::status).collect();
        assert_ne!(apart[0].fingerprint, apart[7].fingerprint, "they are apart");
        println!("apart: each side sees {} alive, {} down", apart[0].alive, apart[0].down);
        nodes.iter_mut().for_each(|node| node.say("heal"));
        println!("all know all {:?} after it healed", all_known(&mut nodes));
        nodes.iter_mut().for_each(|node| node.say("load off"));
        println!("settled in {:?}", cluster.settle(&mut nodes, &[]));
        println!("{} KiB were sent in all", kib_sent(&mut nodes));
    });
}

#[test]
fn a_node_far_away_on_a_lossy_link_keeps_up() {
    scenario(|| {
        let (cluster, mut nodes) = grown("failures::a_node_far_away_on_a_lossy_link_keeps_up", 4);
        // 100 ms and 10 % on either way.
        let far = nodes[3].address;
        nodes[3].say("weather 200 200 40");
        sleep(phase(10));
        let before = nodes[3].acknowledged();
        until("it writes on", PATIENCE, || nodes[3].acknowledged() > before + 10);
        nodes.iter_mut().for_each(|node| node.say("load off"));
        println!("{far} loses 20 % and is 200 ms away: settled in {:?}", cluster.settle(&mut nodes, &[]));
        println!("{} KiB were sent in all", kib_sent(&mut nodes));
        assert_eq!(nodes[0].status().down, 0, "it is far, not dead");
    });
}
