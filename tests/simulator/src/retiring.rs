//! Once all is well, who is dead can be retired, by an operator who reads what the store says.

use std::time::Duration;

use stockmesh::{ReplicaId, RetireError, Store};

use crate::checkers::Broken;
use crate::endpoint::READERS;
use crate::generator::LARGE;
use crate::world::World;

/// How long each call may take, and in larger clusters, whose nodes have few links to ask all others over.
const DEADLINE: Duration = Duration::from_secs(30);
const DEADLINE_OF_LARGE: Duration = Duration::from_secs(60);
/// Of more it shows nothing else there, and each takes some seconds.
const RETIRED_OF_LARGE: usize = 2;
/// How long to wait where somebody has not noticed yet that one is dead, and how many calls there may be.
const PAUSE: Duration = Duration::from_secs(5);
const CALLS_MAX: u32 = 20;

impl World {
    /// Retires those that are dead and were not retired yet, in large clusters some of them: nobody who lives is out of reach.
    /// The first of them is retired by two nodes at once.
    ///
    /// # Errors
    /// If one cannot be retired.
    pub async fn retire_dead(&self) -> Result<(), Broken> {
        let up = self.up();
        let alive: Vec<ReplicaId> = up.iter().map(|(_, store)| store.replica_id()).collect();
        let mut writers = up.iter().filter(|(number, _)| !READERS.contains(number));
        let Some((number, store)) = writers.next() else { return Ok(()) };
        let mut second = writers.next();
        let is_known = |replica: ReplicaId| {
            up.iter().any(|(_, store)| store.version_vectors().iter().any(|vector| vector.contains_key(&replica)))
        };
        let mut without = Vec::new();
        let is_left = |number: u16| !self.books.was_retired(number);
        let is_large = up.len() > usize::from(LARGE);
        let most = if is_large { RETIRED_OF_LARGE } else { usize::MAX };
        for dead in self.nodes.iter().filter(|node| node.is_dead && is_left(node.number)).take(most) {
            let Some(replica) = dead.replica else { continue };
            let also = async {
                let Some((number, store)) = second.take() else { return Ok(()) };
                self.ended(*number, dead.number, retire(store, replica, &alive, &mut Vec::new(), is_known).await)
            };
            let retired = async {
                self.ended(*number, dead.number, retire(store, replica, &alive, &mut without, is_known).await)
            };
            tokio::try_join!(retired, also)?;
        }
        Ok(())
    }

    fn ended(&self, number: u16, dead: u16, retired: Result<(), RetireError>) -> Result<(), Broken> {
        self.trace.note(format_args!("node {number}: retires node {dead} at last: {retired:?}"));
        if retired.is_ok() {
            self.books.note_retired(dead);
        }
        retired.map_err(|error| {
            let what = format!("node {number} cannot retire the dead node {dead}, though all is well: {error}");
            Broken { checker: "healthy", what }
        })
    }
}

async fn retire(
    store: &Store,
    dead: ReplicaId,
    alive: &[ReplicaId],
    without: &mut Vec<ReplicaId>,
    is_known: impl Fn(ReplicaId) -> bool,
) -> Result<(), RetireError> {
    let (mut to_retire, mut heir, mut calls) = (vec![dead], None, 0);
    let deadline = if alive.len() > usize::from(LARGE) { DEADLINE_OF_LARGE } else { DEADLINE };
    while let Some(next) = to_retire.last() {
        let mut retire = store.retire(*next).without(without.clone()).deadline(deadline);
        if let Some(heir) = heir {
            retire = retire.heir(heir);
        }
        calls += 1;
        match retire.await {
            Ok(_) => {
                to_retire.pop();
                heir = None;
            }
            Err(error) if calls == CALLS_MAX => return Err(error),
            // It died before anybody had a write of it.
            Err(RetireError::Unknown(_)) if !is_known(*next) => {
                to_retire.pop();
            }
            // Others that are dead, and ids that nodes had before they were set back.
            Err(RetireError::Unreachable { members, .. }) if members.iter().all(|member| !alive.contains(member)) => {
                without.extend(members);
            }
            // It died just now, and not all have noticed.
            Err(RetireError::Alive { .. }) => tokio::time::sleep(PAUSE).await,
            // Somebody has begun it before.
            Err(RetireError::OtherHeir { heir: other, .. }) if alive.contains(&other) => heir = Some(other),
            Err(RetireError::OtherHeir { heir: other, .. }) => to_retire.push(other),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
