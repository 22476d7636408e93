//! Weather: a process in the air that carries datagrams from node to node, and loses, delays, doubles and slows them on the way.
//! Not every kernel can do so by itself; this one is the same everywhere, and the nodes' sockets are the kernel's.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;

use crate::process::this_test;

/// Set for the process.
pub(crate) const SKY: &str = "STOCKMESH_TEST_SKY";
const IS_UP: &str = "the sky is up";
/// A datagram that would wait longer for its turn is lost, as in a full buffer.
const BUFFERED_MAX: Duration = Duration::from_millis(400);

/// What happens to each datagram on its way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) delay_ms: u64,
    /// By so much more or less.
    pub(crate) jitter_ms: u64,
    pub(crate) lost_percent: u64,
    pub(crate) doubled_percent: u64,
    /// These are not delayed at all.
    pub(crate) overtaking_percent: u64,
    /// How much each node may send in a second; zero is no limit.
    pub(crate) kilobits: u64,
}

impl Weather {
    fn to_line(self) -> String {
        let Self { delay_ms, jitter_ms, lost_percent, doubled_percent, overtaking_percent, kilobits } = self;
        format!("{delay_ms} {jitter_ms} {lost_percent} {doubled_percent} {overtaking_percent} {kilobits}")
    }

    fn from_line(line: &str) -> Self {
        let numbers: Vec<u64> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let [delay_ms, jitter_ms, lost_percent, doubled_percent, overtaking_percent, kilobits] = numbers[..] else {
            panic!("{line}")
        };
        Self { delay_ms, jitter_ms, lost_percent, doubled_percent, overtaking_percent, kilobits }
    }
}

/// The process, as the test sees it.
pub(crate) struct Sky {
    child: Child,
    stdin: ChildStdin,
}

impl Sky {
    pub(crate) fn raise(test: &str, within: &[String], addresses: &[SocketAddr]) -> Self {
        let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        let mut command = this_test(test, within);
        command.env(SKY, addresses.join(" ")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == IS_UP), "there is no sky");
        // The harness in it says something after a minute, and ends if nobody listens.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, stdin }
    }

    pub(crate) fn make(&mut self, weather: Weather) {
        writeln!(self.stdin, "{}", weather.to_line()).unwrap();
    }
}

impl Drop for Sky {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The process itself: a socket under each node's address takes what goes there, and sends what comes from there.
struct Carrier {
    sockets: BTreeMap<SocketAddr, Arc<UdpSocket>>,
    weather: Mutex<Weather>,
    /// Until when each node's line is busy with what it sent before.
    busy_until: Mutex<BTreeMap<SocketAddr, Instant>>,
}

/// Carries until nobody makes weather any more.
pub(crate) async fn run(addresses: String) {
    let mut sockets = BTreeMap::new();
    for address in addresses.split_whitespace().map(|address| address.parse::<SocketAddr>().unwrap()) {
        sockets.insert(address, Arc::new(UdpSocket::bind(address).await.unwrap()));
    }
    let carrier = Arc::new(Carrier { sockets, weather: Mutex::default(), busy_until: Mutex::default() });
    for to in carrier.sockets.keys() {
        tokio::spawn(carry(Arc::clone(&carrier), *to));
    }
    let _ = std::io::stdout().lock().write_all(format!("\n{IS_UP}\n").as_bytes());
    let reading = tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            *carrier.weather.lock().unwrap() = Weather::from_line(&line);
        }
    });
    reading.await.unwrap();
}

async fn carry(carrier: Arc<Carrier>, to: SocketAddr) {
    let arriving = Arc::clone(&carrier.sockets[&to]);
    let mut buffer = vec![0; 1 << 16];
    loop {
        // An error is what an earlier datagram met.
        let Ok((length, from)) = arriving.recv_from(&mut buffer).await else { continue };
        let Some(leaving) = carrier.sockets.get(&from) else { continue };
        for delay in carrier.fate(from, length) {
            let (leaving, datagram) = (Arc::clone(leaving), buffer[..length].to_vec());
            if delay.is_zero() {
                let _ = leaving.try_send_to(&datagram, to);
                continue;
            }
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                let _ = leaving.try_send_to(&datagram, to);
            });
        }
    }
}

impl Carrier {
    /// How long each copy of a datagram takes; there may be none.
    fn fate(&self, from: SocketAddr, length: usize) -> Vec<Duration> {
        let weather = *self.weather.lock().unwrap();
        if happens(weather.lost_percent) {
            return Vec::new();
        }
        let copies = 1 + usize::from(happens(weather.doubled_percent));
        (0..copies).filter_map(|_| Some(self.turn(from, length, weather.kilobits)? + way(&weather))).collect()
    }

    /// How long a datagram waits for what was sent before, and takes itself. None if it is lost to a full buffer.
    fn turn(&self, from: SocketAddr, length: usize, kilobits: u64) -> Option<Duration> {
        if kilobits == 0 {
            return Some(Duration::ZERO);
        }
        let (mut busy_until, now) = (self.busy_until.lock().unwrap(), Instant::now());
        let free = busy_until.get(&from).copied().unwrap_or(now).max(now);
        if free - now > BUFFERED_MAX {
            return None;
        }
        let sent = free + Duration::from_micros(length as u64 * 8_000 / kilobits);
        busy_until.insert(from, sent);
        Some(sent - now)
    }
}

fn way(weather: &Weather) -> Duration {
    if happens(weather.overtaking_percent) {
        return Duration::ZERO;
    }
    let jitter = Duration::from_millis(weather.jitter_ms).mul_f64(rand::random_range(0.0..=2.0));
    (Duration::from_millis(weather.delay_ms) + jitter).saturating_sub(Duration::from_millis(weather.jitter_ms))
}

fn happens(percent: u64) -> bool {
    rand::random_range(0..100) < percent
}
