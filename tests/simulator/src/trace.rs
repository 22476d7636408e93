//! What happened, as lines for a reader and as one number that two runs can be compared by.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::chance::mix;

/// What happened in one run. Clones are one.
#[derive(Clone, Debug)]
pub struct Trace {
    begun: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    hash: u64,
    events: u64,
    datagrams: u64,
    lines: Option<Vec<String>>,
    keeps_datagrams: bool,
}

impl Trace {
    /// An empty trace. Lines are kept only if somebody will read them.
    #[must_use]
    pub fn new(keep_lines: bool) -> Self {
        let state = State { lines: keep_lines.then(Vec::new), ..State::default() };
        Self { begun: Instant::now(), state: Arc::new(Mutex::new(state)) }
    }

    /// Simulated time since the beginning.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Keeps a line for each datagram too.
    pub fn keep_datagrams(&self) {
        self.state.lock().keeps_datagrams = true;
    }

    /// Notes an event. It is put into words only if somebody will read them, but its words always count in the hash.
    pub fn note(&self, what: impl Display) {
        let text = what.to_string();
        let now = self.now();
        let mut state = self.state.lock();
        state.absorb(now);
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            state.add(u64::from_le_bytes(word));
        }
        if let Some(lines) = &mut state.lines {
            lines.push(format!("{:>11.3} {text}", now.as_secs_f64()));
        }
    }

    /// Adds a line for a reader, which does not count.
    pub fn comment(&self, what: impl FnOnce() -> String) {
        let now = self.now();
        if let Some(lines) = &mut self.state.lock().lines {
            lines.push(format!("{:>11.3}   {}", now.as_secs_f64(), what()));
        }
    }

    /// Notes a datagram that was handed over: by numbers alone, as there are many.
    pub fn note_datagram(&self, from: u16, to: u16, bytes: usize) {
        let now = self.now();
        let mut state = self.state.lock();
        state.absorb(now);
        state.datagrams += 1;
        let keeps_datagrams = state.keeps_datagrams;
        if let Some(lines) = state.lines.as_mut().filter(|_| keeps_datagrams) {
            lines.push(format!("{:>11.6} {from} -> {to}: {bytes} bytes", now.as_secs_f64()));
        }
        state.add(u64::from(from) << 48 | u64::from(to) << 32 | u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// A number that differs if anything that was noted differs, or when.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.state.lock().hash
    }

    /// How many events and how many datagrams were noted.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.events, state.datagrams)
    }

    /// The lines, if they were kept.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.state.lock().lines.clone().unwrap_or_default()
    }
}

impl State {
    fn absorb(&mut self, now: Duration) {
        self.events += 1;
        self.add(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
    }

    fn add(&mut self, word: u64) {
        self.hash = mix(self.hash.rotate_left(5) ^ word);
    }
}
