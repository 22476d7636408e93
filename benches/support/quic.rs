//! Certificates of a throw-away authority, and plain QUIC connections as a floor.

use std::sync::Arc;
use std::time::Instant;

use quinn::{ClientConfig, Connection, Endpoint, ServerConfig, TransportConfig, VarInt};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519};
use rustls::pki_types::PrivateKeyDer;
use stockmesh::Identity;

/// The name that every node's certificate carries.
const SERVER_NAME: &str = "stockmesh";
/// As much as a link of the store may have under way.
const WINDOW_BYTES: u32 = 8 << 20;

/// An authority that lives as long as one run.
pub(crate) struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(parameters, key) }
    }

    fn issue(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let parameters = CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap();
        (parameters.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// The identity of a node.
    pub(crate) fn identity(&self) -> Identity {
        let (certificate, key) = self.issue();
        let (root, own, key) = (self.certificate.pem(), certificate.pem(), key.serialize_pem());
        Identity::from_pem_bytes(root.as_bytes(), own.as_bytes(), key.as_bytes()).unwrap()
    }

    /// Two ends of a plain QUIC connection over loopback.
    pub(crate) async fn connect(&self) -> Plain {
        let (certificate, key) = self.issue();
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(VarInt::from_u32(WINDOW_BYTES)).send_window(u64::from(WINDOW_BYTES));
        let transport = Arc::new(transport);
        let mut server = ServerConfig::with_single_cert(vec![certificate.der().clone()], key).unwrap();
        server.transport_config(Arc::clone(&transport));
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        let mut client = ClientConfig::with_root_certificates(Arc::new(roots)).unwrap();
        client.transport_config(transport);

        let address = "127.0.0.1:0".parse().unwrap();
        let (accepting, dialling) = (Endpoint::server(server, address).unwrap(), Endpoint::client(address).unwrap());
        let dialled = dialling.connect_with(client, accepting.local_addr().unwrap(), SERVER_NAME).unwrap();
        let accepted = async { accepting.accept().await.unwrap().await.unwrap() };
        let (near, far) = tokio::join!(async { dialled.await.unwrap() }, accepted);
        Plain { near, far, _endpoints: [accepting, dialling] }
    }
}

/// A plain connection.
pub(crate) struct Plain {
    near: Connection,
    far: Connection,
    _endpoints: [Endpoint; 2],
}

impl Plain {
    /// Sends so many bytes on one stream. Returns the seconds until all are there.
    pub(crate) async fn send(&self, bytes: usize) -> f64 {
        let begun = Instant::now();
        let near = self.near.clone();
        let sending = tokio::spawn(async move {
            let mut stream = near.open_uni().await.unwrap();
            let chunk = vec![7; 64 << 10];
            let mut rest = bytes;
            while rest > 0 {
                let now = rest.min(chunk.len());
                stream.write_all(&chunk[..now]).await.unwrap();
                rest -= now;
            }
            stream.finish().unwrap();
        });
        let mut stream = self.far.accept_uni().await.unwrap();
        let mut received = 0;
        while let Some(chunk) = stream.read_chunk(64 << 10, true).await.unwrap() {
            received += chunk.bytes.len();
        }
        let seconds = begun.elapsed().as_secs_f64();
        sending.await.unwrap();
        assert_eq!(received, bytes);
        seconds
    }

    /// Sends 100 bytes and waits until they come back on an open stream, so many times. Returns each round trip.
    pub(crate) async fn echo(&self, times: usize) -> Vec<f64> {
        let far = self.far.clone();
        let echoing = tokio::spawn(async move {
            let (mut send, mut receive) = far.accept_bi().await.unwrap();
            let mut message = [0; 100];
            while receive.read_exact(&mut message).await.is_ok() {
                send.write_all(&message).await.unwrap();
            }
        });
        let (mut send, mut receive) = self.near.open_bi().await.unwrap();
        let mut round_trips_us = Vec::with_capacity(times);
        let mut message = [7; 100];
        for _ in 0..times {
            let begun = Instant::now();
            send.write_all(&message).await.unwrap();
            receive.read_exact(&mut message).await.unwrap();
            round_trips_us.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        send.finish().unwrap();
        echoing.await.unwrap();
        round_trips_us
    }
}
