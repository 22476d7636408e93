//! What settings must be.

use stockmesh_proto::InvalidInput;

use super::{Builder, Place};
use crate::limits::{
    DRIFT_MAX, LEDGER_RETENTION_MAX, PEERS_MAX, RECONCILE_EVERY_MAX, RECONCILE_EVERY_MIN, REFERENCE_WINDOW_MAX,
    REFERENCES_MAX,
};
use crate::net::{Identity, check_address};

impl Builder {
    pub(super) fn check(&self) -> Result<(), InvalidInput> {
        if matches!(self.place, Place::Unset) {
            return Err(InvalidInput::new("data_dir", "", "must be set, or `in_memory` be called"));
        }
        if self.identity.is_none() {
            let unusable = |field, value: String| {
                Err(InvalidInput::new(field, value, "needs an `identity`: links are mutually authenticated"))
            };
            if let Some(address) = self.listen {
                return unusable("listen", address.to_string());
            }
            if let Some(path) = &self.revocations {
                return unusable("revocations", path.display().to_string());
            }
            if let Some(peer) = self.peers.first() {
                return unusable("peer", peer.clone());
            }
            #[cfg(feature = "clients")]
            if self.clients {
                return unusable("clients", "true".into());
            }
            if let Some((field, value)) = self.topology.needs_identity() {
                return unusable(field, value);
            }
            if let Some(address) = self.membership.advertise {
                return unusable("advertise", address.to_string());
            }
        }
        if let Some(certified) = self.identity.as_ref().and_then(Identity::location)
            && certified.as_str() != self.location
        {
            let rule = format!("must be {certified}: the certificate is of a node there");
            return Err(InvalidInput::new("location", &self.location, rule));
        }
        self.peer_limits.check()?;
        if !(RECONCILE_EVERY_MIN..=RECONCILE_EVERY_MAX).contains(&self.reconcile_every) {
            let value = format!("{:?}", self.reconcile_every);
            return Err(InvalidInput::new("reconcile_every", value, "must be 10 ms to a day"));
        }
        if self.drift_max > DRIFT_MAX {
            return Err(InvalidInput::new("drift_max", format!("{:?}", self.drift_max), "must be at most a day"));
        }
        if self.peers.len() > PEERS_MAX {
            return Err(InvalidInput::new("peer", self.peers.len(), format!("must be at most {PEERS_MAX} addresses")));
        }
        if self.reference_window > REFERENCE_WINDOW_MAX {
            let value = format!("{:?}", self.reference_window);
            return Err(InvalidInput::new("reference_window", value, "must be at most 366 days"));
        }
        if self.references_max > REFERENCES_MAX {
            let rule = format!("must be at most {REFERENCES_MAX}");
            return Err(InvalidInput::new("references_max", self.references_max, rule));
        }
        if self.ledger_retention > LEDGER_RETENTION_MAX {
            let value = format!("{:?}", self.ledger_retention);
            return Err(InvalidInput::new("ledger_retention", value, "must be at most a hundred years"));
        }
        self.peers.iter().try_for_each(|peer| check_address("peer", peer))
    }
}
