//! Who a node is to its peers: its certificate, and the authority that it trusts.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use crate::limits::PEM_BYTES_MAX;
use quinn::{ClientConfig, Connection, ServerConfig};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use stockmesh_proto::Location;

use super::certificate::{CertificateFingerprint, NodeName};
use super::certified::{Certified, Uncertain};
use super::raw_keys::{Pins, certified_key};
use super::tls::{Credentials, Verifiers, client_tls, dialling, listening, provider, server_tls};
#[cfg(feature = "clients")]
use super::tls::{being_client, taking_clients};
use super::validity::not_after;

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
    /// The same for a node that takes clients too, and for a client.
    #[cfg(feature = "clients")]
    server_of_clients: Arc<ServerConfig>,
    #[cfg(feature = "clients")]
    as_client: ClientConfig,
    /// The certificate, or what stands for it: the public key (rule K8).
    certificate: CertificateDer<'static>,
    expires: Option<SystemTime>,
    /// What is said of this node.
    certified: Certified,
    /// Judge the certificates of peers that dial, and of those that are dialled.
    of_diallers: Arc<dyn ClientCertVerifier>,
    of_listeners: Arc<dyn ServerCertVerifier>,
    /// The keys that are trusted, where there is no authority.
    pins: Option<Arc<Pins>>,
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
        let key = private_key(key, &key_name)?;
        let unusable = |error: &dyn std::fmt::Display| IdentityError::invalid(&certificate_name, error);
        let roots = Arc::new(roots);
        let provider = provider();
        let of_diallers = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&error))?;
        let of_listeners =
            WebPkiServerVerifier::builder_with_provider(roots, provider).build().map_err(|error| unusable(&error))?;
        let own = chain.first().cloned().ok_or_else(|| unusable(&"must hold a certificate"))?;
        let certified = Certified::of_certificate(&own).map_err(|error| unusable(&error))?;
        let expires = not_after(&own);
        let verifiers: Verifiers = (of_diallers, of_listeners);
        Self::assemble(Credentials::Chain(chain, key), verifiers, (own, expires, certified), None)
            .map_err(|error| unusable(&error))
    }

    /// Reads this node's private key, and the public keys of the nodes that it trusts, from PEM files of at most 1 MiB:
    /// for a cluster without an authority (raw public keys, RFC 7250). All nodes of a cluster use certificates, or all
    /// use raw keys. Nodes whose keys stand in the list `read_only` are trusted too, as read-only members; so is this node,
    /// if its own key stands there. Its own key need not stand in `pinned`.
    ///
    /// To change a node's key, take its former key off the others' lists when they get the new one: a replica id belongs
    /// to a key for as long as that is listed. Files that change later are not read again; see
    /// [`Store::reload_identity`](crate::Store::reload_identity).
    ///
    /// # Errors
    /// If a file cannot be read or does not hold what it should, with its path.
    pub fn from_raw_key(
        key: impl AsRef<Path>,
        pinned: impl AsRef<Path>,
        read_only: Option<&Path>,
    ) -> Result<Self, IdentityError> {
        let named = |what: &str, path: &Path| format!("{what} in {}", path.display());
        let key_bytes = read("private key", key.as_ref())?;
        let pinned_bytes = read("list of public keys", pinned.as_ref())?;
        let read_only_bytes = read_only.map(|path| read("list of read-only keys", path)).transpose()?;
        Self::build_raw(
            (&key_bytes, named("private key", key.as_ref())),
            (&pinned_bytes, read_only_bytes.as_deref(), named("list of public keys", pinned.as_ref())),
        )
    }

    /// The same from bytes in memory.
    ///
    /// # Errors
    /// If a part does not hold what it should.
    ///
    #[cfg_attr(feature = "certificates", doc = "```")]
    #[cfg_attr(not(feature = "certificates"), doc = "```ignore")]
    /// use stockmesh::Identity;
    /// use stockmesh::certificates::RawKey;
    ///
    /// let (berlin, paris) = (RawKey::new()?, RawKey::new()?);
    /// let identity = Identity::from_raw_key_bytes(berlin.key_pem.as_bytes(), paris.public_key_pem.as_bytes(), None)?;
    /// assert!(!identity.is_read_only());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_raw_key_bytes(key: &[u8], pinned: &[u8], read_only: Option<&[u8]>) -> Result<Self, IdentityError> {
        Self::build_raw((key, "private key".into()), (pinned, read_only, "list of public keys".into()))
    }

    fn build_raw(
        (key, key_name): (&[u8], String),
        (pinned, read_only, pinned_name): (&[u8], Option<&[u8]>, String),
    ) -> Result<Self, IdentityError> {
        let provider = provider();
        let unusable = |error: &dyn std::fmt::Display| IdentityError::invalid(&key_name, error);
        let key = certified_key(private_key(key, &key_name)?, &provider).map_err(|error| unusable(&error))?;
        let pins =
            Pins::read(pinned, read_only, &provider).map_err(|rule| IdentityError::invalid(&pinned_name, rule))?;
        let own = key.cert.first().cloned().ok_or_else(|| unusable(&"must hold a key"))?;
        let certified = pins.of_key(&own).cloned().unwrap_or_default();
        let pins = Arc::new(pins);
        let verifiers: Verifiers = (pins.clone(), pins.clone());
        Self::assemble(Credentials::RawKey(key), verifiers, (own, None, certified), Some(pins))
            .map_err(|error| unusable(&error))
    }

    fn assemble(
        credentials: Credentials,
        (of_diallers, of_listeners): Verifiers,
        (certificate, expires, certified): (CertificateDer<'static>, Option<SystemTime>, Certified),
        pins: Option<Arc<Pins>>,
    ) -> Result<Self, rustls::Error> {
        let server = server_tls(Arc::clone(&of_diallers), credentials.clone())?;
        let client = client_tls(Arc::clone(&of_listeners), credentials)?;
        let parts = Parts {
            #[cfg(feature = "clients")]
            server_of_clients: listening(taking_clients(server.clone()))?,
            #[cfg(feature = "clients")]
            as_client: dialling(being_client(client.clone()))?,
            server: listening(server)?,
            client: dialling(client)?,
            certificate,
            expires,
            certified,
            of_diallers,
            of_listeners,
            pins,
        };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// Whether this node is a read-only member: its certificate says so, or with raw keys the list. It gets all writes and
    /// has none of its own: [`WriteError::ReadOnly`](crate::WriteError::ReadOnly).
    pub fn is_read_only(&self) -> bool {
        self.parts.certified.read_only
    }

    /// The node's name, if its certificate says one.
    pub fn node_name(&self) -> Option<&NodeName> {
        self.parts.certified.node.as_ref()
    }

    /// The home location that the node must have, if its certificate says one.
    pub fn location(&self) -> Option<&Location> {
        self.parts.certified.location.as_ref()
    }

    /// What is said of the peer with these certificates, which the handshake has judged.
    pub(super) fn certified(&self, chain: &[CertificateDer<'static>]) -> Result<Certified, Uncertain> {
        let own = chain.first().map(CertificateDer::as_ref).unwrap_or_default();
        match &self.parts.pins {
            None => Certified::of_certificate(own),
            Some(pins) => pins.of_key(own).cloned().ok_or_else(Uncertain::not_listed),
        }
    }

    /// Whether these certificates are raw keys, each of which is a node of its own.
    pub(super) fn uses_raw_keys(&self) -> bool {
        self.parts.pins.is_some()
    }

    /// Whether the raw key of this fingerprint is trusted.
    pub(super) fn is_pinned(&self, key: CertificateFingerprint) -> bool {
        self.parts.pins.as_ref().is_some_and(|pins| pins.has(key))
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

    /// For a node that takes clients beside its peers.
    #[cfg(feature = "clients")]
    pub(super) fn server_of_clients(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.parts.server_of_clients)
    }

    /// For a client.
    #[cfg(feature = "clients")]
    pub(super) fn as_client(&self) -> ClientConfig {
        self.parts.as_client.clone()
    }

    pub(super) fn client(&self) -> ClientConfig {
        self.parts.client.clone()
    }

    /// Whether it is this very one, not one with the same content.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.parts, &other.parts)
    }

    /// Whether it is the same node in the same role, for its peers.
    pub(super) fn has_same_certificate(&self, other: &Self) -> bool {
        self.parts.certificate == other.parts.certificate && self.parts.certified == other.parts.certified
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

fn private_key(key: &[u8], name: &str) -> Result<PrivateKeyDer<'static>, IdentityError> {
    PrivateKeyDer::from_pem_slice(key)
        .map_err(|error| IdentityError::invalid(name, format!("must hold one private key in PEM: {error}")))
}

/// This node's identity, and since when it has this certificate in place of another.
#[derive(Clone, Debug)]
pub(super) struct Current {
    pub(super) identity: Identity,
    pub(super) rotated: Option<Instant>,
}
