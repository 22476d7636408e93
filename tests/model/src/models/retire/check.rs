//! What must hold of a retirement at any time, and how all of it must end.

use std::sync::Arc;

use super::{Broken, HEIR, Phase, Retire, State, sku_a};
use crate::check::{Fault, Seen};
use crate::conversation::heal;
use crate::replica::{Replica, place};

impl Retire {
    pub(super) fn check(&self, before: &State, after: &State, seen: &Seen) -> Result<(), Fault> {
        // The bound of rule E7; until it returns nobody can use what the retired one granted alone.
        let beyond = if after.phase == Phase::Down { after.sold_alone } else { after.beyond };
        if after.sold > self.stock + beyond {
            let text = format!("{} of {} units were sold, {beyond} beyond", after.sold, self.stock);
            return Err(Fault::new("oversold", text));
        }
        if self.broken == Broken::Nothing {
            for (before, replica) in before.replicas.iter().zip(&after.replicas) {
                if !Arc::ptr_eq(before, replica) {
                    after.log.audit(before, replica)?;
                }
            }
        }
        let sound = Self { broken: Broken::Nothing, ..*self };
        seen.once((&after.replicas, after.fenced[HEIR], after.sold), || sound.check_end(after.clone()))
    }

    /// From here on all goes well: the one that is down returns, a retirement that was begun is ended, what was missing is
    /// brought and settled. Then all are equal, and every unit is counted once.
    fn check_end(&self, mut state: State) -> Result<(), Fault> {
        // What happens only here happened in no search.
        let unseen = Seen::default();
        if state.fenced[HEIR] {
            if state.replicas[self.last()].id == self.retired() {
                self.rename(&mut state, &unseen);
            }
            state.fenced.fill(true);
            state.told.fill(true);
        }
        loop {
            let mut replicas: Vec<Replica> = state.replicas.iter().map(|replica| Replica::clone(replica)).collect();
            heal(&mut replicas, true)?;
            replicas.into_iter().enumerate().for_each(|(index, replica)| state.put(index, replica));
            if state.replicas[self.last()].id == self.retired() && self.is_inherited(&state) {
                self.rename(&mut state, &unseen);
            }
            if !state.fenced[HEIR] {
                break;
            }
            let before = state.replicas.clone();
            self.inherit(&mut state, &unseen)?;
            self.reapply(&mut state, &unseen)?;
            if state.replicas == before {
                break;
            }
        }
        let product = state.replicas[HEIR].product(&sku_a());
        let (rights, available) = (product.rights_at(&place()), product.available_at(&place()));
        let left = i128::from(self.stock) - i128::from(state.sold);
        if available != left || rights.values().sum::<i128>() != available {
            return Err(Fault::new("E2", format!("rights {rights:?} of {available}, but {left} are left")));
        }
        let is_settled = !self.is_inherited(&state) || product.rights(&place(), self.retired()) == 0;
        if !is_settled {
            return Err(Fault::new("E4", format!("rights of the retired stay: {rights:?}")));
        }
        Ok(())
    }
}
