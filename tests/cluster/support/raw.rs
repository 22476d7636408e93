//! A peer by hand: a QUIC endpoint with a certificate of the test's choice, that sends what no honest node would.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use stockmesh::certificates::{Issued, SERVER_NAME};
use stockmesh::{ClusterId, Location, ReplicaId};
use stockmesh_proto::wire::{Hello, Message};
use tokio::time::timeout;

use super::{Mesh, PATIENCE, SHARDS, own_address};

pub(crate) const ALPN: &[u8] = b"stockmesh/1";

fn roots(mesh: &Mesh) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(mesh.authority_pem().as_bytes()).unwrap()).unwrap();
    roots
}

fn chain(issued: &Issued) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let certificate = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
    (vec![certificate], PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap())
}

/// How often an honest hello is said before it counts as not answered.
const HELLOS_MAX: usize = 5;

/// What a hand-made peer grants the node that it dials.
#[derive(Clone, Copy, Default)]
pub(crate) struct Grants {
    /// Bytes that the node may send before they are read.
    pub(crate) window_bytes: Option<u32>,
    /// Reconciliations that the node may have open at once.
    pub(crate) sessions: Option<u32>,
}

/// Dials with this certificate, or none, and speaks this protocol.
pub(crate) async fn connect(
    mesh: &Mesh,
    to: SocketAddr,
    certificate: Option<&Issued>,
    alpn: &[u8],
    grants: Grants,
) -> Result<(Endpoint, Connection), ConnectionError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots(mesh));
    let mut tls = match certificate.map(chain) {
        Some((certificates, key)) => builder.with_client_auth_cert(certificates, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(2)));
    if let Some(bytes) = grants.window_bytes {
        transport.receive_window(VarInt::from_u32(bytes)).stream_receive_window(VarInt::from_u32(bytes));
    }
    if let Some(sessions) = grants.sessions {
        transport.max_concurrent_bidi_streams(VarInt::from_u32(sessions));
    }
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    let connection = endpoint.connect_with(config, to, SERVER_NAME).unwrap().await?;
    Ok((endpoint, connection))
}

/// Listens as a node with a good certificate would, but speaks this protocol.
pub(crate) fn listen(mesh: &Mesh, alpn: &[u8]) -> Endpoint {
    let (certificates, key) = chain(&mesh.issue("raw-listener"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .unwrap();
    tls.alpn_protocols = vec![alpn.to_vec()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    Endpoint::server(config, own_address()).unwrap()
}

/// Takes one link in as an honest listener would. Keeps the hello stream, so that the hello is not lost.
pub(crate) async fn accept_hello(listener: &Endpoint, replica: ReplicaId) -> Option<(Connection, SendStream)> {
    let connection = listener.accept().await?.await.ok()?;
    let (mut send, mut receive) = connection.accept_bi().await.ok()?;
    read(&mut receive).await?;
    write(&mut send, &Message::Hello(hello(replica))).await;
    Some((connection, send))
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// The hello of an honest node with this replica id.
pub(crate) fn hello(replica: ReplicaId) -> Hello {
    Hello {
        cluster: ClusterId::new("stockmesh").unwrap(),
        replica,
        location: Location::new("hostile").unwrap(),
        shards: SHARDS,
        clock_ms: now_ms(),
        features_required: 0,
        features_known: 0,
        software: "raw".to_owned(),
        read_only: false,
        observed: None,
    }
}

/// A frame of any kind and body, its length before it.
pub(crate) fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = body.len() as u32 + 1;
    [&length.to_be_bytes()[..], &[kind], body].concat()
}

/// Reads one message; `None` if the stream ends.
pub(crate) async fn read(stream: &mut RecvStream) -> Option<Message> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await.ok()?;
    let mut bytes = vec![0; u32::from_be_bytes(prefix) as usize];
    stream.read_exact(&mut bytes).await.ok()?;
    Some(Message::decode(&bytes).unwrap())
}

pub(crate) async fn write(stream: &mut SendStream, message: &Message) {
    // The link may be closed in the middle of it: that is what the tests are after.
    let _ = stream.write_all(&message.encode().unwrap()).await;
}

/// A link that a hand-made peer opened, as far as the test let it.
pub(crate) struct Raw {
    _endpoint: Endpoint,
    pub(crate) connection: Connection,
    pub(crate) replica: ReplicaId,
    /// Its certificate.
    pub(crate) issued: Issued,
    /// The replica id of the node, once it said hello.
    pub(crate) node: Option<ReplicaId>,
}

impl Raw {
    /// Connects with a good certificate, and says nothing yet.
    pub(crate) async fn silent(mesh: &Mesh, to: SocketAddr) -> Self {
        Self::silent_with(mesh, to, Grants::default()).await
    }

    /// The same, and grants the node only so much.
    pub(crate) async fn silent_with(mesh: &Mesh, to: SocketAddr, grants: Grants) -> Self {
        let issued = mesh.issue("hostile");
        let (endpoint, connection) = connect(mesh, to, Some(&issued), ALPN, grants).await.unwrap();
        Self { _endpoint: endpoint, connection, replica: ReplicaId::from_random(rand::random()), issued, node: None }
    }

    /// Connects with this certificate, and says nothing yet.
    pub(crate) async fn silent_as(mesh: &Mesh, to: SocketAddr, issued: &Issued) -> Self {
        let (endpoint, connection) = connect(mesh, to, Some(issued), ALPN, Grants::default()).await.unwrap();
        let (replica, issued) = (ReplicaId::from_random(rand::random()), issued.clone());
        Self { _endpoint: endpoint, connection, replica, issued, node: None }
    }

    /// Says this hello. Returns the answer.
    pub(crate) async fn greet(&self, hello: Hello) -> Option<Message> {
        let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
        write(&mut send, &Message::Hello(hello)).await;
        read(&mut receive).await
    }

    /// Connects and says an honest hello.
    pub(crate) async fn linked(mesh: &Mesh, to: SocketAddr) -> Self {
        Self::linked_with(mesh, to, Grants::default()).await
    }

    /// The same, and grants the node only so much.
    pub(crate) async fn linked_with(mesh: &Mesh, to: SocketAddr, grants: Grants) -> Self {
        // On a machine that has much else to do, the time that a node gives a peer for its hello may be over.
        for _ in 0..HELLOS_MAX {
            let mut raw = Self::silent_with(mesh, to, grants).await;
            let mut receive = raw.say_hello().await;
            match read(&mut receive).await {
                Some(Message::Hello(hello)) => {
                    raw.node = Some(hello.replica);
                    return raw;
                }
                None => {}
                other => panic!("the hello was answered with {other:?}"),
            }
        }
        panic!("no hello was answered");
    }

    /// Says an honest hello under its replica id. Returns where the answer comes.
    pub(crate) async fn say_hello(&self) -> RecvStream {
        let (mut send, receive) = self.connection.open_bi().await.unwrap();
        write(&mut send, &Message::Hello(hello(self.replica))).await;
        receive
    }

    /// Reads the node's answer to the hello.
    pub(crate) async fn read_hello(&mut self, receive: &mut RecvStream) {
        match read(receive).await {
            Some(Message::Hello(hello)) => self.node = Some(hello.replica),
            other => panic!("the hello was answered with {other:?}"),
        }
    }

    /// The port from which it dialled: how the node names it.
    pub(crate) fn address(&self) -> String {
        self._endpoint.local_addr().unwrap().to_string()
    }

    /// Waits until the node closes the link. Returns the reason it gives.
    pub(crate) async fn closed(&self) -> String {
        match timeout(PATIENCE, self.connection.closed()).await.expect("the link is closed") {
            ConnectionError::ApplicationClosed(close) => String::from_utf8(close.reason.to_vec()).unwrap(),
            other => panic!("the link ended otherwise: {other}"),
        }
    }

    /// Sends these bytes as the first of a push stream, and ends the stream if told to.
    pub(crate) async fn push_bytes(&self, bytes: &[u8], finish: bool) -> SendStream {
        let mut stream = self.connection.open_uni().await.unwrap();
        let _ = stream.write_all(bytes).await;
        if finish {
            let _ = stream.finish();
        }
        stream
    }

    /// The same as a reconciliation.
    pub(crate) async fn session_bytes(&self, bytes: &[u8], finish: bool) -> (SendStream, RecvStream) {
        let (mut send, receive) = self.connection.open_bi().await.unwrap();
        let _ = send.write_all(bytes).await;
        if finish {
            let _ = send.finish();
        }
        (send, receive)
    }
}
