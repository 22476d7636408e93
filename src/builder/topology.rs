//! Settings of where other nodes are found, and with how many of them there are links.

use std::time::Duration;

use stockmesh_proto::InvalidInput;
use stockmesh_proto::limits::LINKS_DEFAULT;
use stockmesh_proto::topology::LinkBudget;

use super::Builder;
use crate::limits::{LINK_REFRESH_EVERY, SOURCES_MAX};
use crate::net::{Discovery, TopologySettings};

/// As the builder was told, not checked yet.
#[derive(Debug)]
pub(super) struct Topology {
    sources: Vec<Box<dyn Discovery>>,
    mdns: bool,
    links: usize,
    refresh_every: Duration,
    follows_members: bool,
}

impl Default for Topology {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            mdns: false,
            links: LINKS_DEFAULT,
            refresh_every: LINK_REFRESH_EVERY,
            follows_members: true,
        }
    }
}

impl Topology {
    /// What is set that is of no use without an identity.
    pub(super) fn needs_identity(&self) -> Option<(&'static str, String)> {
        let mdns = self.mdns.then(|| ("mdns", self.mdns.to_string()));
        self.sources.first().map(|source| ("discover", source.name())).or(mdns)
    }

    pub(super) fn checked(self) -> Result<TopologySettings, InvalidInput> {
        let budget = LinkBudget::new(self.links)?;
        if self.sources.len() > SOURCES_MAX {
            let rule = format!("must be at most {SOURCES_MAX} sources");
            return Err(InvalidInput::new("discover", self.sources.len(), rule));
        }
        let Self { sources, mdns, refresh_every, follows_members, .. } = self;
        Ok(TopologySettings { budget, refresh_every, sources, mdns, follows_members })
    }
}

impl Builder {
    /// A source of addresses at which nodes of the cluster may be found, see [`Discovery`]. May be called for up to 64
    /// sources, which are merged. Needs an identity.
    pub fn discover(mut self, source: impl Discovery + 'static) -> Self {
        self.topology.sources.push(Box::new(source));
        self
    }

    /// Whether to find nodes of the cluster on the local network by multicast DNS, and be found there. By default not. Tells
    /// everybody on that network a hash of the cluster's id, and the port. Needs an identity.
    #[cfg(feature = "mdns")]
    pub fn mdns(mut self, mdns: bool) -> Self {
        self.topology.mdns = mdns;
        self
    }

    /// How many links to keep, 2 to 1,024, 64 by default: with all members while they are not more, and beyond that with a
    /// random part of them that changes over time, of about so many and at most half as many again. An idle link costs
    /// about 39 KiB of memory at each side.
    pub fn links(mut self, links: usize) -> Self {
        self.topology.links = links;
        self
    }

    /// Dials the peers that are named, and nobody else: for tests of networks whose shape is given.
    #[cfg(feature = "testing")]
    pub fn only_peers(mut self) -> Self {
        self.topology.follows_members = false;
        self
    }

    /// How often a link is replaced where not all members are linked: for tests, which have no minute.
    #[cfg(feature = "testing")]
    pub fn links_refresh_every(mut self, every: Duration) -> Self {
        self.topology.refresh_every = every;
        self
    }
}
