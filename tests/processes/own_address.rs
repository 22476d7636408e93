//! Addresses for nodes that go down and come back.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering};

/// A free address that nobody takes while its node is down: a port of the usual loopback address would be given to
/// whoever asks for any. Elsewhere than on Linux there is no other.
pub(crate) fn own_address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let address = if cfg!(target_os = "linux") {
        let [.., high, low] = std::process::id().to_be_bytes();
        Ipv4Addr::new(127, 16 + NEXT.fetch_add(1, Ordering::Relaxed) % 200, high, low)
    } else {
        Ipv4Addr::LOCALHOST
    };
    UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap()
}
