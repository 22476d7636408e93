//! Scripted cases of holds: each is resolved once, by whoever gave it (rules O5 to O7).

use stockmesh_proto::hold::{Hold, HoldId, HoldState};
use stockmesh_proto::limits::HOLDS_RESOLVED_MS;
use stockmesh_proto::operation::{Operation, OperationRefused, Outcome};
use stockmesh_proto::{Reference, ShardIndex};

use super::directed::{Done, Script};
use super::steps::quantity;

impl Script {
    fn hold(&mut self, index: usize, units: u64, ttl_ms: u64) -> HoldId {
        let (sku, location) = (self.sku.clone(), self.place.clone());
        let done = self.one(index, Operation::Hold { sku, location, units: quantity(units), ttl_ms }).unwrap();
        let Outcome::Held { id, .. } = done[0] else { panic!("{done:?}") };
        id
    }

    fn commit(&mut self, index: usize, id: HoldId, units: Option<u64>) -> Done {
        self.one(index, Operation::CommitHold { id, units: units.map(quantity) })
    }

    fn release(&mut self, index: usize, id: HoldId) -> Done {
        self.one(index, Operation::ReleaseHold { id })
    }

    fn expire(&mut self, index: usize, id: HoldId) -> Done {
        self.one(index, Operation::ExpireHold { id })
    }

    fn state(&self, index: usize, id: HoldId) -> HoldState {
        self.world.nodes[index].books.hold(id).unwrap().state
    }
}

fn resolved(sold: u64, released: u64) -> Done {
    Ok(vec![Outcome::Resolved { sold, released }])
}

#[test]
fn a_hold_takes_its_units_out_of_the_rights_until_it_is_resolved() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    let id = script.hold(0, 7, 1_000);
    assert_eq!((script.rights(0), script.available(0)), (3, 3));
    assert!(script.sell(0, 4).is_err());
    assert_eq!(script.commit(0, id, Some(5)), resolved(5, 2));
    assert_eq!((script.rights(0), script.available(0)), (5, 5));
    let other = script.hold(0, 5, 1_000);
    assert_ne!(id, other);
    assert_eq!(script.release(0, other), resolved(0, 5));
    assert_eq!(script.rights(0), 5);
}

#[test]
fn a_commit_twice_is_the_same_answer_and_with_other_units_refused() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    let id = script.hold(0, 4, 1_000);
    let too_small = OperationRefused::HoldTooSmall { id, held: 4, wanted: 5 };
    assert_eq!(script.commit(0, id, Some(5)), Err(too_small));
    let at_ms = script.world.clock(0);
    for _ in 0..3 {
        assert_eq!(script.commit(0, id, Some(3)), resolved(3, 1));
        assert_eq!(script.rights(0), 7);
        // The answer outlives a crash, and the time at which the hold would have expired.
        script.world.crash(0);
        script.world.now_ms += 1_000;
    }
    let state = HoldState::Committed { units: 3, at_ms };
    for units in [None, Some(2), Some(5)] {
        assert_eq!(script.commit(0, id, units), Err(OperationRefused::HoldResolved { id, state }));
    }
    assert_eq!(script.release(0, id), Err(OperationRefused::HoldResolved { id, state }));
    assert_eq!(script.expire(0, id), Ok(vec![Outcome::Done]), "nothing is left to expire");
    assert_eq!(script.rights(0), 7);
}

#[test]
fn a_commit_after_release_or_expiry_is_refused() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    let (released, expired) = (script.hold(0, 4, 1_000), script.hold(0, 3, 50));
    let at_ms = script.world.clock(0);
    assert_eq!(script.release(0, released), resolved(0, 4));
    let state = HoldState::Released { at_ms };
    assert_eq!(script.commit(0, released, None), Err(OperationRefused::HoldResolved { id: released, state }));
    assert_eq!(script.release(0, released), resolved(0, 4));
    assert_eq!(script.expire(0, expired), Ok(vec![Outcome::Done]));
    assert_eq!((script.state(0, expired), script.rights(0)), (HoldState::Active, 7), "it is not due yet");
    script.world.now_ms += 60;
    let at_ms = script.world.clock(0);
    assert_eq!(script.expire(0, expired), Ok(vec![Outcome::Done]));
    let state = HoldState::Expired { at_ms };
    assert_eq!(script.commit(0, expired, None), Err(OperationRefused::HoldResolved { id: expired, state }));
    assert_eq!(script.release(0, expired), resolved(0, 3), "its units are back either way");
    assert_eq!(script.rights(0), 10);
}

/// Rule O6: at the very millisecond at which it expires, in both orders and in one batch.
#[test]
fn a_commit_and_an_expiry_at_the_same_time_resolve_once() {
    for commits_first in [true, false] {
        for elapsed_ms in [49, 50] {
            let mut script = Script::new(2);
            script.receive(0, 10);
            let id = script.hold(0, 4, 50);
            script.world.now_ms += elapsed_ms;
            let mut operations = [Operation::CommitHold { id, units: None }, Operation::ExpireHold { id }];
            if !commits_first {
                operations.reverse();
            }
            let done = operations.map(|operation| script.one(0, operation));
            let is_sold = elapsed_ms < 50;
            assert_eq!(done.iter().all(Result::is_ok), is_sold, "{done:?}");
            assert_eq!((script.rights(0), script.available(0)), if is_sold { (6, 6) } else { (10, 10) });
        }
    }
    let mut script = Script::new(2);
    script.receive(0, 10);
    let id = script.hold(0, 4, 50);
    script.world.now_ms += 50;
    let batch = vec![Operation::ExpireHold { id }, Operation::ExpireHold { id }, Operation::ReleaseHold { id }];
    let outcomes = vec![Outcome::Done, Outcome::Done, Outcome::Resolved { sold: 0, released: 4 }];
    assert_eq!(script.run(0, &batch.into()), Ok(outcomes));
    assert_eq!(script.rights(0), 10);
}

#[test]
fn a_batch_may_give_holds_and_resolve_them() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    let (sku, location) = (script.sku.clone(), script.place.clone());
    let hold = Operation::Hold { sku, location, units: quantity(4), ttl_ms: 50 };
    let done = script.run(0, &vec![hold.clone(), hold].into()).unwrap();
    let [Outcome::Held { id: first, .. }, Outcome::Held { id: second, .. }] = done[..] else { panic!("{done:?}") };
    assert_ne!(first, second, "each has its own id, though one request gave both");
    let batch = vec![Operation::CommitHold { id: first, units: None }, Operation::ReleaseHold { id: second }];
    assert!(script.run(0, &batch.into()).is_ok());
    assert_eq!((script.rights(0), script.available(0)), (6, 6));
}

#[test]
fn only_the_giver_resolves_a_hold() {
    let mut script = Script::new(2);
    script.receive(0, 10);
    let id = script.hold(0, 4, 50);
    script.meet();
    let own = script.world.nodes[1].id;
    let elsewhere = Err(OperationRefused::HoldElsewhere { id, own });
    assert_eq!(script.commit(1, id, None), elsewhere);
    assert_eq!(script.release(1, id), elsewhere);
    assert_eq!(script.expire(1, id), elsewhere);
    let unknown = HoldId { sequence: 1_000, shard: ShardIndex(1), ..id };
    assert_eq!(script.commit(0, unknown, None), Err(OperationRefused::HoldUnknown { id: unknown }));
    assert_eq!(script.commit(0, id, None), resolved(4, 0));
}

/// A resolved hold is remembered for days, and then forgotten: also on disk.
#[test]
fn a_resolved_hold_is_forgotten_after_its_time() {
    let mut script = Script::new(1);
    script.receive(0, 10);
    let id = script.hold(0, 4, 50);
    assert_eq!(script.commit(0, id, None), resolved(4, 0));
    script.world.now_ms += HOLDS_RESOLVED_MS;
    script.receive(0, 1);
    assert_eq!(script.commit(0, id, None), resolved(4, 0));
    script.world.now_ms += 1;
    script.receive(0, 1);
    assert_eq!(script.world.nodes[0].disk.holds.len(), 0);
    // The model's memory is told, since it forgets nothing by itself.
    script.world.nodes[0].memory.holds.clear();
    assert_eq!(script.commit(0, id, None), Err(OperationRefused::HoldUnknown { id }));
    assert_eq!(script.rights(0), 8);
}

/// Rule D6: what a hold is on disk is what it was.
#[test]
fn a_hold_reads_as_it_was_written() {
    let mut script = Script::new(1);
    script.receive(0, 10);
    let id = script.hold(0, 4, 50);
    let written = script.world.nodes[0].books.hold(id).unwrap().clone();
    assert_eq!((written.units, written.expires_ms - written.given_ms), (4, 50));
    for (state, reference) in [
        (HoldState::Active, None),
        (HoldState::Committed { units: 3, at_ms: 7 }, Some(Reference::new("cart").unwrap())),
        (HoldState::Released { at_ms: u64::MAX }, None),
        (HoldState::Expired { at_ms: 0 }, None),
    ] {
        let hold = Hold { state, reference, ..written.clone() };
        assert_eq!(Hold::decode(&hold.encode().unwrap()).unwrap(), hold);
    }
}
