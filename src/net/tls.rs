//! How links are secured and bounded: TLS 1.3 with both sides known, no resumption, and the limits of QUIC.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;

use crate::limits::{
    CONNECTION_WINDOW_BYTES, DATAGRAM_BUFFER_BYTES, IDLE_TIMEOUT_MS, INCOMING_MAX, KEEP_ALIVE, STREAM_WINDOW_BYTES,
    STREAMS_MAX,
};

/// The protocol's name and major version, agreed in the TLS handshake (section 7 of the protocol).
const ALPN: &[u8] = b"stockmesh/1";
/// The same of the protocol between a node and its clients (rule X1).
#[cfg(feature = "clients")]
pub(super) const ALPN_OF_CLIENTS: &[u8] = b"stockmesh-client/1";

/// The cryptography, the same everywhere.
pub(super) fn provider() -> Arc<CryptoProvider> {
    let provider = rustls::crypto::ring::default_provider();
    #[cfg(feature = "testing")]
    let provider = super::seeded::provider(provider);
    Arc::new(provider)
}

/// By what a node shows who it is.
pub(super) enum Credentials {
    Chain(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    RawKey(Arc<CertifiedKey>),
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        match self {
            Self::Chain(chain, key) => Self::Chain(chain.clone(), key.clone_key()),
            Self::RawKey(key) => Self::RawKey(Arc::clone(key)),
        }
    }
}

/// Judge who dials, and who is dialled.
pub(super) type Verifiers = (Arc<dyn ClientCertVerifier>, Arc<dyn ServerCertVerifier>);

pub(super) fn server_tls(
    verifier: Arc<dyn ClientCertVerifier>,
    credentials: Credentials,
) -> Result<rustls::ServerConfig, rustls::Error> {
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier);
    let mut config = match credentials {
        Credentials::Chain(chain, key) => builder.with_single_cert(chain, key)?,
        Credentials::RawKey(key) => builder.with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(key))),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session skips the check of the client's certificate, so one revoked meanwhile would be let in.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

pub(super) fn client_tls(
    verifier: Arc<dyn ServerCertVerifier>,
    credentials: Credentials,
) -> Result<rustls::ClientConfig, rustls::Error> {
    // The library's own verifier for certificates; dangerous is only that one could choose another.
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match credentials {
        Credentials::Chain(chain, key) => builder.with_client_auth_cert(chain, key)?,
        Credentials::RawKey(key) => {
            builder.with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)))
        }
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

/// Bounds what one link may take of this node's memory, and notices a dead peer.
fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(u64::from(CONNECTION_WINDOW_BYTES))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(STREAMS_MAX))
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))));
    transport
}

/// The same for a node that takes clients too.
#[cfg(feature = "clients")]
pub(super) fn taking_clients(mut config: rustls::ServerConfig) -> rustls::ServerConfig {
    config.alpn_protocols.push(ALPN_OF_CLIENTS.to_vec());
    config
}

/// The same for a client.
#[cfg(feature = "clients")]
pub(super) fn being_client(mut config: rustls::ClientConfig) -> rustls::ClientConfig {
    config.alpn_protocols = vec![ALPN_OF_CLIENTS.to_vec()];
    config
}

pub(super) fn listening(tls: rustls::ServerConfig) -> Result<Arc<ServerConfig>, rustls::Error> {
    let crypto = QuicServerConfig::try_from(tls).map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config.transport_config(Arc::new(transport())).max_incoming(INCOMING_MAX);
    #[cfg(feature = "testing")]
    super::seeded::listening(&mut config);
    Ok(Arc::new(config))
}

pub(super) fn dialling(tls: rustls::ClientConfig) -> Result<ClientConfig, rustls::Error> {
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| rustls::Error::General(error.to_string()))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    #[cfg(feature = "testing")]
    super::seeded::dialling(&mut config);
    Ok(config)
}
