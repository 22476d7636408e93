//! The store as a node of its cluster: members, peers, messages, joining, leaving.

use super::Store;
use crate::error::{ReloadError, ReplicationError};
use crate::joining::Joining;
use crate::leave::Leave;
use crate::member::Member;
use crate::messages::{Broadcast, Messages, check_message};
use crate::net::{Identity, Node, SendError, check_address};
use crate::retire::Retire;
use std::sync::Arc;
use std::time::Duration;
use stockmesh_proto::wire::Message;
use stockmesh_proto::{InvalidInput, ReplicaId};
use tokio::task::JoinSet;

impl Store {
    /// The members of the cluster besides this node, as far as it knows: also those that are down or left.
    pub fn members(&self) -> Vec<Member> {
        self.inner.node.as_ref().map(Node::members).unwrap_or_default()
    }

    /// How this node catches up with its peers: how it stands now, then at changes, until it has caught up, see
    /// [`Joining`]. Reads are served meanwhile, of what has arrived.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
    /// let mut joining = store.joining();
    /// while let Some(progress) = joining.next().await {
    ///     println!("{} of {} shards", progress.shards_done, progress.shards_total);
    /// }
    /// assert!(!store.status().catching_up);
    /// # Ok(())
    /// # }
    /// ```
    pub fn joining(&self) -> Joining {
        Joining::new(self.inner.node.as_ref().and_then(Node::joining))
    }

    /// Tells the other members that this node leaves, and takes part in membership no more: for tests.
    #[cfg(feature = "testing")]
    #[doc(hidden)]
    pub async fn leave_membership(&self) {
        if let Some(node) = &self.inner.node {
            node.leave_membership().await;
        }
    }

    /// Keeps a link with a further peer, `host:port`, from now on, as [`Builder::peer`](crate::Builder::peer) does. An
    /// address that is known already changes nothing. The list is not stored: a reopened store knows the peers that its
    /// builder names.
    ///
    /// # Errors
    /// If the address is not of that form, or the store has no identity.
    pub fn add_peer(&self, address: impl Into<String>) -> Result<(), InvalidInput> {
        let address = address.into();
        check_address("peer", &address)?;
        match &self.inner.node {
            Some(node) => {
                node.add_peer(&address);
                Ok(())
            }
            None => Err(InvalidInput::new("peer", address, "needs an `identity`: links are mutually authenticated")),
        }
    }

    /// Replaces this node's certificate, its key, and the authority that it trusts, while the store goes on.
    ///
    /// New links use it at once. With another certificate all links are closed and made anew, which takes a moment; what
    /// is written meanwhile follows. With the same certificate and another authority, links to peers that it still trusts
    /// go on, the others are closed with the reason. To change the authority of a cluster: first have all nodes trust
    /// both, then give all nodes new certificates, then have them trust the new one alone.
    ///
    /// With the certificate of a read-only member, writes are refused from now on. What no peer has got by then stays here
    /// alone, so see to it before with [`Store::await_replicated`]; rights and active holds stay with this node, unused.
    ///
    /// # Errors
    /// If the store has no network or is closed, or the certificate is expired or of another location. Nothing was changed
    /// then.
    ///
    #[cfg_attr(feature = "certificates", doc = "```")]
    #[cfg_attr(not(feature = "certificates"), doc = "```ignore")]
    /// use stockmesh::certificates::{Authority, Validity};
    /// use stockmesh::{Identity, Store};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let authority = Authority::new("shops", Validity::from_days(3_650)?)?;
    /// let issue = || {
    ///     let berlin = authority.issue("berlin", &[], Validity::from_days(365)?)?;
    ///     let (certificate, key) = (berlin.certificate_pem, berlin.key_pem);
    ///     let authority = authority.certificate_pem().as_bytes();
    ///     Ok::<_, Box<dyn std::error::Error>>(Identity::from_pem_bytes(authority, certificate.as_bytes(), key.as_bytes())?)
    /// };
    /// let listen = "127.0.0.1:0".parse()?;
    /// let store = Store::builder().in_memory().listen(listen).identity(issue()?).open().await?;
    /// store.reload_identity(issue()?)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn reload_identity(&self, identity: Identity) -> Result<(), ReloadError> {
        let node = self.inner.node.as_ref().ok_or(ReloadError::NoNetwork)?;
        if self.inner.committer.is_closed() {
            return Err(ReloadError::Closed);
        }
        node.reload_identity(identity)
    }

    /// Sends a message to the application of a linked node: up to 64 KiB, delivered once or not at all, and confirmed by
    /// the other node when it has handed it to whoever reads [`Store::messages`] there. Nothing is stored or sent again.
    /// Returns the time until the confirmation. For the application's own use: it has nothing to do with stock.
    ///
    /// # Errors
    /// See [`SendError`]: all but [`SendError::NoAnswer`] mean that it was not delivered.
    pub async fn send(&self, peer: ReplicaId, bytes: impl Into<Vec<u8>>) -> Result<Duration, SendError> {
        let bytes = bytes.into();
        check_message(&bytes)?;
        match &self.inner.node {
            Some(node) => node.send(peer, Message::Tell(bytes)).await,
            None => Err(SendError::NoNetwork),
        }
    }

    /// Sends a message to the applications of all nodes that are linked with this one, all at once, see [`Store::send`].
    ///
    /// # Errors
    /// If the message is too long, or there is no network. What became of it at each node is in the result.
    pub async fn broadcast(&self, bytes: impl Into<Vec<u8>>) -> Result<Broadcast, SendError> {
        let bytes = bytes.into();
        check_message(&bytes)?;
        let node = self.inner.node.as_ref().ok_or(SendError::NoNetwork)?;
        let mut sending = JoinSet::new();
        for peer in node.linked() {
            let (store, bytes) = (self.clone(), bytes.clone());
            sending.spawn(async move { (peer, store.send(peer, bytes).await) });
        }
        let mut broadcast = Broadcast::default();
        while let Some(sent) = sending.join_next().await {
            match sent {
                Ok((peer, Ok(took))) => broadcast.received.push((peer, took)),
                Ok((peer, Err(error))) => broadcast.failed.push((peer, error)),
                Err(_) => {}
            }
        }
        broadcast.received.sort_unstable();
        broadcast.failed.sort_unstable_by_key(|(peer, _)| *peer);
        Ok(broadcast)
    }

    /// Messages that other nodes' applications send to this one, from now on. Of a reader that lags the oldest messages
    /// are dropped. Without any reader they are turned away, and their senders are told so.
    pub fn messages(&self) -> Messages {
        let inbox = self.inner.node.as_ref().and_then(Node::messages);
        inbox.map_or_else(Messages::none, Messages::new)
    }

    /// How long a linked node takes to answer: its work and the way there and back.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn ping(&self, peer: ReplicaId) -> Result<Duration, SendError> {
        match &self.inner.node {
            Some(node) => node.send(peer, Message::Ping).await,
            None => Err(SendError::NoNetwork),
        }
    }

    /// Retires a replica that will never return: its rights and holds pass to an heir, this node unless said, see
    /// [`Retire`]. Also a former id of this node.
    ///
    /// Refused while a member cannot be reached, since it may know of sales that nobody else knows of; unless it is named
    /// as left out, see [`Retire::without`]. Costs a reconciliation with every member and a look at every product. If it
    /// fails, nothing is lost, and it can be called again. If several nodes begin in the same moment, one of them ends it,
    /// and the others are told who.
    ///
    /// # Errors
    /// See [`RetireError`](crate::RetireError).
    ///
    /// ```no_run
    /// # async fn run(store: stockmesh::Store, dead: stockmesh::ReplicaId) -> Result<(), Box<dyn std::error::Error>> {
    /// let retired = store.retire(dead).await?;
    /// println!("{} units passed to {}", retired.units, retired.heir);
    /// # Ok(())
    /// # }
    /// ```
    pub fn retire(&self, replica: ReplicaId) -> Retire {
        Retire::new(Arc::clone(&self.inner), replica)
    }

    /// Leaves the cluster for good: gives all rights and hands the holds to a linked node, waits until others hold all
    /// writes, tells the members, and closes the store, see [`Leave`]. Then its departure costs nobody stock.
    ///
    /// # Errors
    /// See [`LeaveError`](crate::LeaveError): but for an unclean close the node goes on as a member.
    ///
    /// ```no_run
    /// # async fn run(store: stockmesh::Store) -> Result<(), Box<dyn std::error::Error>> {
    /// let left = store.leave().held_by(2).await?;
    /// println!("{} units passed to {:?}", left.units, left.heir);
    /// # Ok(())
    /// # }
    /// ```
    pub fn leave(&self) -> Leave {
        Leave::new(Arc::clone(&self.inner))
    }

    /// Closes all links and takes none until [`Store::go_online`]. Reads and writes go on. Does nothing without a
    /// network.
    pub fn go_offline(&self) {
        if let Some(node) = &self.inner.node {
            node.set_offline(true);
        }
    }

    /// Links again after [`Store::go_offline`]; what both sides wrote meanwhile is exchanged at once.
    pub fn go_online(&self) {
        if let Some(node) = &self.inner.node {
            node.set_offline(false);
        }
    }

    /// Waits until at least `replicas` linked peers hold durably all that was written here so far.
    ///
    /// Asks peers by reconciling, so it costs a round trip or two where a link is up. Only peers linked with this very
    /// node count, not those that got the writes from others.
    ///
    /// # Errors
    /// If time runs out first, or there is no network. The writes stay durable here.
    ///
    /// ```
    /// use std::time::Duration;
    /// use stockmesh::ReplicationError;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
    /// store.product("MUG-01")?.receive(12).await?;
    /// let alone = store.await_replicated(1, Duration::from_secs(5)).await;
    /// assert_eq!(alone, Err(ReplicationError::NoNetwork));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn await_replicated(&self, replicas: usize, timeout: Duration) -> Result<(), ReplicationError> {
        match &self.inner.node {
            _ if replicas == 0 => Ok(()),
            Some(node) => node.await_replicated(replicas, timeout).await,
            None => Err(ReplicationError::NoNetwork),
        }
    }
}
