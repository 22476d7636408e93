//! Nodes join and leave all the time, under load.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::process::{Cluster, Node, PATIENCE, all_known, kib_sent, phase, scenario, until};

/// Nodes that stay.
const STABLE: usize = 4;

#[test]
fn nodes_join_and_leave_every_second_under_writes() {
    scenario(|| {
        let mut cluster = Cluster::new("churn::nodes_join_and_leave_every_second_under_writes");
        let mut nodes: Vec<Node> = (0..STABLE).map(|number| cluster.node(&format!("n{number}"))).collect();
        let bootstrap = nodes[0].address;
        nodes.iter_mut().for_each(|node| cluster.start(node, &[bootstrap]));
        all_known(&mut nodes);
        cluster.stock(&mut nodes[0], 1_000_000);
        nodes.iter_mut().for_each(|node| node.say("load on"));
        let (begun, length) = (Instant::now(), phase(10));
        let (mut gone, mut coming): (Vec<Node>, Vec<Node>) = (Vec::new(), Vec::new());
        for number in 0_usize.. {
            // A slow machine takes longer for the least that counts as coming and going.
            if begun.elapsed() >= length && gone.len() >= 2 {
                break;
            }
            let mut joins = cluster.node(&format!("c{number}"));
            // Any node that lives will do.
            let live: Vec<SocketAddr> = nodes.iter().chain(&coming).map(|node| node.address).collect();
            cluster.start(&mut joins, &[live[number % live.len()]]);
            joins.say("load on");
            coming.push(joins);
            sleep(Duration::from_secs(1));
            if coming.len() > 2 {
                let mut leaves = coming.remove(0);
                leaves.say("load off");
                leaves.leave();
                gone.push(leaves);
            }
        }
        println!("{} joined and {} left within {:?}", gone.len() + coming.len(), gone.len(), begun.elapsed());
        nodes.append(&mut coming);
        nodes.iter_mut().for_each(|node| node.say("load off"));
        println!("those that stay know each other after {:?}", all_known(&mut nodes));
        let gone: Vec<&Node> = gone.iter().collect();
        println!("settled in {:?}, {} KiB were sent", cluster.settle(&mut nodes, &gone), kib_sent(&mut nodes));
        until("they are known to have left", PATIENCE, || nodes[0].status().left >= gone.len());
    });
}
