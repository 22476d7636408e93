//! A UDP proxy between two nodes that loses, repeats and reorders datagrams, or swallows all of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

/// What a proxy does to datagrams: chances per thousand.
#[derive(Clone, Copy, Default)]
pub(crate) struct Weather {
    pub(crate) lost: u32,
    pub(crate) repeated: u32,
    pub(crate) late: u32,
}

/// A proxy in front of one node. Ends when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    weather: Weather,
    random: Mutex<StdRng>,
    is_dark: AtomicBool,
    lost: AtomicU64,
    passed: AtomicU64,
    passed_max: AtomicU64,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr, weather: Weather, seed: u64) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let address = front.local_addr().unwrap();
        let state = Arc::new(State {
            weather,
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            is_dark: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            passed_max: AtomicU64::new(u64::MAX),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(front, target, Arc::clone(&state)));
        Self { address, state, _tasks: tasks }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on every datagram is lost, both ways: neither side is told.
    pub(crate) fn go_dark(&self) {
        self.state.is_dark.store(true, Ordering::SeqCst);
    }

    /// Every datagram is lost once so many have passed.
    pub(crate) fn go_dark_after(&self, datagrams: u64) {
        self.state.passed_max.store(datagrams, Ordering::SeqCst);
    }

    pub(crate) fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::SeqCst)
    }

    pub(crate) fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::SeqCst)
    }
}

/// Gives each client a socket of its own towards the target.
async fn accept(front: Arc<UdpSocket>, target: SocketAddr, state: Arc<State>) {
    let mut backs: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, client)) = front.recv_from(&mut buffer).await else { continue };
        let back = match backs.get(&client) {
            Some(back) => Arc::clone(back),
            None => {
                let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                tasks.spawn(answer(Arc::clone(&back), Arc::clone(&front), client, Arc::clone(&state)));
                backs.insert(client, Arc::clone(&back));
                back
            }
        };
        pass(&state, &back, buffer[..length].to_vec(), target);
    }
}

async fn answer(back: Arc<UdpSocket>, front: Arc<UdpSocket>, client: SocketAddr, state: Arc<State>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, _)) = back.recv_from(&mut buffer).await else { continue };
        pass(&state, &front, buffer[..length].to_vec(), client);
    }
}

fn pass(state: &State, socket: &Arc<UdpSocket>, datagram: Vec<u8>, to: SocketAddr) {
    let Weather { lost, repeated, late } = state.weather;
    let mut random = state.random.lock();
    let mut happens = |chance: u32| random.random_range(0..1_000) < chance;
    let is_full = state.passed.load(Ordering::SeqCst) >= state.passed_max.load(Ordering::SeqCst);
    if is_full || state.is_dark.load(Ordering::SeqCst) || happens(lost) {
        state.lost.fetch_add(1, Ordering::SeqCst);
        return;
    }
    state.passed.fetch_add(1, Ordering::SeqCst);
    let copies = if happens(repeated) { 2 } else { 1 };
    for _ in 0..copies {
        if happens(late) {
            let (socket, datagram) = (Arc::clone(socket), datagram.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(15)).await;
                let _ = socket.send_to(&datagram, to).await;
            });
        } else {
            // A full buffer loses the datagram, as a network would.
            let _ = socket.try_send_to(&datagram, to);
        }
    }
}
