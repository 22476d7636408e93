//! Once the faults have ended, all nodes hold the same within a bounded time.

use std::collections::BTreeSet;
use std::time::Duration;

use stockmesh::Store;
use tokio::time::Instant;

use super::{Broken, ids};
use crate::endpoint::READERS;
use crate::world::World;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// For how long they must agree, so that what was still on its way has arrived.
const AGREE_FOR: Duration = Duration::from_secs(3);

/// Waits until all nodes that are up hold the same, and goes on doing so for a while.
///
/// A member that only reads may hold what died with its writer, if one lost something. It must say so, and then its operator,
/// who sees that all others agree, deletes its directory, once: without a word it must agree like the others.
///
/// # Errors
/// If they do not agree in time.
pub async fn wait(world: &mut World, limit: Duration) -> Result<(), Broken> {
    let begun = Instant::now();
    let (mut all, mut writers) = (Agreement::default(), Agreement::default());
    let mut anew = BTreeSet::new();
    let is_something_lost = world.nodes.iter().any(|node| node.was_set_back || node.is_out);
    loop {
        let nodes = world.up();
        let prints: Vec<String> = nodes.iter().map(|(_, store)| store.status().fingerprint.to_string()).collect();
        let is_reader = |number: &u16| READERS.contains(number);
        let of_writers = nodes.iter().zip(&prints).filter(|((number, _), _)| !is_reader(number));
        writers.look(of_writers.map(|(_, print)| print));
        all.look(&prints);
        let says_so = |store: &Store| !store.status().stranded.is_empty();
        // What it says must end too once it agrees.
        if all.lasting().is_some() && !nodes.iter().any(|(_, store)| says_so(store)) {
            return Ok(());
        }
        if let (Some(print), true) = (writers.lasting(), is_something_lost) {
            let differ = nodes.iter().zip(&prints).filter(|(_, own)| *own != print);
            let stranded = differ.filter(|((number, store), _)| is_reader(number) && says_so(store));
            for ((number, _), _) in stranded.filter(|((number, _), _)| anew.insert(*number)) {
                world.begin_anew(*number).await.map_err(|what| Broken { checker: "opens", what })?;
            }
        }
        if begun.elapsed() > limit {
            ids::apart(world).map_err(|what| Broken { checker: "ids", what })?;
            let told: Vec<String> = nodes
                .iter()
                .zip(&prints)
                .map(|((number, store), print)| format!("node {number} ({}): {print}", store.replica_id()))
                .collect();
            return Err(Broken { checker: "converged", what: format!("after {limit:?}: {}", told.join(", ")) });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Fingerprints that are the same, and since when.
#[derive(Default)]
struct Agreement(Option<(Instant, String)>);

impl Agreement {
    fn look<'a>(&mut self, prints: impl IntoIterator<Item = &'a String>) {
        let mut prints = prints.into_iter();
        let Some(first) = prints.next() else { return };
        let agree = prints.all(|print| print == first);
        // A hold that expires meanwhile changes all of them.
        if !agree || self.0.as_ref().is_some_and(|(_, print)| print != first) {
            self.0 = None;
        }
        if agree && self.0.is_none() {
            self.0 = Some((Instant::now(), first.clone()));
        }
    }

    fn lasting(&self) -> Option<&String> {
        self.0.as_ref().filter(|(since, _)| since.elapsed() >= AGREE_FOR).map(|(_, print)| print)
    }
}
