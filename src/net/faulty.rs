//! A UDP socket that loses, delays and cuts off, for tests of whole nodes: what membership tells of addresses leads around
//! any proxy, but not around the socket.

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, UdpPoller};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// What a network does to the datagrams of one node, to be changed at any time. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct FaultyNetwork(Arc<Mutex<Faults>>);

#[derive(Debug, Default)]
struct Faults {
    lost_per_mille: u32,
    delay: Duration,
    jitter: Duration,
    cut_off: BTreeSet<SocketAddr>,
    is_dark: bool,
}

impl FaultyNetwork {
    /// How many of a thousand datagrams are lost, on their way out.
    pub fn lose_per_mille(&self, lost: u32) {
        self.0.lock().lost_per_mille = lost;
    }

    /// How long each datagram takes on its way out, and up to how much longer at random: so they overtake each other.
    pub fn delay(&self, delay: Duration, jitter: Duration) {
        let mut faults = self.0.lock();
        (faults.delay, faults.jitter) = (delay, jitter);
    }

    /// Loses whatever goes to these addresses or comes from them; an empty list heals it.
    pub fn cut_off(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        self.0.lock().cut_off = addresses.into_iter().collect();
    }

    /// Loses everything, or nothing any more: no peer is told.
    pub fn go_dark(&self, is_dark: bool) {
        self.0.lock().is_dark = is_dark;
    }

    fn loses(&self, peer: SocketAddr) -> bool {
        let faults = self.0.lock();
        faults.is_dark || faults.cut_off.contains(&peer)
    }

    /// When a datagram leaves, if it does.
    fn leaves_after(&self, peer: SocketAddr) -> Option<Duration> {
        if self.loses(peer) {
            return None;
        }
        let faults = self.0.lock();
        if crate::chance::random_range(0..1_000) < faults.lost_per_mille {
            return None;
        }
        Some(faults.delay + faults.jitter.mul_f64(crate::chance::random_range(0.0..=1.0)))
    }
}

/// Makes the endpoints of nodes: for simulators, which have networks of their own.
pub type EndpointMaker = dyn Fn(ServerConfig, SocketAddr) -> io::Result<Endpoint> + Send + Sync;

/// A network for tests.
#[derive(Clone)]
pub(crate) enum TestNetwork {
    /// The real one, with faults.
    Faulty(FaultyNetwork),
    /// A simulated one.
    Simulated(Arc<EndpointMaker>),
}

impl std::fmt::Debug for TestNetwork {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TestNetwork").finish_non_exhaustive()
    }
}

impl TestNetwork {
    pub(super) fn endpoint(&self, server: ServerConfig, listen: SocketAddr) -> io::Result<Endpoint> {
        match self {
            Self::Simulated(make) => make(server, listen),
            Self::Faulty(network) => {
                let socket = Arc::new(FaultySocket::bind(listen, network.clone())?);
                let config = EndpointConfig::default();
                Endpoint::new_with_abstract_socket(config, Some(server), socket, Arc::new(TokioRuntime))
            }
        }
    }
}

/// A socket on that network.
#[derive(Debug)]
struct FaultySocket {
    socket: Arc<UdpSocket>,
    network: FaultyNetwork,
}

impl FaultySocket {
    /// Binds a socket. Must be called within a tokio runtime.
    fn bind(address: SocketAddr, network: FaultyNetwork) -> io::Result<Self> {
        let socket = std::net::UdpSocket::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: Arc::new(UdpSocket::from_std(socket)?), network })
    }
}

impl AsyncUdpSocket for FaultySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller(Arc::clone(&self.socket)))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let to = transmit.destination;
        match self.network.leaves_after(to) {
            None => {}
            Some(Duration::ZERO) => {
                self.socket.try_send_to(transmit.contents, to)?;
            }
            Some(delay) => {
                let (socket, contents) = (Arc::clone(&self.socket), transmit.contents.to_vec());
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    // A full buffer loses the datagram, as a network would.
                    let _ = socket.try_send_to(&contents, to);
                });
            }
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buffer), Some(meta)) = (buffers.first_mut(), meta.first_mut()) else { return Poll::Ready(Ok(0)) };
        loop {
            let mut read = ReadBuf::new(buffer);
            let from = ready!(self.socket.poll_recv_from(context, &mut read))?;
            if self.network.loses(from) {
                continue;
            }
            let length = read.filled().len();
            *meta = RecvMeta { addr: from, len: length, stride: length, ecn: None, dst_ip: None };
            return Poll::Ready(Ok(1));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

#[derive(Debug)]
struct Poller(Arc<UdpSocket>);

impl UdpPoller for Poller {
    fn poll_writable(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_send_ready(context)
    }
}
