//! Whole clusters in virtual time. `MEMBERS=1000` runs the first with as many, and prints the figures for the books.

use std::collections::BTreeSet;
use std::time::Duration;

use stockmesh_proto::membership::Timing;

use super::world::{Network, World};

// Only the core itself reads no environment.
#[allow(clippy::disallowed_methods)]
fn members() -> usize {
    std::env::var("MEMBERS").ok().and_then(|count| count.parse().ok()).unwrap_or(200)
}

/// All join by one seed, one after the other, and exchange lists with it.
fn joined(count: usize, timing: Timing, network: Network, seed: u64) -> World {
    let mut world = World::new(count, timing, network, seed);
    world.run_for(Duration::from_millis(100));
    for number in 1..count {
        world.link(number, 0);
        world.run_for(Duration::from_millis(10));
    }
    world
}

/// Joining, 3 minutes under loss, and a crash of a twentieth of them (rules N6, N7).
#[test]
fn all_know_all_false_alarms_are_rare_and_crashes_are_noticed_in_time() {
    let network = Network { delay_ms: (1, 5), loss: 10 };
    for (timing, seed, count) in [(Timing::Lan, 1, members()), (Timing::Wan, 2, members() / 2)] {
        let network = if timing == Timing::Wan { Network { delay_ms: (20, 150), ..network } } else { network };
        let mut world = joined(count, timing, network, seed);
        let took = world.run_until_all_know_all(Duration::from_secs(120));
        let (sent, listed) = (world.datagram_bytes / count as u64, world.list_bytes / count as u64);
        println!(
            "{timing:?}: {count} members know all {took:?} after the last join; {sent} B of datagrams and {listed} B of lists each"
        );

        world.run_for(Duration::from_secs(30));
        world.reset_figures();
        let time = Duration::from_secs(180);
        world.run_for(time);
        let (datagrams, lists) = world.bytes_per_second(time);
        let minutes = time.as_secs_f64() / 60.0 * count as f64;
        println!(
            "{timing:?}: 1 % loss: {:.4} suspicions seen and {:.4} false deaths seen by a member in a minute; {datagrams:.0} + {lists:.0} B/s each",
            world.suspicions as f64 / minutes,
            world.seen_down.len() as f64 / minutes,
        );
        assert_eq!(world.seen_down.len(), 0, "a member that lives was taken for dead");

        world.reset_figures();
        let crashed: BTreeSet<usize> = (0..count / 20).map(|number| number * 20 + 5).collect();
        crashed.iter().for_each(|number| world.is_crashed[*number] = true);
        let begun = world.now;
        let took = world.run_until_all_know_all(timing.noticed_within());
        let mut times: Vec<Duration> = world.seen_down.values().map(|at| *at - begun).collect();
        times.sort();
        let (median, last) = (times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{timing:?}: {} crashes: noticed by a member after {median:?} at the median, {last:?} at the latest, by all within {took:?}",
            crashed.len()
        );
        assert_eq!(times.len(), crashed.len() * (count - crashed.len()));
    }
}

/// Two halves that cannot see each other take each other for dead, and find together again by one link.
#[test]
fn halves_that_were_cut_apart_find_together_again() {
    let mut world = joined(20, Timing::Lan, Network { delay_ms: (1, 5), loss: 10 }, 3);
    world.run_until_all_know_all(Duration::from_secs(60));
    (0..10).for_each(|number| world.side[number] = 1);
    world.run_for(2 * Timing::Lan.noticed_within());
    assert!(world.members.iter().all(|member| member.active() == 9), "each half counts itself alone");
    world.side.fill(0);
    world.link(15, 5);
    let took = world.run_until_all_know_all(Duration::from_secs(60));
    println!("healed after {took:?}, {} renewals", world.renewals);
}
