//! What must hold of heirs that die.

use stockmesh_proto::product::Product;

use super::{Broken, Chains, State, sku_of};
use crate::check::{Fault, Seen};
use crate::replica::{place, replica_id};

impl Chains {
    pub(super) fn check(&self, state: &State, seen: &Seen) -> Result<(), Fault> {
        for product in 0..self.products {
            let (sold, lost) = (state.sold[product], state.lost[product]);
            if sold > 1 + lost && !state.alone[product] {
                let text = format!("{sold} of product {product} were sold, {lost} of them only the dead knew of");
                return Err(Fault::new("oversold", text));
            }
        }
        // Most breaks are to be found by what they lead to.
        if matches!(self.broken, Broken::BehindOpenFences | Broken::WithoutExchange | Broken::OneRound) {
            return Ok(());
        }
        seen.once((&state.replicas, &state.known, state.deaths, &state.returned, &state.alone, &state.lost), || {
            self.check_that_the_units_come_back(state)?;
            self.check_that_all_are_taken_over(state)
        })
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

    /// The same, and whoever lives exchanges all that it knows, and takes over what it may: then each unit that was not sold,
    /// as far as they know, is somebody's who lives.
    fn check_that_the_units_come_back(&self, state: &State) -> Result<(), Fault> {
        let mut next = state.clone();
        let (alive, dead) = (self.alive(state), self.dead(state));
        let nobody = Seen::default();
        for _ in 0..=self.members {
            for (retired, heir) in dead.iter().flat_map(|retired| alive.iter().map(|heir| (*retired, *heir))) {
                self.begin(&mut next, heir, retired);
                for member in alive.iter().chain(&alive).copied() {
                    if next.attempts.contains_key(&(heir, retired)) {
                        self.ask(&mut next, (heir, retired), member, &nobody)?;
                    }
                }
                if next.attempts.contains_key(&(heir, retired)) {
                    self.close(&mut next, heir, retired);
                }
                next.attempts.remove(&(heir, retired));
                for product in 0..self.products {
                    self.take_over(&mut next, heir, retired, product, &nobody)?;
                }
            }
        }
        for (left, right) in alive.iter().flat_map(|left| alive.iter().map(|right| (*left, *right))) {
            if left < right {
                self.meet(&mut next, left, right, &nobody)?;
            }
        }
        // What one that comes back had done alone it must bring itself (rule E5).
        let is_brought =
            |product: &usize| !state.alone[*product] && (state.lost[*product] == 0 || state.returned.is_empty());
        for product in (0..self.products).filter(is_brought) {
            let mut known = Product::default();
            alive.iter().for_each(|member| known.absorb(&next.replicas[*member].product(&sku_of(product))));
            let sold: u64 = known.stock().iter().map(|slot| slot.counters.removed).sum();
            let rights: i128 = alive.iter().map(|member| known.rights(&place(), replica_id(*member))).sum();
            if rights != 1 - i128::from(sold) {
                return Err(Fault::new("Q4 units", format!("{rights} units can be sold, and {sold} of 1 were")));
            }
        }
        Ok(())
    }

    /// A whole attempt, but that nothing is taken over.
    fn try_to_retire(&self, next: &mut State, heir: usize, retired: usize) {
        self.begin(next, heir, retired);
        let alive = self.alive(next);
        for member in alive.iter().chain(&alive).copied() {
            if next.attempts.contains_key(&(heir, retired)) {
                let _ = self.ask(next, (heir, retired), member, &Seen::default());
            }
        }
        if next.attempts.contains_key(&(heir, retired)) {
            self.close(next, heir, retired);
        }
        next.attempts.remove(&(heir, retired));
    }
}
