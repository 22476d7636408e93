//! Peers that were over their limits, and are not let in for a while (rule K7).

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::certificate::CertificateFingerprint;
use crate::limits::{PENALTIES_MAX, PENALTY_TIME};

/// By certificate, until when.
#[derive(Debug, Default)]
pub(super) struct Penalties(Mutex<BTreeMap<CertificateFingerprint, Instant>>);

impl Penalties {
    /// Does not let this one in for a while.
    pub(super) fn add(&self, certificate: CertificateFingerprint, now: Instant) {
        let mut entries = self.0.lock();
        entries.retain(|_, until| *until > now);
        if entries.len() >= PENALTIES_MAX {
            // The one that ends first, so that the table stays small whoever comes.
            let first = entries.iter().min_by_key(|(_, until)| **until).map(|(certificate, _)| *certificate);
            first.and_then(|first| entries.remove(&first));
        }
        entries.insert(certificate, now + PENALTY_TIME);
    }

    /// How long this one is still not let in.
    pub(super) fn left(&self, certificate: CertificateFingerprint, now: Instant) -> Option<Duration> {
        let until = *self.0.lock().get(&certificate)?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_penalty_ends_and_the_table_is_bounded() {
        let (penalties, now) = (Penalties::default(), Instant::now());
        let certificate = |number: usize| CertificateFingerprint::of_der(&number.to_be_bytes());
        for number in 0..=PENALTIES_MAX {
            penalties.add(certificate(number), now + Duration::from_millis(number as u64));
        }
        assert_eq!(penalties.0.lock().len(), PENALTIES_MAX);
        assert_eq!(penalties.left(certificate(0), now), None, "the first gave way");
        let last = certificate(PENALTIES_MAX);
        assert!(penalties.left(last, now + PENALTY_TIME).is_some());
        assert_eq!(penalties.left(last, now + PENALTY_TIME * 2), None);
        penalties.add(certificate(0), now + PENALTY_TIME * 2);
        assert_eq!(penalties.0.lock().len(), 1, "those that ended are forgotten");
    }
}
