//! Raw public keys in place of certificates (rule K8): whoever holds the key of one that is listed is let in.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, SignatureScheme};

use super::certificate::CertificateFingerprint;
use super::certified::Certified;
use super::der::sequence;
use crate::limits::PINNED_KEYS_MAX;

/// The keys that are trusted, and which of them only read.
#[derive(Debug)]
pub(super) struct Pins {
    /// By SubjectPublicKeyInfo in DER.
    keys: BTreeMap<Vec<u8>, Certified>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Pins {
    /// Reads lists of public keys in PEM. Those of the second are trusted too, to read only.
    ///
    /// # Errors
    /// The rule that a list breaks.
    pub(super) fn read(pinned: &[u8], read_only: Option<&[u8]>, provider: &CryptoProvider) -> Result<Self, String> {
        let mut keys = BTreeMap::new();
        for key in public_keys(pinned)? {
            keys.insert(key, Certified::default());
        }
        // After the others, so that a key that stands in both lists only reads.
        for key in read_only.map(public_keys).transpose()?.unwrap_or_default() {
            keys.insert(key, Certified { read_only: true, ..Certified::default() });
        }
        if keys.is_empty() {
            return Err("must hold at least one public key in PEM".into());
        }
        if keys.len() > PINNED_KEYS_MAX {
            return Err(format!("must hold at most {PINNED_KEYS_MAX} keys"));
        }
        Ok(Self { keys, algorithms: provider.signature_verification_algorithms })
    }

    /// What is said of the holder of this key, if it is listed.
    pub(super) fn of_key(&self, key: &[u8]) -> Option<&Certified> {
        self.keys.get(key)
    }

    /// Whether the key of this fingerprint is listed.
    pub(super) fn has(&self, fingerprint: CertificateFingerprint) -> bool {
        self.keys.keys().any(|key| CertificateFingerprint::of_der(key) == fingerprint)
    }

    fn verify(&self, key: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        if !others.is_empty() || !self.keys.contains_key(key.as_ref()) {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(())
    }

    fn verify_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

/// Public keys in PEM, each as DER.
fn public_keys(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut keys = Vec::new();
    for key in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
        let key = key.map_err(|error| format!("must be public keys in PEM: {error}"))?;
        if sequence(&key).is_none_or(|(_, rest)| !rest.is_empty()) {
            return Err("must be public keys in PEM, each a SubjectPublicKeyInfo".into());
        }
        keys.push(key.to_vec());
    }
    Ok(keys)
}

/// A private key with its own public one, as the TLS library shows it.
///
/// # Errors
/// If the key is of a kind that the library does not know.
pub(super) fn certified_key(
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, Error> {
    let key = provider.key_provider.load_private_key(key)?;
    let public = key.public_key().ok_or_else(|| Error::General("the key tells no public key".into()))?;
    let shown = CertificateDer::from(public.to_vec());
    Ok(Arc::new(CertifiedKey::new(vec![shown], key)))
}

fn is_tls13_only() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic)
}

impl ServerCertVerifier for Pins {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(key, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(is_tls13_only())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Pins {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(key, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(is_tls13_only())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
