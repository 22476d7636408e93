//! Whom to ask for rights: in which order, how many at once, and whom not for now.
//!
//! What is known of peers' rights is old by up to a round trip, and more when a link is down. So the order is by rough
//! classes, several are asked at once if none has enough, and who gave nothing is left alone for a while that doubles
//! (Metcalfe and Boggs 1976, "Ethernet: Distributed Packet Switching for Local Computer Networks").

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::id::{Location, ReplicaId, Sku};
use crate::limits::{ASKED_AT_ONCE_MAX, BACK_OFF_ENTRIES_MAX, BACK_OFF_MS_MAX, BACK_OFF_MS_MIN};

/// A peer that may be asked for rights to one product at one location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The peer.
    pub replica: ReplicaId,
    /// Units that it has rights to, as known here.
    pub rights: u64,
    /// Round trip to it, in microseconds.
    pub round_trip_us: u64,
}

/// Puts first whom to ask first: who has most rights, in classes of powers of two, and within a class the nearest.
///
/// In classes, since twice the rights are worth a longer way and a few more are not. Equals follow their replica ids, so
/// that the order does not depend on the one before. O(n log n), no allocation.
///
/// ```
/// use stockmesh_proto::ReplicaId;
/// use stockmesh_proto::asking::{Candidate, asked_at_once, order};
///
/// let peer = |id, rights, round_trip_us| Candidate { replica: ReplicaId::from_random(id), rights, round_trip_us };
/// let mut peers = [peer(1, 3, 200), peer(2, 90, 40_000), peer(3, 70, 900), peer(4, 0, 100)];
/// order(&mut peers);
/// assert_eq!(peers.map(|peer| peer.rights), [70, 90, 3, 0]);
///
/// assert_eq!(asked_at_once(&peers, 50), 1);
/// assert_eq!(asked_at_once(&peers, 100), 2);
/// assert_eq!(asked_at_once(&peers, 1_000), 3);
/// ```
pub fn order(candidates: &mut [Candidate]) {
    candidates.sort_unstable_by_key(|candidate| {
        let class = u64::BITS - candidate.rights.leading_zeros();
        (Reverse(class), candidate.round_trip_us, candidate.replica)
    });
}

/// How many of the [ordered](order) candidates to ask at once, so that together they have `needed` units: at least one
/// if any has rights, at most [`ASKED_AT_ONCE_MAX`], and none without rights.
pub fn asked_at_once(candidates: &[Candidate], needed: u64) -> usize {
    let mut together = 0_u64;
    let mut count = 0;
    for candidate in candidates.iter().take(ASKED_AT_ONCE_MAX).take_while(|candidate| candidate.rights > 0) {
        count += 1;
        together = together.saturating_add(candidate.rights);
        if together >= needed {
            break;
        }
    }
    count
}

type Key = (ReplicaId, Sku, Location);

/// Why a peer is left alone, and for how long.
#[derive(Clone, Copy, Debug)]
struct Pause {
    since_ms: u64,
    pause_ms: u64,
    /// If it refused: the rights known of it then. With more, it is worth asking at once.
    refused_with: Option<u64>,
}

impl Pause {
    /// A time before the pause began is one of a clock that was set back: the pause does not hold then, else it could
    /// last as long as the step. It may hold once the clock is there again, but in all never longer than its length.
    fn holds(self, now_ms: u64) -> bool {
        now_ms.checked_sub(self.since_ms).is_some_and(|elapsed_ms| elapsed_ms < self.pause_ms)
    }

    fn expiry_ms(self) -> u64 {
        self.since_ms.saturating_add(self.pause_ms)
    }
}

/// Whom not to ask for now: a pause for each peer, product and location that gave nothing.
///
/// Pauses double from [`BACK_OFF_MS_MIN`] to [`BACK_OFF_MS_MAX`] with each failure in a row; a grant ends the row. At
/// most [`BACK_OFF_ENTRIES_MAX`] are kept, and those that end first make room: forgetting one costs a request too many.
/// Every call takes O(log n).
///
/// ```
/// use stockmesh_proto::asking::BackOff;
/// use stockmesh_proto::{Location, ReplicaId, Sku};
///
/// let (peer, sku, location) = (ReplicaId::from_random(7), Sku::new("MUG-01")?, Location::new("berlin")?);
/// let mut back_off = BackOff::default();
/// // It was thought to have 5 units, and gave none.
/// back_off.refused(peer, &sku, &location, 5, 1_000);
/// assert!(!back_off.may_ask(peer, &sku, &location, 5, 1_099));
/// assert!(back_off.may_ask(peer, &sku, &location, 5, 1_100), "the pause is over");
/// assert!(back_off.may_ask(peer, &sku, &location, 6, 1_001), "it got more since");
/// # Ok::<(), stockmesh_proto::InvalidInput>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct BackOff {
    pauses: BTreeMap<Key, Pause>,
    /// The same, by the time at which the pause ends.
    expiries: BTreeSet<(u64, Key)>,
}

impl BackOff {
    /// Whether the peer may be asked now, if it is known to have `rights_known` units.
    pub fn may_ask(&self, peer: ReplicaId, sku: &Sku, location: &Location, rights_known: u64, now_ms: u64) -> bool {
        self.pauses.get(&(peer, sku.clone(), location.clone())).is_none_or(|pause| {
            !pause.holds(now_ms) || pause.refused_with.is_some_and(|refused_with| rights_known > refused_with)
        })
    }

    /// The peer answered and gave nothing, when it was known to have `rights_known` units. It is not asked again until
    /// the pause ends, or until more are known of it.
    pub fn refused(&mut self, peer: ReplicaId, sku: &Sku, location: &Location, rights_known: u64, now_ms: u64) {
        self.failed((peer, sku.clone(), location.clone()), Some(rights_known), now_ms);
    }

    /// The peer did not answer in time. It is not asked again until the pause ends, whatever is known of it.
    pub fn timed_out(&mut self, peer: ReplicaId, sku: &Sku, location: &Location, now_ms: u64) {
        self.failed((peer, sku.clone(), location.clone()), None, now_ms);
    }

    /// The peer gave something: its failures are forgotten.
    pub fn granted(&mut self, peer: ReplicaId, sku: &Sku, location: &Location) {
        self.forget(&(peer, sku.clone(), location.clone()));
    }

    fn failed(&mut self, key: Key, refused_with: Option<u64>, now_ms: u64) {
        let last_ms = self.forget(&key).map_or(0, |pause| pause.pause_ms);
        let pause_ms = (last_ms * 2).clamp(BACK_OFF_MS_MIN, BACK_OFF_MS_MAX);
        self.make_room(now_ms);
        let pause = Pause { since_ms: now_ms, pause_ms, refused_with };
        self.expiries.insert((pause.expiry_ms(), key.clone()));
        self.pauses.insert(key, pause);
    }

    fn make_room(&mut self, now_ms: u64) {
        if self.pauses.len() < BACK_OFF_ENTRIES_MAX {
            return;
        }
        // Pauses that end later than any that begins now are of a clock that was set back since. They hold nobody, but
        // would crowd out all that do.
        let latest = now_ms.saturating_add(BACK_OFF_MS_MAX);
        let stale = self.expiries.last().is_some_and(|(expiry_ms, _)| *expiry_ms > latest);
        let dropped = if stale { self.expiries.pop_last() } else { self.expiries.pop_first() };
        if let Some((_, key)) = dropped {
            self.pauses.remove(&key);
        }
    }

    fn forget(&mut self, key: &Key) -> Option<Pause> {
        let (key, pause) = self.pauses.remove_entry(key)?;
        self.expiries.remove(&(pause.expiry_ms(), key));
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demand::Demand;
    use crate::grant::{DemandShare, GrantPolicy, GrantRequest, NeedOnly};

    fn replica(bits: u64) -> ReplicaId {
        ReplicaId::from_bits(bits).unwrap()
    }

    fn candidate(bits: u64, rights: u64, round_trip_us: u64) -> Candidate {
        Candidate { replica: replica(bits), rights, round_trip_us }
    }

    fn mug() -> (Sku, Location) {
        (Sku::new("MUG-01").unwrap(), Location::new("berlin").unwrap())
    }

    /// Marsaglia 2003, "Xorshift RNGs".
    struct Xorshift(u64);

    impl Xorshift {
        fn below(&mut self, bound: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % bound
        }
    }

    #[test]
    fn most_rights_come_first_then_the_nearest_then_the_smaller_id() {
        let ordered = [
            candidate(9, u64::MAX, 90_000),
            candidate(8, 64, 100),
            candidate(7, 127, 200),
            candidate(3, 100, 300),
            candidate(4, 101, 300),
            candidate(2, 63, 1),
            candidate(6, 1, 1),
            candidate(1, 0, 0),
        ];
        let mut random = Xorshift(3);
        for _ in 0..50 {
            let mut shuffled = ordered;
            shuffled.sort_by_key(|_| random.below(u64::MAX));
            order(&mut shuffled);
            assert_eq!(shuffled, ordered);
        }
    }

    #[test]
    fn as_many_are_asked_as_together_have_enough() {
        let three = [candidate(1, 10, 1), candidate(2, 9, 2), candidate(3, 2, 3), candidate(4, 0, 4)];
        for (needed, asked) in [(0, 1), (1, 1), (10, 1), (11, 2), (19, 2), (20, 3), (21, 3), (22, 3), (u64::MAX, 3)] {
            assert_eq!(asked_at_once(&three, needed), asked, "for {needed}");
        }
        assert_eq!(asked_at_once(&[], 5), 0);
        assert_eq!(asked_at_once(&[candidate(1, 0, 1)], 0), 0);
        assert_eq!(asked_at_once(&[candidate(1, 1, 1); 20], 15), ASKED_AT_ONCE_MAX);
        assert_eq!(asked_at_once(&[candidate(1, u64::MAX - 1, 1); 3], u64::MAX), 2);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_a_grant_ends_them() {
        let (sku, location) = mug();
        let mut back_off = BackOff::default();
        let mut now_ms = 5_000;
        for pause_ms in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
            assert!(back_off.may_ask(replica(1), &sku, &location, 5, now_ms));
            back_off.refused(replica(1), &sku, &location, 5, now_ms);
            assert!(!back_off.may_ask(replica(1), &sku, &location, 5, now_ms));
            assert!(!back_off.may_ask(replica(1), &sku, &location, 5, now_ms + pause_ms - 1), "{pause_ms}");
            now_ms += pause_ms;
        }
        assert!(back_off.may_ask(replica(1), &sku, &location, 5, now_ms));
        back_off.timed_out(replica(1), &sku, &location, now_ms);
        assert!(!back_off.may_ask(replica(1), &sku, &location, 5, now_ms + 9_999), "a time-out goes on with the row");
        back_off.granted(replica(1), &sku, &location);
        assert!(back_off.may_ask(replica(1), &sku, &location, 5, now_ms));
        assert!(back_off.pauses.is_empty() && back_off.expiries.is_empty());
        back_off.refused(replica(1), &sku, &location, 5, now_ms);
        assert!(back_off.may_ask(replica(1), &sku, &location, 5, now_ms + 100), "the row begins anew");
    }

    #[test]
    fn more_rights_end_a_refusal_but_not_a_time_out() {
        let (sku, location) = mug();
        let mut back_off = BackOff::default();
        back_off.refused(replica(1), &sku, &location, 5, 0);
        assert!(!back_off.may_ask(replica(1), &sku, &location, 4, 1));
        assert!(!back_off.may_ask(replica(1), &sku, &location, 5, 1));
        assert!(back_off.may_ask(replica(1), &sku, &location, 6, 1));
        back_off.timed_out(replica(1), &sku, &location, 1);
        assert!(!back_off.may_ask(replica(1), &sku, &location, u64::MAX, 200));
        assert!(back_off.may_ask(replica(1), &sku, &location, 0, 201));
    }

    #[test]
    fn a_pause_is_of_one_peer_product_and_location() {
        let (sku, location) = mug();
        let mut back_off = BackOff::default();
        back_off.timed_out(replica(1), &sku, &location, 0);
        assert!(!back_off.may_ask(replica(1), &sku, &location, 1, 0));
        assert!(back_off.may_ask(replica(2), &sku, &location, 1, 0));
        assert!(back_off.may_ask(replica(1), &Sku::new("CUP").unwrap(), &location, 1, 0));
        assert!(back_off.may_ask(replica(1), &sku, &Location::new("oslo").unwrap(), 1, 0));
        back_off.granted(replica(2), &sku, &location);
        assert!(!back_off.may_ask(replica(1), &sku, &location, 1, 0));
    }

    #[test]
    fn no_step_of_the_clock_blocks_for_longer_than_the_longest_pause() {
        let (sku, location) = mug();
        let mut back_off = BackOff::default();
        let year_ms = 31_536_000_000;
        for failed_ms in [year_ms, u64::MAX - BACK_OFF_MS_MAX] {
            for _ in 0..10 {
                back_off.timed_out(replica(1), &sku, &location, failed_ms);
            }
            for stepped_ms in [0, failed_ms - 3 * BACK_OFF_MS_MAX, failed_ms - BACK_OFF_MS_MAX, failed_ms - 1] {
                // For the next minute, or until the clock is spent.
                let blocked_ms: u64 = (0..60_000)
                    .step_by(100)
                    .filter_map(|later_ms| stepped_ms.checked_add(later_ms))
                    .map(|now_ms| if back_off.may_ask(replica(1), &sku, &location, 1, now_ms) { 0 } else { 100 })
                    .sum();
                assert!(blocked_ms <= BACK_OFF_MS_MAX, "{blocked_ms} ms from {stepped_ms}");
            }
        }
        back_off.timed_out(replica(1), &sku, &location, u64::MAX);
        assert!(!back_off.may_ask(replica(1), &sku, &location, 1, u64::MAX));
        assert!(back_off.may_ask(replica(1), &sku, &location, 1, 0));
    }

    #[test]
    fn the_pauses_that_end_first_make_room() {
        let (sku, location) = mug();
        let mut back_off = BackOff::default();
        let full = u64::try_from(BACK_OFF_ENTRIES_MAX).unwrap();
        // The later the id, the later the end; all still hold at the last.
        let now_ms = 1_000_000;
        back_off.timed_out(replica(full + 9), &sku, &location, now_ms - 1);
        for bits in 2..=full {
            back_off.timed_out(replica(bits), &sku, &location, now_ms);
        }
        assert!(!back_off.may_ask(replica(full + 9), &sku, &location, 1, now_ms));
        back_off.timed_out(replica(2), &sku, &location, now_ms);
        assert!(!back_off.may_ask(replica(full + 9), &sku, &location, 1, now_ms), "no room was needed");
        back_off.timed_out(replica(full + 1), &sku, &location, now_ms);
        assert!(back_off.may_ask(replica(full + 9), &sku, &location, 1, now_ms), "the first to end");
        assert!(!back_off.may_ask(replica(full + 1), &sku, &location, 1, now_ms));
        // The clock is set back: what is new holds, though all that is old seems to end later.
        for bits in full + 10..full + 20 {
            back_off.timed_out(replica(bits), &sku, &location, 5);
        }
        assert!((full + 10..full + 20).all(|bits| !back_off.may_ask(replica(bits), &sku, &location, 1, 5)));
        assert_eq!((back_off.pauses.len(), back_off.expiries.len()), (BACK_OFF_ENTRIES_MAX, BACK_OFF_ENTRIES_MAX));
    }

    /// Five replicas, of which the second sells four fifths; all 10,000 units came in at the first. Sales of one to
    /// three units come `mean_ms` apart until all is sold. Returns how many of a thousand sales asked nobody.
    fn unasked_per_mille(policy: &dyn GrantPolicy, mean_ms: u64, seed: u64) -> u64 {
        let mut random = Xorshift(seed);
        let mut rights = [10_000_u64, 0, 0, 0, 0];
        let mut demand = [Demand::default(); 5];
        let (mut now_ms, mut sales, mut unasked) = (1_700_000_000_000, 0, 0);
        while rights.iter().sum::<u64>() > 0 {
            now_ms += 1 + random.below(2 * mean_ms);
            let seller = if random.below(5) > 0 { 1 } else { [0, 2, 3, 4][usize::try_from(random.below(4)).unwrap()] };
            let units = (1 + random.below(3)).min(rights.iter().sum());
            demand[seller].note(units, now_ms);
            sales += 1;
            if rights[seller] >= units {
                unasked += 1;
            }
            while rights[seller] < units {
                let mut others: Vec<Candidate> =
                    (0..5).filter(|other| *other != seller).map(|other| peer(other, &rights)).collect();
                order(&mut others);
                let asked = asked_at_once(&others, units - rights[seller]);
                assert!(asked > 0, "rights were lost");
                for other in &others[..asked] {
                    let granter = usize::try_from(other.replica.bits() - 1).unwrap();
                    let needed = units.saturating_sub(rights[seller]);
                    let (asks, owns) = (demand[seller].per_hour(now_ms), demand[granter].per_hour(now_ms));
                    let request = GrantRequest::new(needed, rights[seller], asks, rights[granter], owns);
                    let granted = policy.units(&request);
                    rights[granter] -= granted;
                    rights[seller] += granted;
                }
            }
            rights[seller] -= units;
        }
        unasked * 1_000 / sales
    }

    fn peer(index: usize, rights: &[u64; 5]) -> Candidate {
        let index_u64 = u64::try_from(index).unwrap();
        candidate(index_u64 + 1, rights[index], 1_000)
    }

    #[test]
    fn with_shares_by_demand_few_sales_ask() {
        for seed in 1..=5 {
            for mean_ms in [10, 100, 1_000, 5_000] {
                let shared = unasked_per_mille(&DemandShare::default(), mean_ms, seed);
                let need_only = unasked_per_mille(&NeedOnly, mean_ms, seed);
                assert!(shared >= 950, "{shared} per mille, {mean_ms} ms apart");
                assert!(need_only < 200, "{need_only} per mille, {mean_ms} ms apart");
            }
        }
    }
}
