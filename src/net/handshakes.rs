//! Handshakes under way: how many, and from where.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use crate::limits::{HANDSHAKES_MAX, HANDSHAKES_OF_SOURCE_MAX};
use parking_lot::Mutex;

/// The part of an IPv6 address that names a network: a host has all the addresses within.
const NETWORK_MASK: u128 = !0 << 64;

/// Counts handshakes by source. The sum of the counts is at most [`HANDSHAKES_MAX`], and so is their number.
#[derive(Clone, Default)]
pub(super) struct Handshakes(Arc<Mutex<BTreeMap<IpAddr, usize>>>);

/// A handshake that is under way, until it is dropped.
pub(super) struct Handshake {
    all: Handshakes,
    source: IpAddr,
}

impl Handshakes {
    /// Takes one in, if there is room for it.
    pub(super) fn begin(&self, address: IpAddr) -> Option<Handshake> {
        let source = source_of(address);
        let mut counts = self.0.lock();
        let of_source = counts.get(&source).copied().unwrap_or_default();
        if of_source >= HANDSHAKES_OF_SOURCE_MAX || counts.values().sum::<usize>() >= HANDSHAKES_MAX {
            return None;
        }
        counts.insert(source, of_source + 1);
        Some(Handshake { all: self.clone(), source })
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        let mut counts = self.all.0.lock();
        match counts.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.remove(&self.source);
            }
        }
    }
}

fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & NETWORK_MASK)),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(handshakes: &Handshakes, address: &str, wanted: usize) -> Vec<Handshake> {
        let address = address.parse().unwrap();
        std::iter::repeat_with(|| handshakes.begin(address)).take(wanted).flatten().collect()
    }

    #[test]
    fn one_source_gets_a_quarter_and_all_get_the_whole() {
        let handshakes = Handshakes::default();
        let first = take(&handshakes, "192.0.2.1", 100);
        assert_eq!(first.len(), 64);
        assert!(take(&handshakes, "::ffff:192.0.2.1", 1).is_empty(), "the same address in another form");
        let second = take(&handshakes, "2001:db8::1", 40);
        let same_network = take(&handshakes, "2001:db8::ffff:2", 40);
        assert_eq!((second.len(), same_network.len()), (40, 24));
        let others = [take(&handshakes, "192.0.2.2", 64), take(&handshakes, "192.0.2.3", 64)];
        assert_eq!(others.each_ref().map(Vec::len), [64, 64]);
        assert!(take(&handshakes, "192.0.2.4", 1).is_empty(), "there is room for no more");
        drop(first);
        assert_eq!(take(&handshakes, "192.0.2.4", 100).len(), 64);
        drop((second, same_network, others));
        assert!(handshakes.0.lock().is_empty(), "sources that hold none are forgotten");
    }
}
