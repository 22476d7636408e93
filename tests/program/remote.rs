//! Commands that act on a running node.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Node, Ran, Site, run, stockmesh, wait_until};

struct Stage {
    site: Site,
    node: Node,
}

impl Stage {
    fn start() -> Self {
        let site = Site::new();
        site.issue("till");
        let node = site.node("berlin", "");
        Self { site, node }
    }

    fn ask(&self, arguments: &[&str]) -> Ran {
        self.site.ask("till", &self.node.address, arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.ask(&[arguments, &["--json"]].concat()).ended_with(0).json()
    }
}

#[test]
fn each_command_acts_on_a_running_node() {
    let stage = Stage::start();
    assert_eq!(stage.ask(&["receive", "MUG-01", "10"]).ended_with(0).out, "received 10 of MUG-01\n");
    let received = stage.json(&["receive", "MUG-01", "5", "--at", "shop", "--reference", "delivery 1"]);
    assert_eq!(received, json!({ "received": 5, "sku": "MUG-01", "reference": "delivery 1" }));
    stage.json(&["receive", "MUG-01", "5", "--at", "shop", "--reference", "delivery 1"]);
    assert_eq!(stage.ask(&["sell", "MUG-01", "2"]).ended_with(0).out, "sold 2 of MUG-01\n");
    let sold = stage.json(&["sell", "MUG-01", "1", "--deadline", "100ms"]);
    assert_eq!((&sold["sold"], sold["reference"].as_str().unwrap().len() > 20), (&json!(1), true));

    assert_eq!(stage.ask(&["price", "MUG-01"]).ended_with(1).out, "");
    stage.ask(&["price", "MUG-01", "9.90", "eur"]).ended_with(0);
    assert_eq!(stage.ask(&["price", "MUG-01"]).ended_with(0).out, "9.90 EUR\n");
    let price = json!({ "amount": "9.90", "currency": "EUR" });
    assert_eq!(stage.json(&["price", "MUG-01"])["price"], price);

    let product = &stage.json(&["get", "MUG-01"])["products"][0];
    assert_eq!((&product["on_hand"], &product["available"], &product["price"]), (&json!("12"), &json!("12"), &price));
    assert_eq!(product["locations"][1]["location"], "shop");
    let shop = &stage.json(&["get", "MUG-01", "--at", "shop"])["products"][0];
    assert_eq!(shop["on_hand"], "5");
    let table = stage.ask(&["get", "MUG-01"]).ended_with(0).out;
    assert!(table.starts_with("sku") && table.contains("MUG-01  all") && table.contains("9.90 EUR"), "{table}");
    stage.ask(&["receive", "PLATE-07", "1"]).ended_with(0);
    let listed = stage.json(&["get", "--prefix", ""]);
    let skus: Vec<&Value> = listed["products"].as_array().unwrap().iter().map(|product| &product["sku"]).collect();
    assert_eq!(skus, ["MUG-01", "PLATE-07"]);
    assert!(stage.ask(&["get", "--prefix", "PLATE"]).ended_with(0).out.ends_with("PLATE-07\n"));

    let status = stage.json(&["status"]);
    assert_eq!(
        (&status["location"], &status["products"], &status["durability"]["state"]),
        (&json!("berlin"), &json!(2), &json!("synced"))
    );
    let table = stage.ask(&["status"]).ended_with(0).out;
    assert!(table.contains("shards in doubt  none") && table.contains("lag writes"), "{table}");
    assert!(stage.json(&["members"])["members"].is_array());
    assert!(stage.ask(&["members"]).ended_with(0).out.starts_with("replica"));
}

#[test]
fn holds_are_given_and_resolved() {
    let stage = Stage::start();
    stage.ask(&["receive", "MUG-01", "10"]).ended_with(0);
    let hold = stage.json(&["hold", "MUG-01", "4", "--ttl", "15m"]);
    let id = hold["id"].as_str().unwrap();
    assert_eq!((&hold["units"], &hold["state"]), (&json!(4), &json!("active")));
    let other = stage.ask(&["hold", "MUG-01", "2", "--ttl", "1h"]).ended_with(0).out;
    let other = other.lines().nth(1).unwrap().split_whitespace().next().unwrap();
    let listed = stage.json(&["hold", "list"]);
    let listed: Vec<&Value> = listed["holds"].as_array().unwrap().iter().map(|hold| &hold["id"]).collect();
    assert_eq!(listed, [id, other]);
    assert_eq!(stage.json(&["hold", "commit", id, "3"]), json!({ "id": id, "sold": 3, "released": 1 }));
    assert_eq!(stage.ask(&["hold", "release", other]).ended_with(0).out, "0 sold, 2 released\n");
    let refused = stage.ask(&["hold", "release", id, "--json"]).ended_with(1);
    assert_eq!(
        (&refused.json()["error"]["code"], &refused.json()["error"]["data"]),
        (&json!("refused"), &json!("unchanged"))
    );
    assert!(refused.err.contains("committed with 3 units"), "{refused:?}");
    assert!(stage.json(&["hold", "list"])["holds"].as_array().unwrap().is_empty());
    let product = &stage.json(&["get", "MUG-01"])["products"][0];
    assert_eq!((&product["on_hand"], &product["held"]), (&json!("7"), &json!("0")));
}

#[test]
fn what_is_refused_is_told_by_text_json_and_exit_code() {
    let stage = Stage::start();
    stage.ask(&["receive", "MUG-01", "3"]).ended_with(0);
    let refused = stage.ask(&["sell", "MUG-01", "5", "--json"]).ended_with(1);
    let error = &refused.json()["error"];
    assert_eq!((&error["code"], &error["data"]), (&json!("insufficient"), &json!("unchanged")));
    assert_eq!(
        (&error["wanted"], &error["here"], &error["elsewhere"], &error["unreachable"]),
        (&json!(5), &json!(3), &json!(0), &json!(0))
    );
    assert!(refused.err.contains("nothing was changed"), "{refused:?}");
    assert!(stage.ask(&["sell", "MUG-01", "5"]).ended_with(1).out.is_empty());
    let unknown = stage.ask(&["get", "NONE", "MUG-01", "--json"]).ended_with(1);
    assert_eq!(
        (&unknown.json()["unknown"], &unknown.json()["products"][0]["sku"]),
        (&json!(["NONE"]), &json!("MUG-01"))
    );
    // The command line and files.
    for wrong in [
        &["sell", "MUG-01"][..],
        &["sell", "MUG-01", "-1"],
        &["sell", "MUG-01", "0"],
        &["sell", "", "1"],
        &["get"],
        &["price", "MUG-01", "9.90"],
        &["price", "MUG-01", "cheap", "EUR"],
        &["price", "MUG-01", "1", "QQQ"],
        &["hold"],
        &["hold", "MUG-01", "1"],
        &["hold", "MUG-01", "1", "--ttl", "soon"],
        &["hold", "commit", "MUG-01"],
    ] {
        let ran = stage.ask(wrong).ended_with(2);
        assert!(ran.err.contains("error") && ran.out.is_empty(), "{ran:?}");
    }
    let node = stage.node.address.as_str();
    assert!(run(&["status", "--connect", node]).ended_with(2).err.contains("--config"));
    let missing = run(&["status", "--connect", node, "--config", "no-such-file.toml", "--json"]).ended_with(2);
    assert_eq!(missing.json()["error"]["code"], "usage");
    // With the identity of the node's own configuration it works.
    run(&["status", "--connect", node, "--config", stage.node.config.to_str().unwrap()]).ended_with(0);
}

#[test]
fn without_a_connection_the_reason_is_told_in_time() {
    let stage = Stage::start();
    let begun = Instant::now();
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let nobody = stage.site.ask("till", &free, &["sell", "MUG-01", "1", "--json"]).ended_with(2);
    assert_eq!(
        (&nobody.json()["error"]["code"], &nobody.json()["error"]["data"]),
        (&json!("connection"), &json!("unchanged"))
    );
    assert!(stage.site.ask("till", "nowhere", &["status"]).ended_with(2).err.contains("host:port"));
    let closed = stage.site.node("paris", "clients = false");
    assert!(stage.site.ask("till", &closed.address, &["status"]).ended_with(2).err.contains("takes no clients"));
    let others = Site::new();
    others.issue("till");
    let stranger = others.ask("till", &stage.node.address, &["status"]).ended_with(2);
    assert!(stranger.err.contains("authority") || stranger.err.contains("certificate"), "{stranger:?}");
    let fingerprint = stage.site.issue("stolen");
    let list = stage.site.path("revoked.txt");
    std::fs::write(&list, format!("{fingerprint}\n")).unwrap();
    let strict = stage.site.node("rome", "revocations = \"revoked.txt\"");
    let revoked = stage.site.ask("stolen", &strict.address, &["sell", "MUG-01", "1"]).ended_with(2);
    assert!(revoked.err.contains("list of revoked certificates"), "{revoked:?}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn watch_prints_one_line_of_json_for_each_change() {
    let stage = Stage::start();
    let site = &stage.site;
    let mut child = stockmesh()
        .args(["watch", "--json", "--prefix", "MUG", "--below", "5", "--connect", &stage.node.address])
        .args([
            "--ca",
            &site.path("authority/ca.pem"),
            "--cert",
            &site.path("till.pem"),
            "--key",
            &site.path("till.key"),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(told.next().unwrap().unwrap(), "watching");
    stage.ask(&["receive", "PLATE-07", "1"]).ended_with(0);
    stage.ask(&["receive", "MUG-01", "9"]).ended_with(0);
    stage.ask(&["sell", "MUG-01", "5"]).ended_with(0);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut changes: Vec<String> = Vec::new();
    while changes.len() < 4 {
        let change: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(change["product"]["sku"], "MUG-01");
        changes.push(change["change"].as_str().unwrap().to_owned());
    }
    changes.sort();
    assert_eq!(changes, ["back_in_stock", "low_stock", "product", "product"]);
    // It ends with the node, and says so.
    let Stage { node, site: _site } = stage;
    drop(node);
    let mut ended = None;
    wait_until("it ends when the node is gone", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.unwrap().code(), Some(2));
    assert!(told.next().unwrap().unwrap().contains("cut off"));
}

/// A node that is killed and comes back while a sale is asked for again and again under one reference.
#[test]
fn a_reference_sells_once_over_a_kill() {
    let stage = Stage::start();
    stage.ask(&["receive", "MUG-01", "10"]).ended_with(0);
    let order = ["sell", "MUG-01", "3", "--reference", "order 7"];
    stage.ask(&order).ended_with(0);
    let Stage { site, node } = stage;
    let killed = node.kill();
    site.ask("till", &killed.1, &order).ended_with(2);
    let node = Node::restart(killed);
    let stage = Stage { site, node };
    stage.ask(&order).ended_with(0);
    assert_eq!(stage.json(&["get", "MUG-01"])["products"][0]["on_hand"], "7");
}
