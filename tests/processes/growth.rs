//! A cluster grows from one address, and is restarted node by node.

use std::time::Instant;

use crate::process::{Cluster, Node, PATIENCE, all_known, kib_sent, scenario, until};

const NODES: usize = 12;

#[test]
fn twelve_nodes_find_each_other_from_one_address_and_are_restarted_one_by_one() {
    scenario(|| {
        let mut cluster =
            Cluster::new("growth::twelve_nodes_find_each_other_from_one_address_and_are_restarted_one_by_one");
        let mut nodes: Vec<Node> = (0..NODES).map(|number| cluster.node(&format!("n{number}"))).collect();
        let bootstrap = nodes[0].address;
        let begun = Instant::now();
        // In no order: most dial an address where nobody listens yet.
        for number in [5, 9, 2, 11, 7, 0, 3, 10, 1, 8, 4, 6] {
            cluster.start(&mut nodes[number], &[bootstrap]);
        }
        println!("{NODES} processes started in {:?}", begun.elapsed());
        println!("all know all: {:?} after the last start", all_known(&mut nodes));
        cluster.stock(&mut nodes[0], 1_000_000);
        nodes.iter_mut().for_each(|node| node.say("load on"));
        for node in &mut nodes {
            let before = node.acknowledged();
            node.close();
            cluster.start(node, &[bootstrap]);
            node.say("load on");
            until("it writes again", PATIENCE, || node.acknowledged() > before + 10);
        }
        println!("all know all again: {:?} after the last restart", all_known(&mut nodes));
        nodes.iter_mut().for_each(|node| node.say("load off"));
        println!("settled in {:?}, {} KiB were sent", cluster.settle(&mut nodes, &[]), kib_sent(&mut nodes));
        // All at once: each takes its leave of those that are still there, up to seconds.
        std::thread::scope(|scope| {
            for node in &mut nodes {
                scope.spawn(|| node.close());
            }
        });
    });
}
