//! Addresses by the name system.

use std::time::Duration;

use stockmesh_proto::InvalidInput;

use super::{Candidate, Discovery, Found};
use crate::limits::{CANDIDATES_MAX, RESOLVE_EVERY_DEFAULT, RESOLVE_EVERY_MAX, RESOLVE_EVERY_MIN};
use crate::net::address::check_address;

/// All addresses of a DNS name, resolved again and again: a name that stands for all nodes, or for some, as orchestrators
/// give to a group of processes. By the system's resolver.
///
/// ```
/// use std::time::Duration;
/// use stockmesh::discovery::Dns;
///
/// let nodes = Dns::new("nodes.shops.example:7400")?.every(Duration::from_secs(120));
/// assert!(Dns::new("nodes.shops.example").is_err());
/// # Ok::<(), stockmesh::InvalidInput>(())
/// ```
#[derive(Debug)]
pub struct Dns {
    name: String,
    every: Duration,
    was_resolved: bool,
}

impl Dns {
    /// A name with the port that its nodes listen on, as `host:port`. Resolved every 30 to 60 s.
    ///
    /// # Errors
    /// If it is not of that form. Whether it resolves is tried later, for ever.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidInput> {
        let name = name.into();
        check_address("dns", &name)?;
        Ok(Self { name, every: RESOLVE_EVERY_DEFAULT, was_resolved: false })
    }

    /// How often to resolve it, a second to a day, with a third of jitter. By default 45 s.
    #[must_use]
    pub fn every(mut self, every: Duration) -> Self {
        self.every = every.clamp(RESOLVE_EVERY_MIN, RESOLVE_EVERY_MAX);
        self
    }
}

impl Discovery for Dns {
    fn name(&self) -> String {
        format!("dns {}", self.name)
    }

    fn next(&mut self) -> Found<'_> {
        Box::pin(async {
            if self.was_resolved {
                // With jitter, so that a thousand nodes do not ask at one moment.
                tokio::time::sleep(self.every.mul_f64(crate::chance::random_range(0.67..=1.33))).await;
            }
            // A failure is tried again soon, and by whoever asks.
            self.was_resolved = false;
            let resolved = tokio::net::lookup_host(&self.name).await;
            let addresses = resolved.map_err(|error| format!("{} cannot be resolved: {error}", self.name))?;
            self.was_resolved = true;
            Ok(addresses.take(CANDIDATES_MAX).map(Candidate::new).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_name_is_resolved_at_once_and_then_after_a_pause() {
        let mut dns = Dns::new("localhost:7400").unwrap().every(Duration::ZERO);
        let begun = Instant::now();
        let first = dns.next().await.unwrap();
        assert!(first.iter().all(|candidate| candidate.address.ip().is_loopback() && candidate.address.port() == 7400));
        assert!(!first.is_empty() && begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        assert_eq!(dns.next().await.unwrap(), first);
        assert!(begun.elapsed() >= Duration::from_millis(670), "the pause is a second at the least, less a third");
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_named() {
        let mut dns = Dns::new("nowhere.invalid:7400").unwrap();
        let error = dns.next().await.unwrap_err().to_string();
        assert!(error.starts_with("nowhere.invalid:7400 cannot be resolved"), "{error}");
    }
}
