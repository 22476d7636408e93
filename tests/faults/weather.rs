//! Networks that delay, lose, double, reorder and slow what is sent.

use std::thread::sleep;

use crate::process::{PATIENCE, phase, until};
use crate::sky::Weather;
use crate::world::faults;

const THIS_TEST: &str = "weather::a_cluster_works_in_any_weather";

/// A name, the weather, and how many writes of about 20 KB one node makes in it: more than a slow line takes at once.
type Scene = (&'static str, Weather, i128);

fn scenes() -> Vec<Scene> {
    let calm = Weather::default();
    let far = Weather { delay_ms: 100, jitter_ms: 50, ..calm };
    let overtaken = Weather { delay_ms: 40, doubled_percent: 20, overtaking_percent: 25, ..calm };
    let all = Weather { lost_percent: 10, doubled_percent: 5, overtaking_percent: 10, kilobits: 1_000, ..far };
    let mut scenes = vec![
        ("100 ms ± 50", far, 2),
        ("10 % lost", Weather { lost_percent: 10, ..calm }, 10),
        ("20 % twice, a quarter overtakes by 40 ms", overtaken, 10),
        ("1 Mbit/s", Weather { kilobits: 1_000, ..calm }, 8),
        ("all at once", all, 1),
    ];
    // It takes minutes.
    if std::env::var("STOCKMESH_SECONDS").is_ok() {
        scenes.push(("64 kbit/s", Weather { kilobits: 64, ..calm }, 4));
    }
    scenes
}

#[test]
fn a_cluster_works_in_any_weather() {
    faults(THIS_TEST, 4, |mut world| {
        world.air.raise_sky(THIS_TEST);
        world.grow();
        world.begin();
        for (number, (name, weather, writes)) in scenes().into_iter().enumerate() {
            world.air.make(weather);
            world.stock(number % 4);
            let writer = &mut world.nodes[number % 4];
            let before = writer.told().own;
            writer.say(&format!("bulk {writes}"));
            sleep(phase(3));
            (0..4).for_each(|node| world.writes(node));
            let writer = &world.nodes[number % 4];
            until("its large writes are done", PATIENCE, || writer.told().own > before + writes * 200);
            world.settle(name, None);
            // Bad weather is no death.
            (0..4).for_each(|node| assert_eq!(world.status(node).down, 0, "{name}"));
        }
    });
}
