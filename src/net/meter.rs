//! How much a peer may take of this node's time: what it sends too fast is read later (rules K6, K7).

use std::time::Duration;

use parking_lot::Mutex;
use stockmesh_proto::InvalidInput;
use tokio::time::Instant;

use crate::limits::{
    PEER_BURST, PEER_BYTES_PER_SECOND, PEER_BYTES_PER_SECOND_DEFAULT, PEER_FRAMES_PER_SECOND,
    PEER_FRAMES_PER_SECOND_DEFAULT, PEER_SESSIONS_PER_SECOND, PEER_SESSIONS_PER_SECOND_DEFAULT, PEER_SLOWED_MAX,
    PEER_SLOWED_MAX_DEFAULT, PEER_STREAMS_PER_SECOND, PEER_STREAMS_PER_SECOND_DEFAULT, PEER_WINDOW,
};

/// What one peer may send to this node. Each limit is on average; after a pause, as much as two seconds' worth may come at
/// once. What comes faster is read later, so that flow control makes the peer wait; no other peer's link is held back.
///
/// ```
/// use stockmesh::{PeerLimits, Store};
///
/// let limits = PeerLimits { bytes_per_second: 8 << 20, ..PeerLimits::default() };
/// let builder = Store::builder().in_memory().peer_limits(limits);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLimits {
    /// Bytes of frames per second, on all streams: 128 KiB to 64 GiB, by default 64 MiB. A peer that catches up after a long
    /// time away is slowed to this.
    pub bytes_per_second: u64,
    /// Frames per second, on all streams: 1,000 to 10 million, by default 50,000.
    pub frames_per_second: u64,
    /// Streams per second that it opens, each a question, a message, a ping or a reconciliation: 100 to a million, by
    /// default 10,000.
    pub streams_per_second: u64,
    /// Reconciliations per second that it opens: 10 to 100,000, by default 500.
    pub sessions_per_second: u64,
    /// For how long within a minute it may be held back for streams and reconciliations that it opens beside others: 1 to
    /// 60 s, by default 30 s. Beyond that its link is closed for half a minute. Bytes and frames alone never close a link:
    /// a peer that catches up is only slowed.
    pub slowed_max: Duration,
}

impl Default for PeerLimits {
    fn default() -> Self {
        Self {
            bytes_per_second: PEER_BYTES_PER_SECOND_DEFAULT,
            frames_per_second: PEER_FRAMES_PER_SECOND_DEFAULT,
            streams_per_second: PEER_STREAMS_PER_SECOND_DEFAULT,
            sessions_per_second: PEER_SESSIONS_PER_SECOND_DEFAULT,
            slowed_max: PEER_SLOWED_MAX_DEFAULT,
        }
    }
}

impl PeerLimits {
    pub(crate) fn check(&self) -> Result<(), InvalidInput> {
        for (field, value, range) in [
            ("peer_limits.bytes_per_second", self.bytes_per_second, PEER_BYTES_PER_SECOND),
            ("peer_limits.frames_per_second", self.frames_per_second, PEER_FRAMES_PER_SECOND),
            ("peer_limits.streams_per_second", self.streams_per_second, PEER_STREAMS_PER_SECOND),
            ("peer_limits.sessions_per_second", self.sessions_per_second, PEER_SESSIONS_PER_SECOND),
        ] {
            if !range.contains(&value) {
                let rule = format!("must lie between {} and {}", range.start(), range.end());
                return Err(InvalidInput::new(field, value, rule));
            }
        }
        if !PEER_SLOWED_MAX.contains(&self.slowed_max) {
            let value = format!("{:?}", self.slowed_max);
            return Err(InvalidInput::new("peer_limits.slowed_max", value, "must lie between 1 and 60 s"));
        }
        Ok(())
    }
}

/// What is to be done with what a peer began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// It is served at once.
    Free,
    /// It is served from then on.
    From(Instant),
    /// The peer is over its limits: it was held back for so long within a minute.
    Over(Duration),
}

/// What one link has sent of late.
#[derive(Debug)]
pub(super) struct Meter {
    limits: PeerLimits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bytes: Bucket,
    frames: Bucket,
    streams: Bucket,
    sessions: Bucket,
    /// All the time for which something of the link waited.
    slowed: Held,
    /// The same, of what it opened beside others, within the present window.
    excess: Held,
    window_began: Instant,
}

/// A bucket that fills up steadily. It is kept as the time at which it would be full again.
#[derive(Debug)]
struct Bucket {
    full_at: Instant,
}

impl Bucket {
    /// Takes out so much. Returns from when on that is within the rate.
    fn take(&mut self, count: u64, per_second: u64, now: Instant) -> Instant {
        let micros = u128::from(count) * 1_000_000 / u128::from(per_second.max(1));
        let cost = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        self.full_at = self.full_at.max(now).checked_add(cost).unwrap_or(self.full_at);
        self.full_at.checked_sub(PEER_BURST).map_or(now, |from| from.max(now))
    }
}

/// The time for which something waited, counted once where several waited at the same time.
#[derive(Debug)]
struct Held {
    until: Instant,
    all: Duration,
}

impl Held {
    fn add(&mut self, now: Instant, until: Instant) {
        let begun = self.until.max(now);
        if until > begun {
            self.all += until - begun;
            self.until = until;
        }
    }
}

impl Meter {
    pub(super) fn new(limits: PeerLimits, now: Instant) -> Self {
        let bucket = || Bucket { full_at: now };
        let held = || Held { until: now, all: Duration::ZERO };
        let state = State {
            bytes: bucket(),
            frames: bucket(),
            streams: bucket(),
            sessions: bucket(),
            slowed: held(),
            excess: held(),
            window_began: now,
        };
        Self { limits, state: Mutex::new(state) }
    }

    /// Counts a frame of so many bytes. Returns when it is to be handled, and the next one read.
    pub(super) fn frame(&self, bytes: usize, now: Instant) -> Pace {
        let mut state = self.state.lock();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let of_bytes = state.bytes.take(bytes, self.limits.bytes_per_second, now);
        let from = state.frames.take(1, self.limits.frames_per_second, now).max(of_bytes);
        state.hold(now, from)
    }

    /// Counts a stream that the peer opened, or a reconciliation, and whether it did so beside others.
    pub(super) fn opened(&self, what: Opened, is_beside: bool, now: Instant) -> Pace {
        let mut state = self.state.lock();
        let from = match what {
            Opened::Stream => state.streams.take(1, self.limits.streams_per_second, now),
            Opened::Session => state.sessions.take(1, self.limits.sessions_per_second, now),
        };
        if now.duration_since(state.window_began) >= PEER_WINDOW {
            (state.window_began, state.excess.all) = (now, Duration::ZERO);
        }
        if is_beside && from > now {
            state.excess.add(now, from);
            if state.excess.all > self.limits.slowed_max {
                return Pace::Over(state.excess.all);
            }
        }
        state.hold(now, from)
    }

    /// For how long in all the peer was held back.
    pub(super) fn slowed(&self) -> Duration {
        self.state.lock().slowed.all
    }
}

impl State {
    fn hold(&mut self, now: Instant, from: Instant) -> Pace {
        if from <= now {
            return Pace::Free;
        }
        self.slowed.add(now, from);
        Pace::From(from)
    }
}

/// What a peer may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    Stream,
    Session,
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PeerLimits = PeerLimits {
        bytes_per_second: 1_000_000,
        frames_per_second: 1_000,
        streams_per_second: 100,
        sessions_per_second: 10,
        slowed_max: Duration::from_secs(30),
    };

    fn meter() -> (Meter, Instant) {
        let now = Instant::now();
        (Meter::new(LIMITS, now), now)
    }

    fn seconds(count: f64) -> Duration {
        Duration::from_secs_f64(count)
    }

    /// A peer that sends whenever it is let, for a long time, gets the rate and no more, and is never over it.
    #[test]
    fn one_that_waits_is_slowed_to_the_rate_and_never_over_it() {
        for (bytes, rate) in [(50_000, 20.0), (1, 1_000.0)] {
            let (meter, begun) = meter();
            let (mut now, mut frames) = (begun, 0.0_f64);
            while now - begun < seconds(100.0) {
                frames += 1.0;
                match meter.frame(bytes, now) {
                    Pace::Free => {}
                    Pace::From(from) => now = from,
                    Pace::Over(_) => panic!("bytes put nobody over the limits"),
                }
            }
            // The burst of two seconds comes on top.
            assert!(f64::abs(frames / 102.0 / rate - 1.0) < 0.02, "{frames} frames of {bytes} bytes");
            assert!((seconds(97.0)..=seconds(101.0)).contains(&meter.slowed()), "{:?}", meter.slowed());
        }
    }

    /// One after the other is what an honest node does, however fast.
    #[test]
    fn one_session_after_the_other_is_slowed_only() {
        let (meter, begun) = meter();
        let (mut now, mut sessions) = (begun, 0);
        while now - begun < seconds(200.0) {
            sessions += 1;
            match meter.opened(Opened::Session, false, now) {
                Pace::Free => {}
                Pace::From(from) => now = from,
                Pace::Over(_) => panic!("one at a time is not over the limits"),
            }
        }
        assert!((2_000..=2_030).contains(&sessions), "{sessions}");
    }

    #[test]
    fn who_opens_beside_others_is_over_its_limits_after_half_a_minute() {
        for (what, per_second) in [(Opened::Session, 10), (Opened::Stream, 100)] {
            let (meter, begun) = meter();
            let mut now = begun;
            let held = loop {
                match meter.opened(what, true, now) {
                    Pace::Free => {}
                    Pace::From(from) => now = from,
                    Pace::Over(held) => break held,
                }
                assert!(now - begun < seconds(40.0), "it is not noticed");
            };
            assert!(now - begun > seconds(29.0) && held > seconds(30.0), "{:?} {held:?}", now - begun);
            // Ten seconds' worth at once, every half minute: held back for a quarter of the time, for ever.
            let (meter, mut now) = (Meter::new(LIMITS, begun), begun);
            for _ in 0..20 {
                now += seconds(30.0);
                for _ in 0..per_second * 10 {
                    assert!(!matches!(meter.opened(what, true, now), Pace::Over(_)));
                }
            }
        }
    }

    #[test]
    fn limits_are_checked() {
        assert!(PeerLimits::default().check().is_ok());
        let default = PeerLimits::default();
        for (limits, field) in [
            (PeerLimits { bytes_per_second: 1_000, ..default }, "bytes_per_second"),
            (PeerLimits { frames_per_second: 0, ..default }, "frames_per_second"),
            (PeerLimits { streams_per_second: 1 << 40, ..default }, "streams_per_second"),
            (PeerLimits { sessions_per_second: 1, ..default }, "sessions_per_second"),
            (PeerLimits { slowed_max: Duration::ZERO, ..default }, "slowed_max"),
        ] {
            let error = limits.check().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
