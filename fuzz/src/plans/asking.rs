//! Whom to ask for rights, whom not for now, how much sells, and how many rights are granted.

use arbitrary::{Arbitrary, Result, Unstructured};
use stockmesh_proto::asking::{BackOff, Candidate, asked_at_once, order};
use stockmesh_proto::demand::Demand;
use stockmesh_proto::grant::{DemandShare, GrantPolicy, GrantRequest, NeedOnly};
use stockmesh_proto::limits::{ASKED_AT_ONCE_MAX, BACK_OFF_MS_MAX};
use stockmesh_proto::{Location, ReplicaId};

use crate::input::{number, replica, sku};

const STEPS_MAX: usize = 64;

/// One step of a script of refusals: a time, and what happened.
#[derive(Clone, Copy, Debug, Arbitrary)]
enum Step {
    Refused,
    TimedOut,
    Granted,
}

pub(super) fn back_off(input: &mut Unstructured<'_>) -> Result<()> {
    let location = Location::new("x").unwrap();
    let (mut back_off, mut now_ms) = (BackOff::default(), u64::from(u16::arbitrary(input)?));
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let (peer, sku, rights) = (replica(input)?, sku(input)?, number(input)?);
        match Step::arbitrary(input)? {
            Step::Refused => back_off.refused(peer, &sku, &location, rights, now_ms),
            Step::TimedOut => back_off.timed_out(peer, &sku, &location, now_ms),
            Step::Granted => {
                back_off.granted(peer, &sku, &location);
                assert!(back_off.may_ask(peer, &sku, &location, rights, now_ms), "a grant ends the pause");
            }
        }
        // The clock goes on, steps back, or jumps.
        now_ms = match u8::arbitrary(input)? {
            by @ 0..224 => now_ms.saturating_add(u64::from(by) * 10),
            by @ 224..240 => now_ms.saturating_sub(u64::from(by) * 100),
            _ => number(input)?,
        };
        // Whatever the clock was when a pause began, and wherever it stepped: nobody is left alone for longer than this.
        let later_ms = now_ms.checked_add(BACK_OFF_MS_MAX);
        let may_ask = |now_ms| back_off.may_ask(peer, &sku, &location, 0, now_ms);
        assert!(may_ask(now_ms) || later_ms.is_none_or(may_ask), "{peer} is left alone for too long");
    }
    Ok(())
}

/// Several ask each other for rights, as their sales have it.
pub(super) fn share(input: &mut Unstructured<'_>) -> Result<()> {
    let mut demand = [Demand::default(); 3];
    let mut rights = [number(input)?, number(input)?, number(input)?];
    let total: u128 = rights.iter().map(|rights| u128::from(*rights)).sum();
    let mut now_ms = 0_u64;
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let (who, units) = (usize::from(u8::arbitrary(input)? % 3), number(input)?);
        now_ms = match u8::arbitrary(input)? {
            0..200 => now_ms.saturating_add(1_000),
            // Threads and their clocks differ a little, or a clock is set back.
            200..220 => now_ms.saturating_sub(500),
            _ => number(input)?,
        };
        demand[who].note(units, now_ms);
        let rate = demand[who].per_hour(now_ms);
        assert!(demand[who].per_hour(now_ms.saturating_add(60_000)) <= rate, "it falls while nothing sells");
        let asked = ask(who, units, &rights);
        let policy = policy(input)?;
        for other in asked {
            let rate_of = |place: usize| demand[place].per_hour(now_ms);
            let request = GrantRequest::new(units, rights[who], rate_of(who), rights[other], rate_of(other));
            let granted = policy.units(&request);
            assert!(granted >= units.min(rights[other]) && granted <= rights[other], "{granted} for {request:?}");
            rights[other] -= granted;
            // What one replica may have of rights is beyond 64 bits only where the script began so.
            let Some(sum) = rights[who].checked_add(granted) else { return Ok(()) };
            rights[who] = sum;
        }
        assert_eq!(rights.iter().map(|rights| u128::from(*rights)).sum::<u128>(), total);
    }
    Ok(())
}

fn policy(input: &mut Unstructured<'_>) -> Result<Box<dyn GrantPolicy>> {
    Ok(match u8::arbitrary(input)? % 3 {
        0 => Box::new(NeedOnly),
        1 => Box::new(DemandShare::default()),
        _ => Box::new(DemandShare::with_horizon_ms(number(input)?)),
    })
}

/// The places of those that are asked.
fn ask(who: usize, needed: u64, rights: &[u64; 3]) -> Vec<usize> {
    let candidate = |place: usize| Candidate {
        replica: ReplicaId::from_random(1 + place as u64),
        rights: rights[place],
        round_trip_us: 100 * place as u64,
    };
    let mut candidates: Vec<Candidate> = (0..3).filter(|place| *place != who).map(candidate).collect();
    order(&mut candidates);
    let count = asked_at_once(&candidates, needed);
    let (asked, rest) = candidates.split_at(count);
    assert!(count <= ASKED_AT_ONCE_MAX && asked.iter().all(|candidate| candidate.rights > 0));
    let together: u128 = asked.iter().map(|candidate| u128::from(candidate.rights)).sum();
    let is_all = rest.iter().all(|candidate| candidate.rights == 0);
    assert!(together >= u128::from(needed) || is_all, "more could have been asked");
    let place = |candidate: &Candidate| usize::try_from(candidate.replica.bits() - 1).unwrap();
    asked.iter().map(place).collect()
}
