//! Listens to sources of candidates, for as long as the node lives.

use std::time::Duration;

use stockmesh_proto::topology::LinkBudget;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::debug;

use super::discovery::Discovery;
#[cfg(feature = "mdns")]
use super::discovery::LocalNetwork;
use super::shared::Shared;
use super::targets::pause_after;
use super::topology::keep_topology;
use super::wishes::LinkWanted;
use crate::limits::SOURCE_PAUSE_MIN;

/// Where others are found, and how many of them are linked.
#[derive(Debug)]
pub(crate) struct TopologySettings {
    pub(crate) budget: LinkBudget,
    pub(crate) refresh_every: Duration,
    pub(crate) sources: Vec<Box<dyn Discovery>>,
    /// Whether to look on the local network. Without the feature nobody can ask for that.
    pub(crate) mdns: bool,
    pub(crate) follows_members: bool,
}

/// Starts the tasks that find other nodes and keep links with them.
pub(super) fn start_topology(
    settings: TopologySettings,
    links_wanted: mpsc::Receiver<LinkWanted>,
    shared: &Shared,
) -> std::io::Result<()> {
    shared.spawn(keep_topology(links_wanted, settings.refresh_every, shared.clone()));
    let sources = settings.sources.into_iter().chain(local_network(settings.mdns, shared)?);
    for source in sources {
        let number = shared.targets.add_source(&source.name());
        shared.spawn(listen_to(number, source, shared.clone()));
    }
    Ok(())
}

#[cfg(feature = "mdns")]
fn local_network(is_wanted: bool, shared: &Shared) -> std::io::Result<Option<Box<dyn Discovery>>> {
    let own = shared.endpoint.local_addr()?;
    Ok(is_wanted.then(|| Box::new(LocalNetwork::new(own, &shared.cluster)) as Box<dyn Discovery>))
}

#[cfg(not(feature = "mdns"))]
fn local_network(_: bool, _: &Shared) -> std::io::Result<Option<Box<dyn Discovery>>> {
    Ok(None)
}

/// Notes what a source tells. However it behaves, it is not asked in a busy loop.
async fn listen_to(number: usize, mut source: Box<dyn Discovery>, shared: Shared) {
    let name = source.name();
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let pause = match source.next().await {
            Ok(candidates) => {
                failures = 0;
                shared.targets.heard(number, &candidates);
                SOURCE_PAUSE_MIN
            }
            Err(error) => {
                debug!(source = name, %error, "a source of candidates failed");
                failures += 1;
                shared.targets.source_failed(number, &error.to_string());
                pause_after(failures).max(SOURCE_PAUSE_MIN)
            }
        };
        tokio::time::sleep_until(begun + pause).await;
    }
}
