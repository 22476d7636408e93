//! A network that loses, repeats and reorders datagrams costs time, never convergence.

use crate::support::proxy::{Proxy, Weather};
use crate::support::writers::Ledger;
use crate::support::{Mesh, address, wait_linked};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_behind_a_lossy_network_converge() {
    let mesh = Mesh::new();
    for seed in [1, 2] {
        let stores = mesh.nodes(2).await;
        let weather = Weather { lost: 60, repeated: 60, late: 100 };
        let proxy = Proxy::start(address(&stores[1]), weather, seed).await;
        stores[0].add_peer(proxy.address()).unwrap();
        wait_linked(&stores, 1).await;
        let ledger = Ledger::default();
        ledger.write_at_all(&stores, 2_000 + seed, 250).await;
        stores[0].go_offline();
        ledger.write_at_all(&stores, 2_100 + seed, 100).await;
        stores[0].go_online();
        ledger.write_at_all(&stores, 2_200 + seed, 100).await;
        ledger.assert_whole(&stores).await;
        assert!(proxy.lost() > 10, "{} datagrams were lost, {} passed", proxy.lost(), proxy.passed());
    }
}
