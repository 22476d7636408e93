//! How much is granted: what a replica with rights gives to one that asks.
//!
//! A right is one unit that a replica may sell without asking (Balegas et al. 2015, "Extending Eventually Consistent
//! Cloud Databases for Enforcing Numeric Invariants"). Granting moves rights; no policy can make more of them, so a poor
//! policy costs requests, never a unit sold twice. That how much moves is a policy apart from the protocol is from
//! Barbará and Garcia-Molina 1994, "The Demarcation Protocol".

use crate::limits::GRANT_HORIZON_MS;

const MS_PER_HOUR: u128 = 3_600_000;

/// What a granter knows when it is asked for rights to one product at one location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct GrantRequest {
    /// What the asker lacks for the sales that wait now, in units. Zero when it asks ahead of its demand, to rebalance.
    pub needed: u64,
    /// Units that the asker has rights to.
    pub asker_rights: u64,
    /// What sells at the asker, in units per hour.
    pub asker_per_hour: u64,
    /// Units that the granter has rights to: it cannot grant more.
    pub own_rights: u64,
    /// What sells at the granter, in units per hour.
    pub own_per_hour: u64,
}

impl GrantRequest {
    /// A request with these figures, in the order of the fields.
    pub fn new(needed: u64, asker_rights: u64, asker_per_hour: u64, own_rights: u64, own_per_hour: u64) -> Self {
        Self { needed, asker_rights, asker_per_hour, own_rights, own_per_hour }
    }
}

/// Decides how many units are granted. It is asked with nothing locked, and may be called by several threads at once.
///
/// ```
/// use stockmesh_proto::grant::{GrantPolicy, GrantRequest};
///
/// /// Never gives away the last ten units.
/// #[derive(Debug)]
/// struct KeepTen;
///
/// impl GrantPolicy for KeepTen {
///     fn units(&self, request: &GrantRequest) -> u64 {
///         request.needed.min(request.own_rights.saturating_sub(10))
///     }
/// }
///
/// assert_eq!(KeepTen.units(&GrantRequest::new(5, 0, 0, 12, 0)), 2);
/// ```
pub trait GrantPolicy: std::fmt::Debug + Send + Sync {
    /// How many units to grant; zero refuses. More than the granter's rights counts as all of them.
    fn units(&self, request: &GrantRequest) -> u64;
}

/// Grants what is needed and not a unit more, so that the asker's next sale asks again: for comparison and tests.
///
/// ```
/// use stockmesh_proto::grant::{GrantPolicy, GrantRequest, NeedOnly};
/// assert_eq!(NeedOnly.units(&GrantRequest::new(3, 0, 900, 100, 0)), 3);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct NeedOnly;

impl GrantPolicy for NeedOnly {
    fn units(&self, request: &GrantRequest) -> u64 {
        request.needed.min(request.own_rights)
    }
}

/// Grants what is needed, and beyond it the asker's share by demand: the default policy.
///
/// 1. The need comes first, all the granter has if it must be: better to move what there is than to refuse a sale.
/// 2. What both then have is shared in proportion to what sells at each. The asker's part is at most what it sells
///    within the horizon, and at most three quarters if nothing sells at the granter, whose next customer should not
///    have to ask. What the asker already has counts as part of its part.
/// 3. A request to rebalance is granted nothing unless the part exceeds what the asker has by a quarter: rights that
///    travel to and fro with every change of demand cost more than they serve.
///
/// Constant time, and exact for all figures.
///
/// ```
/// use stockmesh_proto::grant::{DemandShare, GrantPolicy, GrantRequest};
///
/// let policy = DemandShare::default();
/// // One unit is needed. The asker sells three times as much: three quarters of the other hundred.
/// assert_eq!(policy.units(&GrantRequest::new(1, 0, 3_000, 101, 1_000)), 76);
/// // It sells 120 an hour: 20 in ten minutes.
/// assert_eq!(policy.units(&GrantRequest::new(1, 0, 120, 101, 1)), 21);
/// // The need alone is more than there is.
/// assert_eq!(policy.units(&GrantRequest::new(200, 0, 120, 101, 1_000)), 101);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemandShare {
    horizon_ms: u64,
}

impl DemandShare {
    /// The policy with another horizon: for how long a grant provides for the asker's demand, in milliseconds.
    pub fn with_horizon_ms(horizon_ms: u64) -> Self {
        Self { horizon_ms }
    }

    /// Units that the asker should have of those that both have once the need is met.
    fn part(self, request: &GrantRequest, left: u64) -> u64 {
        // More than 2^64 rights exist nowhere; the bound keeps the product below in 128 bits.
        let both = left.saturating_add(request.asker_rights);
        let asker_per_hour = u128::from(request.asker_per_hour);
        let both_per_hour = asker_per_hour + u128::from(request.own_per_hour);
        let share = (u128::from(both) * asker_per_hour).checked_div(both_per_hour).unwrap_or(0);
        let kept = if request.own_per_hour == 0 { both.div_ceil(4) } else { 0 };
        // A demand that is less than a unit within the horizon still is a demand.
        let within_horizon = (asker_per_hour * u128::from(self.horizon_ms)).div_ceil(MS_PER_HOUR);
        u64::try_from(share.min(within_horizon)).unwrap_or(u64::MAX).min(both - kept)
    }
}

impl Default for DemandShare {
    fn default() -> Self {
        Self::with_horizon_ms(GRANT_HORIZON_MS)
    }
}

impl GrantPolicy for DemandShare {
    fn units(&self, request: &GrantRequest) -> u64 {
        let need = request.needed.min(request.own_rights);
        let left = request.own_rights - need;
        // At most what is left: the part is at most that and what the asker has.
        let extra = self.part(request, left).saturating_sub(request.asker_rights);
        if request.needed == 0 && extra < request.asker_rights.div_ceil(4) {
            return 0;
        }
        need + extra
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(needed: u64, asker: (u64, u64), own: (u64, u64)) -> u64 {
        DemandShare::default().units(&GrantRequest::new(needed, asker.0, asker.1, own.0, own.1))
    }

    #[test]
    fn the_need_comes_first() {
        assert_eq!(granted(5, (0, 0), (100, 1_000)), 5, "no demand: the need alone");
        assert_eq!(granted(5, (0, 0), (100, 0)), 5, "no demand anywhere");
        assert_eq!(granted(100, (0, 600), (100, 0)), 100, "all there is, and no quarter kept");
        assert_eq!(granted(101, (0, 600), (100, 1_000_000)), 100, "all there is, though it is not enough");
        assert_eq!(granted(5, (0, 600), (0, 0)), 0);
        assert_eq!(granted(5, (1_000, 600), (100, 600)), 5, "an asker with more than its part still gets its need");
    }

    #[test]
    fn what_is_left_is_shared_in_proportion_to_demand() {
        // 1000 left, and demand beyond what the horizon holds.
        for (asker, own, part) in [(1, 1, 500), (3, 1, 750), (1, 3, 250), (9, 1, 900), (1, 999, 1)] {
            assert_eq!(granted(7, (0, asker * 100_000), (1_007, own * 100_000)), 7 + part, "{asker} to {own}");
            // What the asker has counts: 200 of its own and 800 left are shared alike.
            let extra = part.saturating_sub(200);
            assert_eq!(granted(7, (200, asker * 100_000), (807, own * 100_000)), 7 + extra, "{asker} to {own}");
        }
    }

    #[test]
    fn the_horizon_caps_the_part() {
        assert_eq!(granted(1, (0, 600), (10_000, 1)), 101, "600 an hour are 100 in ten minutes");
        assert_eq!(granted(1, (30, 600), (10_000, 1)), 71, "what it has is part of them");
        assert_eq!(granted(1, (0, 1), (10_000, 0)), 2, "a small demand counts as one unit");
        let longer = DemandShare::with_horizon_ms(2 * GRANT_HORIZON_MS);
        assert_eq!(longer.units(&GrantRequest::new(1, 0, 600, 10_000, 1)), 201);
    }

    #[test]
    fn a_granter_that_sells_nothing_keeps_a_quarter() {
        assert_eq!(granted(1, (0, 1_000_000), (101, 0)), 76);
        assert_eq!(granted(1, (0, 1_000_000), (2, 0)), 1, "its last unit");
        assert_eq!(granted(98, (0, 1_000_000), (100, 0)), 99);
        // Asked again and again, it still keeps a quarter of what both have.
        let (mut asker, mut own) = (0, 100);
        for _ in 0..10 {
            let units = granted(0, (asker, 1_000_000), (own, 0));
            (asker, own) = (asker + units, own - units);
        }
        assert_eq!((asker, own), (75, 25));
    }

    #[test]
    fn rebalancing_waits_until_a_quarter_is_missing() {
        // Of 180 the asker's part is half, 90; of 178 it is 89; ...
        assert_eq!(granted(0, (72, 5_000), (108, 5_000)), 18, "a quarter of 72 is missing");
        assert_eq!(granted(0, (73, 5_000), (107, 5_000)), 0, "less is missing");
        assert_eq!(granted(0, (73, 5_000), (109, 5_000)), 0, "18 of 73 are less than a quarter");
        assert_eq!(granted(1, (73, 5_000), (108, 5_000)), 18, "with a need, it does not wait");
        assert_eq!(granted(0, (0, 5_000), (2, 5_000)), 1);
        assert_eq!(granted(0, (0, 5_000), (1, 5_000)), 0, "half a unit");
        assert_eq!(granted(0, (1, 5_000), (1, 5_000)), 0);
        assert_eq!(granted(0, (0, 0), (100, 0)), 0, "without demand");
    }

    #[test]
    fn rights_do_not_travel_to_and_fro() {
        // Both ask each other in turn, while the demand of each swings by a tenth.
        let mut rights = [1_000, 0];
        let mut moved = Vec::new();
        for round in 0..20 {
            let (asker, granter) = if round % 2 == 0 { (1, 0) } else { (0, 1) };
            let units = granted(0, (rights[asker], 110_000), (rights[granter], 100_000));
            rights[asker] += units;
            rights[granter] -= units;
            moved.push(units);
        }
        assert!(moved[0] > 0, "the first moves its share");
        assert_eq!(moved[1..].iter().sum::<u64>(), 0, "{moved:?}");
    }

    #[test]
    fn no_figure_overflows_and_no_grant_exceeds_what_is_there() {
        const FIGURES: [u64; 9] = [0, 1, 2, 3, 7, 1_000, u64::MAX / 2, u64::MAX - 1, u64::MAX];
        for combination in 0..FIGURES.len().pow(5) {
            let figure = |place| FIGURES[combination / FIGURES.len().pow(place) % FIGURES.len()];
            let request = GrantRequest::new(figure(0), figure(1), figure(2), figure(3), figure(4));
            let need = request.needed.min(request.own_rights);
            for horizon_ms in [0, GRANT_HORIZON_MS, u64::MAX] {
                let units = DemandShare::with_horizon_ms(horizon_ms).units(&request);
                assert!((need..=request.own_rights).contains(&units), "{units} of {request:?}");
                let kept = request.own_rights - units;
                assert!(request.own_per_hour > 0 || kept >= (request.own_rights - need) / 4, "{kept} of {request:?}");
            }
            assert_eq!(NeedOnly.units(&request), need);
        }
        let all = GrantRequest::new(0, 0, u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(DemandShare::with_horizon_ms(u64::MAX).units(&all), u64::MAX / 2);
        assert_eq!(DemandShare::default().units(&all), u64::MAX.div_ceil(6), "ten minutes of the largest demand");
    }
}
