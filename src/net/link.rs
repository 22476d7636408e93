//! One open link to a peer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use quinn::Connection;
use rustls::pki_types::CertificateDer;
use stockmesh_proto::delta::bytes_max;
use stockmesh_proto::product::Product;
use stockmesh_proto::reconcile::{Agreement, Direction};
use stockmesh_proto::{Location, ReplicaId, Sku};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::bindings::NodeKey;
use super::certificate::CertificateFingerprint;
use super::identity::Identity;
use super::meter::Meter;
use super::refusal::CloseCode;
use crate::commit::Source;
use crate::limits::{ASK_AGAIN_AFTER, PEER_UNMERGED_KIB_MAX, PUSH_QUEUE_BYTES_MAX};
use crate::witness::Witness;

/// An encoded push, shared between the links it goes to.
pub(super) type PushFrame = Arc<Vec<u8>>;

/// An open QUIC connection to a peer whose hello was accepted.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) since: Instant,
    pub(super) replica: ReplicaId,
    /// The id that this node told in its hello.
    pub(super) told: ReplicaId,
    pub(super) location: Location,
    /// The peer is a read-only member: nothing that it sends changes the state (rule K2).
    pub(super) read_only: bool,
    /// The node that the peer is, which the replica id belongs to.
    pub(super) node: NodeKey,
    /// Who it is, for the report of what it shows.
    pub(super) witness: Arc<Witness>,
    /// What the peer sent of late.
    pub(super) meter: Meter,
    /// The peer answers questions for rights (rule B4).
    pub(super) knows_rights: bool,
    /// The peer takes messages of the application and pings (rule A1).
    pub(super) knows_messages: bool,
    /// The peer takes part in retiring replicas (rule Q1).
    pub(super) knows_retirement: bool,
    /// The peer tells how it stands, and serves pulls (section 16 of the protocol).
    pub(super) knows_pulls: bool,
    /// The peer bears that the link is ended as surplus (rule T4).
    pub(super) knows_surplus: bool,
    /// Somebody at this node asked for the link, and it ends soon: it carries no pushes from here.
    pub(super) is_temporary: AtomicBool,
    /// The peer takes part in membership (rule N3).
    pub(super) knows_membership: bool,
    /// Where the peer sees this node (rule N10).
    pub(super) observed: Option<SocketAddr>,
    /// What is left of the datagrams that it may send now.
    pub(super) datagrams: Mutex<Allowance>,
    /// What is left of the member lists that it may ask for now.
    pub(super) lists: Mutex<Allowance>,
    /// What is left of the questions that it may ask now.
    pub(super) asks: Mutex<Allowance>,
    /// KiB of what the peer sent that may be decoded and not merged yet.
    pub(super) unmerged: Arc<Semaphore>,
    /// Bounds the messages that are sent to the peer at once.
    pub(super) telling: Semaphore,
    /// What is left of the messages that it may send now.
    pub(super) messages: Mutex<Allowance>,
    pub(super) address: SocketAddr,
    pub(super) connection: Connection,
    /// Who this node was when the connection was made.
    pub(super) identity: Identity,
    /// The peer's certificate, and what it sent along.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Of the peer's own certificate: another one is another node, whatever its hello says.
    pub(super) fingerprint: CertificateFingerprint,
    /// The side that dialled: of two links between the same nodes, the one dialled by the lower id is kept.
    pub(super) dialled_by: ReplicaId,
    /// The peer's clock less this node's, at the hello.
    pub(super) skew_ms: i64,
    pub(super) pushes: mpsc::Sender<PushFrame>,
    /// Bytes of the pushes that wait.
    pub(super) push_bytes: AtomicUsize,
    /// Held while this node has a reconciliation open on the link.
    pub(super) reconciling: tokio::sync::Mutex<()>,
    /// Another reconciliation is wanted once the present one ends.
    pub(super) wanted: AtomicBool,
    /// Somebody waits for the end of a reconciliation: the next one is not left to a peer that catches up.
    pub(super) awaited: AtomicBool,
    /// One is about to be wanted again, since this node catches up.
    pub(super) wanted_again: AtomicBool,
    pub(super) agreement: Mutex<Option<Agreement>>,
    /// The peer durably holds all that this node had applied up to this group of its committer …
    pub(super) confirmed_group: AtomicU64,
    /// … which are so many own writes.
    pub(super) confirmed_writes: AtomicU64,
    /// When somebody who waits for a confirmation last asked for a reconciliation.
    pub(super) last_asked: Mutex<Option<Instant>>,
    pub(super) last_reconciled: Mutex<Option<Instant>>,
    /// When the last reconciliation began by which all arrived that the peer had then.
    pub(super) pulled: Mutex<Option<Instant>>,
}

/// How much a peer may still do: a bucket that fills up steadily, and is full after a second.
#[derive(Debug)]
pub(super) struct Allowance {
    per_second: u32,
    left: u32,
    filled: Instant,
}

impl Allowance {
    pub(super) fn full(per_second: u32) -> Self {
        Self { per_second, left: per_second, filled: Instant::now() }
    }

    pub(super) fn take(&mut self, cost: u32) -> bool {
        let since = self.filled.elapsed().as_micros();
        let more = u32::try_from(since * u128::from(self.per_second) / 1_000_000).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(self.per_second);
            self.filled = Instant::now();
        }
        let may = self.left >= cost;
        if may {
            self.left -= cost;
        }
        may
    }
}

impl Link {
    /// Which way slots go on this link; `None` if neither way, since both sides only read.
    pub(super) fn direction(&self) -> Option<Direction> {
        match (self.identity.is_read_only(), self.read_only) {
            (false, false) => Some(Direction::Both),
            (true, false) => Some(Direction::PullOnly),
            (false, true) => Some(Direction::ServeOnly),
            (true, true) => None,
        }
    }

    /// Waits until there is room for these products, which takes it until they are merged: what one peer has merging is
    /// bounded by bytes, over all its streams.
    pub(super) async fn source<'a>(&self, products: impl IntoIterator<Item = &'a (Sku, Product)>) -> Source {
        let bytes: usize = products.into_iter().map(|(sku, product)| bytes_max(sku, product)).sum();
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(PEER_UNMERGED_KIB_MAX);
        let room = Arc::clone(&self.unmerged).acquire_many_owned(kib).await.ok();
        Source { room, ..Source::of(&self.witness) }
    }

    /// Whether what it holds counts as a copy: nobody would take it back from a read-only member.
    pub(super) fn keeps_copies(&self) -> bool {
        !self.read_only
    }

    /// Whether a question of the peer is answered with rights: not if it asks too often.
    pub(super) fn may_be_answered(&self) -> bool {
        self.asks.lock().take(1)
    }

    /// Whether a datagram is taken from the peer: not if it sends too many.
    pub(super) fn may_send_datagram(&self) -> bool {
        self.datagrams.lock().take(1)
    }

    /// Whether the peer is told the member list: not if it asks too often.
    pub(super) fn may_get_list(&self) -> bool {
        self.lists.lock().take(1)
    }

    /// Whether a message of so many bytes is taken from the peer: not if it sends too much.
    pub(super) fn may_tell(&self, bytes: usize) -> bool {
        let cost = u32::try_from(bytes / 1024).unwrap_or(u32::MAX).saturating_add(1);
        self.messages.lock().take(cost)
    }

    /// The peer confirmed to hold all that was here at `group`.
    pub(super) fn confirm(&self, group: u64, own_writes: u64) {
        self.confirmed_group.fetch_max(group, Ordering::SeqCst);
        self.confirmed_writes.fetch_max(own_writes, Ordering::SeqCst);
    }

    /// Whether somebody who waits for a confirmation may ask for a reconciliation now: at once for the first time, then
    /// if none of them did so lately.
    pub(super) fn may_ask(&self, is_first: bool) -> bool {
        let mut last = self.last_asked.lock();
        let may = is_first || last.is_none_or(|last| last.elapsed() >= ASK_AGAIN_AFTER);
        if may {
            *last = Some(Instant::now());
        }
        may
    }

    /// Somebody waits for a reconciliation that begins from now on.
    pub(super) fn await_reconciliation(&self) {
        self.awaited.store(true, Ordering::SeqCst);
        self.wanted.store(true, Ordering::SeqCst);
    }

    /// Queues a push; false if the queue is full, by count or by bytes.
    pub(super) fn queue_push(&self, frame: &PushFrame) -> bool {
        let waiting = self.push_bytes.fetch_add(frame.len(), Ordering::SeqCst);
        let queued = waiting < PUSH_QUEUE_BYTES_MAX && self.pushes.try_send(Arc::clone(frame)).is_ok();
        if !queued {
            self.push_bytes.fetch_sub(frame.len(), Ordering::SeqCst);
        }
        queued
    }

    pub(super) fn close(&self, code: CloseCode, reason: &str) {
        self.connection.close(code.code(), reason.as_bytes());
    }

    pub(super) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }
}
