//! Once all is well, each node must be of use: it takes what is received, and sells it.

use std::time::Duration;

use crate::checkers::Broken;
use crate::endpoint::{READERS, TWIN};
use crate::plan::{Action, PLACES};
use crate::world::World;

/// What each node receives, and then sells one of.
const UNITS: u64 = 5;

impl World {
    /// Lets each node that writes receive something and sell some of it.
    ///
    /// # Errors
    /// If one does not, or does not answer.
    pub async fn probe(&mut self, limit: Duration) -> Result<(), Broken> {
        let (sku, place) = ("guarded-00".to_owned(), PLACES[0]);
        self.each_does(limit, &Action::Receive { sku: sku.clone(), place, units: UNITS }).await?;
        // Where something was sold twice, this goes into the deficit.
        let is_sound = |number: u16| !self.books.was_retired(number);
        if self.nodes.iter().all(|node| !node.was_set_back && is_sound(node.number)) {
            self.each_does(limit, &Action::Sell { sku, place, units: 1 }).await?;
        }
        Ok(())
    }

    async fn each_does(&mut self, limit: Duration, action: &Action) -> Result<(), Broken> {
        let before = self.books.writes().len();
        for (number, _) in self.up().into_iter().filter(|(number, _)| !READERS.contains(number)) {
            let mut action = action.clone();
            if let (Action::Receive { units, .. }, TWIN) = (&mut action, number) {
                // Two histories that have written the same until now are told apart by nothing.
                *units += 1;
            }
            self.act(number, action).await?;
        }
        if !self.callers_end(limit).await {
            return Err(Broken {
                checker: "answered",
                what: format!("{action:?} was not answered though all is well"),
            });
        }
        let refused = self.books.writes().into_iter().skip(before).find(|write| write.acknowledged.is_none());
        refused.map_or(Ok(()), |write| {
            let what = format!("{action:?} at node {} is not done, though all is well", write.node);
            Err(Broken { checker: "healthy", what })
        })
    }
}
