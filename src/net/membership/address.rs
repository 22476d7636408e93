//! Where others reach this node (rule N10).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use stockmesh_proto::ReplicaId;

/// The address that a node tells: what its embedder says, else what it listens on, else what most linked peers see.
#[derive(Debug)]
pub(super) struct OwnAddress {
    fixed: bool,
    present: SocketAddr,
    /// What each linked peer sees.
    seen: BTreeMap<ReplicaId, SocketAddr>,
}

impl OwnAddress {
    pub(super) fn new(advertise: Option<SocketAddr>, listening: SocketAddr) -> Self {
        let fixed = advertise.is_some() || !listening.ip().is_unspecified();
        Self { fixed, present: advertise.unwrap_or(listening), seen: BTreeMap::new() }
    }

    pub(super) fn present(&self) -> SocketAddr {
        self.present
    }

    /// Notes what a peer sees, or that it is not linked any more.
    pub(super) fn note(&mut self, peer: ReplicaId, seen: Option<SocketAddr>) {
        match seen {
            Some(seen) => {
                // An IPv4 address is written as one, also if the socket is one for both.
                let seen = SocketAddr::new(seen.ip().to_canonical(), seen.port());
                self.seen.insert(peer, seen);
            }
            None => _ = self.seen.remove(&peer),
        }
        if !self.fixed {
            self.choose();
        }
    }

    /// What most see, so that a single peer that is wrong, or lies, is outvoted; that of this machine alone only if nobody
    /// sees another. The present one wins ties, and stays if nobody is linked.
    fn choose(&mut self) {
        let mut votes: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        let is_useful = |address: &SocketAddr| !address.ip().is_unspecified() && address.port() != 0;
        for address in self.seen.values().filter(|address| is_useful(address)) {
            *votes.entry(*address).or_default() += 1;
        }
        let is_loopback = |ip: IpAddr| ip.is_loopback();
        let rank = |address: SocketAddr, count: usize| (!is_loopback(address.ip()), count, address == self.present);
        if let Some((address, _)) = votes.into_iter().max_by_key(|(address, count)| rank(*address, *count)) {
            self.present = address;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn peer(number: u64) -> ReplicaId {
        ReplicaId::from_random(number)
    }

    #[test]
    fn what_the_embedder_says_and_what_is_listened_on_go_before_what_peers_see() {
        let any = address("0.0.0.0:7400");
        let mut said = OwnAddress::new(Some(address("198.51.100.7:7400")), any);
        let mut specified = OwnAddress::new(None, address("192.0.2.1:7400"));
        for own in [&mut said, &mut specified] {
            own.note(peer(1), Some(address("203.0.113.9:1")));
        }
        assert_eq!((said.present(), specified.present()), (address("198.51.100.7:7400"), address("192.0.2.1:7400")));
    }

    #[test]
    fn most_peers_decide_and_a_single_one_cannot_change_it_back_and_forth() {
        let mut own = OwnAddress::new(None, address("[::]:7400"));
        assert!(own.present().ip().is_unspecified());
        own.note(peer(1), Some(address("127.0.0.1:7400")));
        assert_eq!(own.present(), address("127.0.0.1:7400"), "better than nothing");
        own.note(peer(2), Some(address("[::ffff:192.0.2.1]:7400")));
        assert_eq!(own.present(), address("192.0.2.1:7400"));
        own.note(peer(3), Some(address("203.0.113.9:1")));
        assert_eq!(own.present(), address("192.0.2.1:7400"), "one against one");
        own.note(peer(4), Some(address("203.0.113.9:1")));
        assert_eq!(own.present(), address("203.0.113.9:1"), "two against one");
        own.note(peer(4), None);
        assert_eq!(own.present(), address("203.0.113.9:1"), "one against one again");
        (1..4).for_each(|number| own.note(peer(number), None));
        assert_eq!(own.present(), address("203.0.113.9:1"), "nobody says otherwise");
        own.note(peer(5), Some(address("0.0.0.0:1")));
        assert_eq!(own.present(), address("203.0.113.9:1"));
    }
}
