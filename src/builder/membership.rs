//! Settings of membership.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use stockmesh_proto::InvalidInput;
use stockmesh_proto::member::Labels;

use super::Builder;
use crate::member::MembershipTiming;
use crate::net::MembershipSettings;

/// What the embedder says of membership, not checked yet.
#[derive(Debug, Default)]
pub(super) struct MembershipChoice {
    pub(super) advertise: Option<SocketAddr>,
    timing: MembershipTiming,
    labels: Vec<(String, String)>,
}

impl MembershipChoice {
    /// Checks the labels, and the address.
    pub(super) fn labels(&self) -> Result<Labels, InvalidInput> {
        if let Some(address) = self.advertise.filter(|address| address.ip().is_unspecified() || address.port() == 0) {
            return Err(InvalidInput::new("advertise", address, "must be an address and port that others can dial"));
        }
        Labels::new(self.labels.iter().map(|(key, value)| (key, value)))
    }

    pub(super) fn settings(&self, labels: Labels, rows: BTreeMap<String, Vec<u8>>) -> MembershipSettings {
        MembershipSettings { advertise: self.advertise, labels, timing: self.timing.into(), rows }
    }
}

impl Builder {
    /// The address at which other nodes reach this one, if it is not the one it listens on, as behind a translation of
    /// addresses. By default the address of [`Builder::listen`], if that names an interface, else what most linked peers
    /// see. Needs an identity.
    pub fn advertise(mut self, address: SocketAddr) -> Self {
        self.membership.advertise = Some(address);
        self
    }

    /// How fast failures of nodes are noticed; the same for all nodes of a cluster. By default that of a LAN.
    pub fn timing(mut self, timing: MembershipTiming) -> Self {
        self.membership.timing = timing;
        self
    }

    /// Says something of this node that others see in [`Store::members`](crate::Store::members): up to 8 labels, keys of
    /// 1 to 32 bytes and values of up to 32 bytes of UTF-8.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.membership.labels.push((key.into(), value.into()));
        self
    }
}
