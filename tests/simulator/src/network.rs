//! A network of datagrams in memory: each directed pair of nodes loses, doubles, delays and reorders as it is told.

use std::collections::{BTreeMap, BinaryHeap};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::time::{Instant, Sleep};

use crate::chance::Chance;
use crate::trace::Trace;

/// How long a queue in front of a slow line may get.
const BACKLOG_MAX: Duration = Duration::from_millis(500);

/// What a line from one node to another does to datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Nothing arrives.
    pub cut: bool,
    /// Lost, of a thousand.
    pub lost: u64,
    /// Arriving twice, of a thousand.
    pub doubled: u64,
    /// Held up by up to ten times the delay, of a thousand, so that later ones overtake them.
    pub held_up: u64,
    /// How long each takes at the least.
    pub delay: Duration,
    /// How much longer at random.
    pub jitter: Duration,
    /// Kilobytes per second; 0 for no limit.
    pub kilobytes_per_second: u64,
}

impl Default for Line {
    fn default() -> Self {
        let (delay, jitter) = (Duration::from_millis(2), Duration::from_millis(1));
        Self { cut: false, lost: 0, doubled: 0, held_up: 0, delay, jitter, kilobytes_per_second: 0 }
    }
}

/// The network of one run. Clones are one.
#[derive(Clone, Debug)]
pub struct Network(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    chance: Chance,
    trace: Trace,
    /// Lines that are not as all are, by their ends.
    lines: BTreeMap<(SocketAddr, SocketAddr), Line>,
    usual: Line,
    /// When a slow line has sent all that waits.
    busy: BTreeMap<(SocketAddr, SocketAddr), Instant>,
    inboxes: BTreeMap<SocketAddr, Arc<Inbox>>,
    sequence: u64,
}

/// What is on its way to one socket.
#[derive(Debug, Default)]
struct Inbox(Mutex<Arriving>);

#[derive(Debug, Default)]
struct Arriving {
    datagrams: BinaryHeap<Datagram>,
    waiting: Option<Waker>,
    /// Ends when the next one is due.
    alarm: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct Datagram {
    due: Instant,
    sequence: u64,
    from: SocketAddr,
    contents: Vec<u8>,
}

impl PartialEq for Datagram {
    fn eq(&self, other: &Self) -> bool {
        self.sequence == other.sequence
    }
}

impl Eq for Datagram {}

impl PartialOrd for Datagram {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Datagram {
    /// The earliest is the greatest, as the heap gives that first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.sequence).cmp(&(self.due, self.sequence))
    }
}

impl Network {
    /// A network whose lines all are as usual.
    #[must_use]
    pub fn new(chance: Chance, trace: Trace, usual: Line) -> Self {
        let (lines, busy, inboxes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { chance, trace, lines, usual, busy, inboxes, sequence: 0 })))
    }

    /// Changes the line from one address to another.
    pub fn change(&self, from: SocketAddr, to: SocketAddr, change: impl FnOnce(&mut Line)) {
        let mut state = self.0.lock();
        let usual = state.usual;
        change(state.lines.entry((from, to)).or_insert(usual));
    }

    /// Makes all lines as usual.
    pub fn heal(&self) {
        let mut state = self.0.lock();
        state.lines.clear();
        state.busy.clear();
    }

    /// Makes all lines good, also those that are bad as a rule.
    pub fn heal_for_good(&self) {
        self.0.lock().usual = Line::default();
        self.heal();
    }

    /// Takes an address off the network at once, with all that is on its way there.
    pub fn unplug(&self, address: SocketAddr) {
        self.0.lock().inboxes.remove(&address);
    }

    /// Takes an address.
    ///
    /// # Errors
    /// If it is taken.
    pub fn bind(&self, address: SocketAddr) -> io::Result<SimulatedSocket> {
        let mut state = self.0.lock();
        if state.inboxes.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let inbox = Arc::new(Inbox::default());
        state.inboxes.insert(address, Arc::clone(&inbox));
        Ok(SimulatedSocket { address, inbox, network: self.clone(), trace: state.trace.clone() })
    }

    fn send(&self, from: (&Arc<Inbox>, SocketAddr), to: SocketAddr, contents: &[u8]) {
        let mut state = self.0.lock();
        let is_plugged = state.inboxes.get(&from.1).is_some_and(|inbox| Arc::ptr_eq(inbox, from.0));
        let from = from.1;
        let line = state.lines.get(&(from, to)).copied().unwrap_or(state.usual);
        if !is_plugged || line.cut || state.chance.per_mille(line.lost) {
            return;
        }
        let Some(inbox) = state.inboxes.get(&to).cloned() else { return };
        let Some(leaves) = state.leaves(from, to, line, contents.len()) else { return };
        let copies = 1 + usize::from(state.chance.per_mille(line.doubled));
        for _ in 0..copies {
            let mut takes = line.delay + fraction(line.jitter, &mut state.chance);
            if state.chance.per_mille(line.held_up) {
                takes += fraction(10 * (line.delay + line.jitter), &mut state.chance);
            }
            state.sequence += 1;
            let datagram =
                Datagram { due: leaves + takes, sequence: state.sequence, from, contents: contents.to_vec() };
            let mut arriving = inbox.0.lock();
            arriving.datagrams.push(datagram);
            if let Some(waiting) = arriving.waiting.take() {
                waiting.wake();
            }
        }
    }
}

impl State {
    /// When a datagram has passed the narrowest place of the line, unless the queue there is full.
    fn leaves(&mut self, from: SocketAddr, to: SocketAddr, line: Line, bytes: usize) -> Option<Instant> {
        let now = Instant::now();
        if line.kilobytes_per_second == 0 {
            return Some(now);
        }
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let busy = self.busy.entry((from, to)).or_insert(now);
        let leaves = (*busy).max(now) + Duration::from_micros(bytes * 1_000 / line.kilobytes_per_second);
        if leaves > now + BACKLOG_MAX {
            return None;
        }
        *busy = leaves;
        Some(leaves)
    }
}

fn fraction(of: Duration, chance: &mut Chance) -> Duration {
    Duration::from_micros(chance.within(0..=u64::try_from(of.as_micros()).unwrap_or(u64::MAX)))
}

/// A socket on the network.
#[derive(Debug)]
pub struct SimulatedSocket {
    address: SocketAddr,
    inbox: Arc<Inbox>,
    network: Network,
    trace: Trace,
}

impl Drop for SimulatedSocket {
    fn drop(&mut self) {
        let mut state = self.network.0.lock();
        // The address may be another's by now.
        if state.inboxes.get(&self.address).is_some_and(|inbox| Arc::ptr_eq(inbox, &self.inbox)) {
            state.inboxes.remove(&self.address);
        }
    }
}

impl AsyncUdpSocket for SimulatedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
        for datagram in transmit.contents.chunks(size) {
            self.network.send((&self.inbox, self.address), transmit.destination, datagram);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut arriving = self.inbox.0.lock();
        loop {
            let (now, mut count) = (Instant::now(), 0);
            for (buffer, meta) in buffers.iter_mut().zip(meta.iter_mut()) {
                if arriving.datagrams.peek().is_none_or(|next| next.due > now) {
                    break;
                }
                let Some(Datagram { from, contents, .. }) = arriving.datagrams.pop() else { break };
                let length = contents.len().min(buffer.len());
                buffer[..length].copy_from_slice(&contents[..length]);
                *meta = RecvMeta { addr: from, len: length, stride: length, ecn: None, dst_ip: None };
                self.trace.note_datagram(number(from), number(self.address), length);
                count += 1;
            }
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            arriving.waiting = Some(context.waker().clone());
            let Some(due) = arriving.datagrams.peek().map(|next| next.due) else { return Poll::Pending };
            let alarm = arriving.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            alarm.as_mut().reset(due);
            if Future::poll(alarm.as_mut(), context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The address of a node.
#[must_use]
pub fn address(node: u16) -> SocketAddr {
    let [high, low] = node.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 7_400))
}

/// The node at an address.
fn number(address: SocketAddr) -> u16 {
    match address {
        SocketAddr::V4(address) => {
            let [_, _, high, low] = address.ip().octets();
            u16::from_be_bytes([high, low])
        }
        SocketAddr::V6(_) => 0,
    }
}
