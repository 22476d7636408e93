//! Who a node is to its peers: its certificate, and the authority that it trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::limits::{
    CONNECTION_WINDOW_BYTES, DATAGRAM_BUFFER_BYTES, IDLE_TIMEOUT_MS, INCOMING_MAX, KEEP_ALIVE, PEM_BYTES_MAX,
    STREAM_WINDOW_BYTES, STREAMS_MAX,
};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier;
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::certificate::CertificateFingerprint;
use super::validity::not_after;

/// The protocol's name and major version, agreed in the TLS handshake (rule H1).
const ALPN: &[u8] = b"stockmesh/1";
/// The name that every node's certificate carries: a node is known by its authority, not by its host name.
pub(super) const SERVER_NAME: &str = "stockmesh";

/// A certificate, key or authority that cannot be used. Nothing was opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("{what} {} cannot be read: {cause}", path.display())]
    Read {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// The content is not what it should be.
    #[error("{what} is not valid: {rule}")]
    Invalid {
        /// What was read.
        what: String,
        /// The rule that it breaks.
        rule: String,
    },
}

impl IdentityError {
    fn invalid(what: impl Into<String>, rule: impl ToString) -> Self {
        Self::Invalid { what: what.into(), rule: rule.to_string() }
    }
}

/// A node's certificate with its key, and the authority whose nodes it trusts.
///
/// Links use TLS 1.3 with certificates on both sides, without resumption: a resumed session would not check the
/// certificate again. A node is known by its authority alone, not by its host name: every certificate carries the fixed
/// name `stockmesh`, and each node asks for it. So an authority should sign for one cluster only.
///
#[cfg_attr(feature = "certificates", doc = "```")]
#[cfg_attr(not(feature = "certificates"), doc = "```ignore")]
/// use stockmesh::Identity;
/// use stockmesh::certificates::{Authority, Validity};
///
/// let authority = Authority::new("shops", Validity::from_days(3_650)?)?;
/// let berlin = authority.issue("berlin", &[], Validity::from_days(365)?)?;
/// let identity = Identity::from_pem_bytes(
///     authority.certificate_pem().as_bytes(),
///     berlin.certificate_pem.as_bytes(),
///     berlin.key_pem.as_bytes(),
/// )?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Identity {
    parts: Arc<Parts>,
}

/// What is made of the files, once.
struct Parts {
    server: Arc<ServerConfig>,
    client: ClientConfig,
    certificate: CertificateDer<'static>,
    expires: Option<SystemTime>,
    /// Judge the certificates of peers that dial, and of those that are dialled.
    of_diallers: Arc<dyn ClientCertVerifier>,
    of_listeners: Arc<dyn ServerCertVerifier>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Identity").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

impl Identity {
    /// Reads the authority's certificate, this node's certificate (chain) and its key from PEM files of at most 1 MiB.
    /// Files that change later are not read again; see [`Store::reload_identity`](crate::Store::reload_identity).
    ///
    /// # Errors
    /// If a file cannot be read or does not hold what it should, with its path.
    pub fn from_pem(
        authority: impl AsRef<Path>,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, IdentityError> {
        let authority_bytes = read("authority's certificate", authority.as_ref())?;
        let certificate_bytes = read("certificate", certificate.as_ref())?;
        let key_bytes = read("private key", key.as_ref())?;
        let named = |what: &str, path: &Path| format!("{what} in {}", path.display());
        Self::build(
            (&authority_bytes, named("authority's certificate", authority.as_ref())),
            (&certificate_bytes, named("certificate", certificate.as_ref())),
            (&key_bytes, named("private key", key.as_ref())),
        )
    }

    /// The same from bytes in memory.
    ///
    /// # Errors
    /// If a part does not hold what it should.
    pub fn from_pem_bytes(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, IdentityError> {
        Self::build(
            (authority, "authority's certificate".into()),
            (certificate, "certificate".into()),
            (key, "private key".into()),
        )
    }

    fn build(
        (authority, authority_name): (&[u8], String),
        (certificate, certificate_name): (&[u8], String),
        (key, key_name): (&[u8], String),
    ) -> Result<Self, IdentityError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(authority, &authority_name)? {
            roots.add(root).map_err(|error| IdentityError::invalid(&authority_name, error))?;
        }
        let chain = certificates(certificate, &certificate_name)?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| IdentityError::invalid(&key_name, format!("must hold one private key in PEM: {error}")))?;
        let unusable = |error: &dyn std::fmt::Display| IdentityError::invalid(&certificate_name, error);
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let of_diallers = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&error))?;
        let of_listeners = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), provider)
            .build()
            .map_err(|error| unusable(&error))?;
        let own = chain.first().cloned().ok_or_else(|| unusable(&"must hold a certificate"))?;
        let server = server_tls(Arc::clone(&of_diallers), chain.clone(), key.clone_key());
        let server = server.map_err(|error| unusable(&error))?;
        let client = client_tls(&roots, chain, key).map_err(|error| unusable(&error))?;
        let server = QuicServerConfig::try_from(server).map_err(|error| unusable(&error))?;
        let client = QuicClientConfig::try_from(client).map_err(|error| unusable(&error))?;

        let transport = Arc::new(transport());
        let mut server = ServerConfig::with_crypto(Arc::new(server));
        server.transport_config(Arc::clone(&transport)).max_incoming(INCOMING_MAX);
        let mut client = ClientConfig::new(Arc::new(client));
        client.transport_config(transport);
        let (server, expires) = (Arc::new(server), not_after(&own));
        Ok(Self { parts: Arc::new(Parts { server, client, certificate: own, expires, of_diallers, of_listeners }) })
    }

    /// The fingerprint of this node's certificate.
    ///
    #[cfg_attr(feature = "certificates", doc = "```")]
    #[cfg_attr(not(feature = "certificates"), doc = "```ignore")]
    /// # use stockmesh::Identity;
    /// # use stockmesh::certificates::{Authority, Validity};
    /// # let authority = Authority::new("shops", Validity::from_days(3_650)?)?;
    /// # let berlin = authority.issue("berlin", &[], Validity::from_days(365)?)?;
    /// # let identity = Identity::from_pem_bytes(
    /// #     authority.certificate_pem().as_bytes(),
    /// #     berlin.certificate_pem.as_bytes(),
    /// #     berlin.key_pem.as_bytes(),
    /// # )?;
    /// // As `openssl x509 -fingerprint -sha256` tells it, in small letters and without colons.
    /// assert_eq!(identity.fingerprint().to_string().len(), 64);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fingerprint(&self) -> CertificateFingerprint {
        CertificateFingerprint::of_der(&self.parts.certificate)
    }

    /// Until when this node's certificate counts. `None` if it does not say so in a form that is known.
    pub fn expires(&self) -> Option<SystemTime> {
        self.parts.expires
    }

    /// The peer's certificate and what it sent along with it. The handshake ends only with one.
    pub(super) fn chain_of_peer(connection: &Connection) -> Vec<CertificateDer<'static>> {
        let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        chain.map(|chain| *chain).unwrap_or_default()
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.parts.server)
    }

    pub(super) fn client(&self) -> ClientConfig {
        self.parts.client.clone()
    }

    /// Whether it is this very one, not one with the same content.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts)
    }

    pub(super) fn has_same_certificate(&self, other: &Self) -> bool {
        self.parts.certificate == other.parts.certificate
    }

    /// Judges a peer's certificate as the handshake does, by the authority and the time.
    pub(super) fn trusts(&self, chain: &[CertificateDer<'static>], is_dialler: bool) -> Result<(), rustls::Error> {
        let (own, others) = chain.split_first().ok_or(rustls::Error::NoCertificatesPresented)?;
        let now = UnixTime::now();
        if is_dialler {
            self.parts.of_diallers.verify_client_cert(own, others, now).map(|_| ())
        } else {
            let name = ServerName::try_from(SERVER_NAME).map_err(|error| rustls::Error::General(error.to_string()))?;
            self.parts.of_listeners.verify_server_cert(own, others, &name, &[], now).map(|_| ())
        }
    }
}

fn read(what: &'static str, path: &Path) -> Result<Vec<u8>, IdentityError> {
    let failed = |cause| IdentityError::Read { what, path: path.to_owned(), cause };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > PEM_BYTES_MAX {
        let rule = format!("must have at most {PEM_BYTES_MAX} bytes, has {bytes}");
        return Err(IdentityError::invalid(format!("{what} in {}", path.display()), rule));
    }
    std::fs::read(path).map_err(failed)
}

fn certificates(pem: &[u8], name: &str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = read.map_err(|error| IdentityError::invalid(name, format!("must be PEM: {error}")))?;
    if chain.is_empty() {
        return Err(IdentityError::invalid(name, "must hold at least one certificate in PEM"));
    }
    Ok(chain)
}

fn server_tls(
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<rustls::ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // A resumed session skips the check of the client's certificate, so one revoked meanwhile would be let in.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

fn client_tls(
    roots: &Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(Arc::clone(roots))
        .with_client_auth_cert(chain, key)?;
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

/// This node's identity, and since when it has this certificate in place of another.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) identity: Identity,
    pub(super) rotated: Option<Instant>,
}
