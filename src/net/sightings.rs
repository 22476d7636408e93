//! What the task of membership is told, and asked.

use std::sync::Arc;

use bytes::Bytes;
use metrics::counter;
use stockmesh_proto::ReplicaId;
use stockmesh_proto::member::{Generation, ListedMember};
use tokio::sync::{mpsc, oneshot};

use super::link::Link;
use crate::limits::SIGHTINGS_MAX;

/// What happened, or is asked.
#[derive(Debug)]
pub(super) enum Sighting {
    /// A datagram came over this link.
    Datagram { link: Arc<Link>, bytes: Bytes },
    /// Generations up to this one are on disk, or the disk failed.
    Reserved(Option<Generation>),
    /// The rows of members are on disk, or the disk failed.
    RowsWritten,
    /// An exchange of lists ended; it brought so much news.
    Exchanged(usize),
    /// Asks for the digest of what is known.
    Digest(oneshot::Sender<u64>),
    /// Asks for the list of members.
    List(oneshot::Sender<Vec<ListedMember>>),
    /// Takes in a list of a peer. The answer is how much of it was news, and what the peer does not know.
    Learn { from: ReplicaId, list: Vec<ListedMember>, reply: oneshot::Sender<(usize, Vec<ListedMember>)> },
    /// Leaves for good.
    Leave(oneshot::Sender<()>),
    /// Writes down whom it knows.
    Flush(oneshot::Sender<()>),
}

/// The way to the task of membership.
#[derive(Clone, Debug)]
pub(super) struct Sightings(mpsc::Sender<Sighting>);

/// Membership ended with the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node is closed")]
pub(super) struct Ended;

impl Sightings {
    pub(super) fn new() -> (Self, mpsc::Receiver<Sighting>) {
        let (sender, queue) = mpsc::channel(SIGHTINGS_MAX);
        (Self(sender), queue)
    }

    /// Hands a datagram over, if there is room.
    pub(super) fn datagram(&self, link: &Arc<Link>, bytes: Bytes) {
        if self.0.try_send(Sighting::Datagram { link: Arc::clone(link), bytes }).is_err() {
            counter!("stockmesh_datagrams_dropped_total").increment(1);
        }
    }

    /// Tells what happened.
    pub(super) async fn tell(&self, sighting: Sighting) {
        let _ = self.0.send(sighting).await;
    }

    /// The digest of what is known.
    pub(super) async fn digest(&self) -> Result<u64, Ended> {
        self.ask(Sighting::Digest).await
    }

    /// All members.
    pub(super) async fn list(&self) -> Result<Vec<ListedMember>, Ended> {
        self.ask(Sighting::List).await
    }

    /// Takes in a list of a peer. Returns how much of it was news, and what the peer does not know.
    pub(super) async fn learn(
        &self,
        from: ReplicaId,
        list: Vec<ListedMember>,
    ) -> Result<(usize, Vec<ListedMember>), Ended> {
        self.ask(|reply| Sighting::Learn { from, list, reply }).await
    }

    /// Leaves for good: returns when the members were told, as far as they can be reached.
    pub(super) async fn leave(&self) {
        let _ = self.ask(Sighting::Leave).await;
    }

    /// Returns when the members that are known are on disk.
    pub(super) async fn flush(&self) {
        let _ = self.ask(Sighting::Flush).await;
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Sighting) -> Result<T, Ended> {
        let (reply, answer) = oneshot::channel();
        self.0.send(question(reply)).await.map_err(|_| Ended)?;
        answer.await.map_err(|_| Ended)
    }
}
