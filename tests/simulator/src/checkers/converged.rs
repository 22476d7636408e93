//! Once the faults have ended, all nodes hold the same within a bounded time.

use std::time::Duration;

use tokio::time::Instant;

use super::Broken;
use crate::world::World;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// For how long they must agree, so that what was still on its way has arrived.
const AGREE_FOR: Duration = Duration::from_secs(3);

/// Waits until all nodes that are up hold the same, and goes on doing so for a while.
///
/// # Errors
/// If they do not agree in time.
pub async fn wait(world: &World, limit: Duration) -> Result<(), Broken> {
    let begun = Instant::now();
    let mut agreed_since = None;
    loop {
        let nodes = world.up();
        let prints: Vec<String> = nodes.iter().map(|(_, store)| store.status().fingerprint.to_string()).collect();
        let agree = prints.windows(2).all(|pair| pair[0] == pair[1]);
        let now = Instant::now();
        agreed_since = if agree { agreed_since.or(Some((now, prints.first().cloned()))) } else { None };
        // A hold that expires meanwhile changes all of them.
        if let Some((since, print)) = &agreed_since {
            if *print != prints.first().cloned() {
                agreed_since = None;
            } else if now - *since >= AGREE_FOR {
                return Ok(());
            }
        }
        if begun.elapsed() > limit {
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
