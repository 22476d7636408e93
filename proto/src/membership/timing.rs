//! How fast failures are noticed, and at what price (rule N6).

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Config, PeriodicParams};

use crate::limits::MEMBERSHIP_DATAGRAM_BYTES_MAX;

/// A preset of times. All members of a cluster should have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timing {
    /// For members a few milliseconds apart: a crash is noticed by all within 20 s.
    #[default]
    Lan,
    /// For members that may be seconds apart: a crash is noticed by all within 75 s.
    Wan,
}

impl Timing {
    /// How often a member probes another one.
    pub fn probe_period(self) -> Duration {
        match self {
            Self::Lan => Duration::from_secs(1),
            Self::Wan => Duration::from_secs(4),
        }
    }

    /// How long an answer may take before others are asked to probe.
    pub fn probe_answer(self) -> Duration {
        match self {
            Self::Lan => Duration::from_millis(400),
            Self::Wan => Duration::from_millis(1800),
        }
    }

    /// How long a suspect has to show that it lives.
    pub fn suspicion(self) -> Duration {
        match self {
            Self::Lan => Duration::from_secs(5),
            Self::Wan => Duration::from_secs(15),
        }
    }

    /// Within this time all members know of a crash. Each member is probed by a random one once in a period on average, and not at
    /// all within ten of them once in 20,000 times; then comes the probe itself, the suspicion, and the spreading.
    pub fn noticed_within(self) -> Duration {
        match self {
            Self::Lan => Duration::from_secs(20),
            Self::Wan => Duration::from_secs(75),
        }
    }

    /// How long a member waits before it takes a new generation again for what others say of it: so that a liar cannot
    /// keep it from its work.
    pub(super) fn renewal_pause(self) -> Duration {
        3 * self.probe_period()
    }

    /// For a cluster of about so many members.
    pub(super) fn config(self, members: usize) -> Config {
        let (gossip_every, announce_every) = match self {
            Self::Lan => (Duration::from_millis(200), Duration::from_secs(30)),
            Self::Wan => (Duration::from_millis(500), Duration::from_secs(60)),
        };
        let periodic = |frequency, count| Some(PeriodicParams { frequency, num_members: at_least_one(count) });
        Config {
            probe_period: self.probe_period(),
            probe_rtt: self.probe_answer(),
            num_indirect_probes: at_least_one(3),
            max_transmissions: transmissions(members),
            suspect_to_down_after: self.suspicion(),
            // The driver forgets them itself, since lists tell how long they have been down.
            remove_down_after: None,
            max_packet_size: at_least_one(MEMBERSHIP_DATAGRAM_BYTES_MAX),
            notify_down_members: true,
            // Lists over streams do it better.
            periodic_announce: None,
            periodic_announce_to_down_members: periodic(announce_every, 1),
            periodic_gossip: periodic(gossip_every, 3),
        }
    }
}

fn at_least_one(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN)
}

/// How often each news is passed on: 4, and 2 more each time that the cluster doubles beyond 4.
fn transmissions(members: usize) -> NonZeroU8 {
    let doublings = usize::BITS - (members / 4).leading_zeros();
    let count = u8::try_from(4 + 2 * doublings).unwrap_or(u8::MAX);
    NonZeroU8::new(count).unwrap_or(NonZeroU8::MIN)
}
