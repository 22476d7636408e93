//! Addresses as users write them, and those that cannot be dialled.

use std::net::SocketAddr;

use stockmesh_proto::InvalidInput;

/// Checks the form `host:port`; whether the name resolves is tried at every dial.
pub(crate) fn check_address(field: &'static str, address: &str) -> Result<(), InvalidInput> {
    let rule = "must be host:port with a port from 1 to 65535";
    let invalid = || InvalidInput::new(field, address, rule);
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || host.len() > 255 || port == 0 || (host.contains(':') && !bracketed) {
        return Err(invalid());
    }
    Ok(())
}

/// Whether a node could be at this address at all.
pub(super) fn can_be_dialled(address: SocketAddr) -> bool {
    let ip = address.ip();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_multicast()
}
