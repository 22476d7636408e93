//! Networks that delay, lose, double, reorder and slow what is sent.

use std::thread::sleep;

use crate::process::{PATIENCE, phase, until};
use crate::sky::Weather;
use crate::world::faults;

/// Writes of about 20 KB.
const BULK: i128 = 10;

#[test]
fn a_cluster_works_in_any_weather() {
    let calm = Weather::default();
    let far = Weather { delay_ms: 100, jitter_ms: 50, ..calm };
    let all = [
        ("100 ms ± 50", far),
        ("10 % lost", Weather { lost_percent: 10, ..calm }),
        (
            "20 % twice, a quarter overtakes by 40 ms",
            Weather { delay_ms: 40, doubled_percent: 20, overtaking_percent: 25, ..calm },
        ),
        ("1 Mbit/s", Weather { kilobits: 1_000, ..calm }),
        (
            "all at once",
            Weather { lost_percent: 10, doubled_percent: 5, overtaking_percent: 10, kilobits: 1_000, ..far },
        ),
    ];
    faults("weather::a_cluster_works_in_any_weather", 4, |mut world| {
        world.air.raise_sky("weather::a_cluster_works_in_any_weather");
        world.grow();
        world.begin();
        for (number, (name, weather)) in all.into_iter().enumerate() {
            world.air.make(weather);
            world.stock(number % 4);
            // More than a slow line takes at once: some pushes are dropped.
            let before = world.nodes[number % 4].told().own;
            world.nodes[number % 4].say(&format!("bulk {BULK}"));
            sleep(phase(4));
            (0..4).for_each(|node| world.writes(node));
            let node = &world.nodes[number % 4];
            until("its large writes are done", PATIENCE, || node.told().own > before + BULK * 200);
            world.settle(name, None);
            // Bad weather is no death.
            (0..4).for_each(|node| assert_eq!(world.status(node).down, 0, "{name}"));
        }
    });
}
