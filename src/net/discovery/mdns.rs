//! Nodes on the local network, by multicast DNS (RFC 6762, RFC 6763).

use std::net::{IpAddr, SocketAddr};

use mdns_sd::{Receiver, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use stockmesh_proto::ClusterId;
use tracing::debug;
use xxhash_rust::xxh3::xxh3_64;

use super::{Candidate, Discovery, DiscoveryError, Found};
use crate::limits::CANDIDATES_MAX;

const SERVICE: &str = "_stockmesh._udp.local.";
/// Names the cluster, by a hash: the network need not know what it is called.
const CLUSTER: &str = "cluster";

/// Tells the local network of this node, and listens to what others tell.
pub(in crate::net) struct LocalNetwork {
    own: SocketAddr,
    /// Of this node at this network, for as long as it runs.
    instance: String,
    cluster: String,
    running: Option<Running>,
}

struct Running {
    daemon: ServiceDaemon,
    events: Receiver<ServiceEvent>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Says good-bye; nobody waits for it.
        let _ = self.daemon.shutdown();
    }
}

impl std::fmt::Debug for LocalNetwork {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("LocalNetwork").field("own", &self.own).finish_non_exhaustive()
    }
}

impl LocalNetwork {
    /// For a node that listens at this address.
    pub(in crate::net) fn new(own: SocketAddr, cluster: &ClusterId) -> Self {
        let instance = format!("{:016x}", crate::chance::random::<u64>());
        let cluster = format!("{:016x}", xxh3_64(cluster.as_str().as_bytes()));
        Self { own, instance, cluster, running: None }
    }

    fn start(&self) -> Result<Running, mdns_sd::Error> {
        let daemon = ServiceDaemon::new()?;
        let events = daemon.browse(SERVICE)?;
        let running = Running { daemon, events };
        let host = format!("{}.local.", self.instance);
        let properties = [(CLUSTER, self.cluster.as_str())];
        let every_interface = self.own.ip().is_unspecified();
        let addresses = if every_interface { String::new() } else { self.own.ip().to_string() };
        let service = ServiceInfo::new(
            SERVICE,
            &self.instance,
            &host,
            addresses.as_str(),
            self.own.port(),
            properties.as_slice(),
        )?;
        running.daemon.register(if every_interface { service.enable_addr_auto() } else { service })?;
        Ok(running)
    }

    /// Where a node may be that told of itself: none if it is this one, or of another cluster.
    fn addresses(&self, service: &ResolvedService) -> Vec<Candidate> {
        let is_own = service.fullname.split('.').next() == Some(self.instance.as_str());
        if is_own || service.get_property_val_str(CLUSTER) != Some(self.cluster.as_str()) {
            return Vec::new();
        }
        let addresses = service.addresses.iter().map(mdns_sd::ScopedIp::to_ip_addr);
        let reachable = addresses.filter(|address| self.may_reach(*address));
        reachable.map(|address| Candidate::new(SocketAddr::new(address, service.port))).collect()
    }

    /// Whether this node's socket can send there. Addresses of a single link would need its name too.
    fn may_reach(&self, address: IpAddr) -> bool {
        let is_single_link = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
        let same_family = address.is_ipv4() == self.own.is_ipv4();
        same_family && !is_single_link && address.is_loopback() == self.own.ip().is_loopback()
    }

    fn note(&self, event: ServiceEvent, found: &mut Vec<Candidate>) {
        if let ServiceEvent::ServiceResolved(service) = event {
            debug!(name = service.fullname, "a node told the local network of itself");
            found.extend(self.addresses(&service));
        }
    }
}

impl Discovery for LocalNetwork {
    fn name(&self) -> String {
        "mdns".into()
    }

    fn next(&mut self) -> Found<'_> {
        Box::pin(async {
            let events = match &self.running {
                Some(running) => running.events.clone(),
                None => {
                    let running = self.running.insert(self.start()?);
                    running.events.clone()
                }
            };
            let mut found = Vec::new();
            while found.is_empty() {
                match events.recv_async().await {
                    Ok(event) => self.note(event, &mut found),
                    Err(error) => {
                        self.running = None;
                        return Err(DiscoveryError::from(format!("multicast DNS stopped: {error}")));
                    }
                }
            }
            while let Some(event) = events.try_recv().ok().filter(|_| found.len() < CANDIDATES_MAX) {
                self.note(event, &mut found);
            }
            Ok(found)
        })
    }
}
