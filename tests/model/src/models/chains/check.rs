//! What must hold of heirs that die.

use stockmesh_proto::retirement::HeirClaim;

use super::{Attempt, Broken, Chains, State};
use crate::check::{Fault, Seen};
use crate::replica::replica_id;

impl Chains {
    pub(super) fn check(&self, state: &State, seen: &Seen) -> Result<(), Fault> {
        for product in 0..self.products {
            let (sold, lost) = (state.sold[product], state.lost[product]);
            if sold > 1 + lost {
                let text = format!("{sold} of product {product} were sold, {lost} of them only the dead knew of");
                return Err(Fault::new("oversold", text));
            }
        }
        // Most breaks are to be found by what they lead to.
        if !matches!(self.broken, Broken::Nothing | Broken::TheLastGiveWay) {
            return Ok(());
        }
        seen.once((&state.known, state.deaths), || self.check_that_all_are_taken_over(state))
    }

    /// Whoever lives tries to retire each of the dead, again and again, and nothing is lost on the way: then one that lives
    /// takes over for each, and it alone.
    fn check_that_all_are_taken_over(&self, state: &State) -> Result<(), Fault> {
        let mut next = state.clone();
        let (alive, dead) = (self.alive(state), self.dead(state));
        for _ in 0..=self.members {
            for retired in dead.iter().copied() {
                for heir in alive.iter().copied() {
                    self.try_to_retire(&mut next, heir, retired);
                }
            }
        }
        for retired in dead.into_iter().map(replica_id) {
            let heirs: Vec<usize> = alive
                .iter()
                .copied()
                .filter(|member| self.last_heir(retired, &next.known[*member]) == Some(replica_id(*member)))
                .collect();
            if heirs.len() != 1 {
                return Err(Fault::new("Q4 ends", format!("{heirs:?} take over for {retired}: {:?}", next.known)));
            }
        }
        Ok(())
    }

    /// A whole attempt, but that the members tell nothing of their products: what they would learn of who took over is left out,
    /// so that states which differ in products alone need one look.
    fn try_to_retire(&self, next: &mut State, heir: usize, retired: usize) {
        self.begin(next, heir, retired);
        let alive = self.alive(next);
        // Once more for those that name one who gives way in between.
        for member in alive.iter().chain(&alive).copied() {
            let Some(Attempt { agreed, .. }) = next.attempts.get(&(heir, retired)) else { return };
            if agreed.contains(&member) || !self.is_heir(next, heir, retired) {
                continue;
            }
            let gave_way = agreed.iter().filter(|other| **other != heir).map(|other| replica_id(*other)).collect();
            let claim = HeirClaim::Asks { heir: replica_id(heir), gave_way };
            if self.note(next, member, replica_id(retired), &claim) == replica_id(heir) {
                next.attempts.entry((heir, retired)).and_modify(|attempt| attempt.agreed.extend([member]));
            }
        }
        if next.attempts.contains_key(&(heir, retired)) {
            self.close(next, heir, retired);
        }
        next.attempts.remove(&(heir, retired));
    }
}
