//! A program's connection to a node.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quinn::Connection;
use stockmesh_proto::hold::HoldId;
use stockmesh_proto::limits::CLIENT_SKUS_MAX;
use stockmesh_proto::wire::client::{
    AllHolds, AllMembers, Amount, Answer, CommitHold, FailureCode, Get, HoldInfo, List, MemberInfo, NewHold, NewPrice,
    Receipt, ReleaseHold, Request, ResolvedInfo, Sale, Shown, StatusInfo, StatusWanted, Text, Welcome,
};
use stockmesh_proto::{Location, Price, Reference, ReplicaId, Sku};

use super::answer::reference;
use super::connection::{Answers, Missed, Open, ask};
use super::error::ClientError;
use super::goods::{Found, Goods};
use super::listing::{Listing, Watching};
use crate::limits::{ANSWER_TIME_MAX, CLIENT_ENTRIES_MAX, CLIENT_TRIES_MAX, CLIENT_TRY_PAUSE};
use crate::net::{Identity, check_address};
use crate::subscribe::Filter;

/// A program's connection to one node: it asks, and the node acts. See the [module](super) for an example.
///
/// A connection that is lost is made anew, and the question asked again. Each write has a reference, so that this does
/// nothing twice: the caller's own, or one drawn by chance. It is asked again at the same replica only, since no other
/// knows the reference. If that does not come back, the write is [`ClientError::Indeterminate`].
///
/// Clones share one connection. The node closes one that is not used for 15 s; the next question opens another.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

/// Without the connection, which shows pages of itself.
impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("Client");
        shown.field("address", &self.inner.address).field("node", &self.node()).finish_non_exhaustive()
    }
}

struct Inner {
    address: String,
    identity: Identity,
    open: tokio::sync::Mutex<Open>,
    welcome: Mutex<Welcome>,
}

impl Client {
    /// Connects to a node that takes clients, `host:port`, within 5 s. The certificate must be of the authority that the
    /// node trusts, and the node's of the one that this identity trusts.
    ///
    /// # Errors
    /// If the address is not of that form, or with the reason why there is no connection.
    pub async fn connect(address: impl Into<String>, identity: Identity) -> Result<Self, ClientError> {
        let address = address.into();
        check_address("address", &address)?;
        let open = Open::open(&address, &identity).await;
        let open = open.map_err(|reason| ClientError::Connect { address: address.clone(), reason })?;
        let welcome = Mutex::new(open.welcome.clone());
        Ok(Self { inner: Arc::new(Inner { address, identity, open: tokio::sync::Mutex::new(open), welcome }) })
    }

    /// Who the node said it is, when the connection was last made.
    pub fn node(&self) -> Welcome {
        self.inner.welcome.lock().clone()
    }

    /// How the node stands.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn status(&self) -> Result<StatusInfo, ClientError> {
        match self.read(&Request::Status(StatusWanted {})).await? {
            Answer::StatusIs(status) => Ok(*status),
            _ => Err(something_else()),
        }
    }

    /// The members of the cluster besides the node, as far as it knows: also those that are down or left.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn members(&self) -> Result<Vec<MemberInfo>, ClientError> {
        let page = |answer| match answer {
            Answer::MembersAre(page) => Some((page.members, page.last)),
            _ => None,
        };
        self.collect(&Request::Members(AllMembers {}), page).await
    }

    /// The holds that the node gave and that are not resolved, those that expire first before the others.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn holds(&self) -> Result<Vec<HoldInfo>, ClientError> {
        let page = |answer| match answer {
            Answer::HoldsAre(page) => Some((page.holds, page.last)),
            _ => None,
        };
        self.collect(&Request::Holds(AllHolds {}), page).await
    }

    /// Products by their keys.
    ///
    /// # Errors
    /// If a SKU is not valid, and see [`ClientError`]. A product that the node does not know is no error.
    pub async fn get(&self, skus: &[&str]) -> Result<Found, ClientError> {
        self.get_at(skus, None).await
    }

    /// The same, with the figures of one location only.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_at(&self, skus: &[&str], at: Option<&Location>) -> Result<Found, ClientError> {
        let mut found = Found::default();
        for some in skus.chunks(CLIENT_SKUS_MAX) {
            let skus = some.iter().map(|sku| Sku::new(sku)).collect::<Result<_, _>>()?;
            let mut unknown = Vec::new();
            let page = |answer| match answer {
                Answer::Products(page) => {
                    unknown.extend(page.unknown);
                    Some((page.products, page.last))
                }
                _ => None,
            };
            let products = self.collect(&Request::Get(Get { skus, at: at.cloned() }), page).await?;
            found.products.extend(products);
            found.unknown.extend(unknown);
        }
        Ok(found)
    }

    /// All products whose key begins with `prefix`, in the order of their keys; with a location the figures of that one.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn list(&self, prefix: &str, at: Option<&Location>) -> Result<Listing, ClientError> {
        let request = Request::List(List { prefix: Text::new(prefix), at: at.cloned() });
        Ok(Listing::new(self.answers(&request).await?))
    }

    /// Changes from now on, once they are durable at the node, see [`Filter`]. A location in the filter also chooses the
    /// figures that are told.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn watch(&self, filter: &Filter) -> Result<Watching, ClientError> {
        Watching::begin(self.answers(&Request::Watch(filter.to_wire())).await?).await
    }

    /// Sells units, as [`Product::sell`](crate::Product::sell) does at the node.
    ///
    /// # Errors
    /// [`ClientError::Insufficient`] if there are too few, and see [`ClientError`].
    pub async fn sell(&self, goods: &Goods, units: u64) -> Result<(), ClientError> {
        let Goods { sku, at, reference, deadline } = named(goods);
        let deadline_ms = deadline.map(milliseconds);
        self.done(Request::Sell(Sale { sku, at, units, reference, deadline_ms })).await
    }

    /// Counts units in, as [`Product::receive`](crate::Product::receive) does at the node.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn receive(&self, goods: &Goods, units: u64) -> Result<(), ClientError> {
        let Goods { sku, at, reference, .. } = named(goods);
        self.done(Request::Receive(Receipt { sku, at, units, reference })).await
    }

    /// Sets the price at all locations, as [`Product::set_price`](crate::Product::set_price) does at the node. The location
    /// of the goods plays no part.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn set_price(&self, goods: &Goods, price: Price) -> Result<(), ClientError> {
        let Goods { sku, reference, .. } = named(goods);
        self.done(Request::SetPrice(NewPrice { sku, price: Amount(price), reference })).await
    }

    /// Sets units aside for a time, as [`Product::hold`](crate::Product::hold) does at the node.
    ///
    /// # Errors
    /// As [`Client::sell`].
    pub async fn hold(&self, goods: &Goods, units: u64, ttl: Duration) -> Result<HoldInfo, ClientError> {
        let Goods { sku, at, reference, deadline } = named(goods);
        let (ttl_ms, deadline_ms) = (milliseconds(ttl), deadline.map(milliseconds));
        match self.write(Request::Hold(NewHold { sku, at, units, ttl_ms, reference, deadline_ms })).await? {
            Answer::Held(hold) => Ok(hold),
            _ => Err(something_else()),
        }
    }

    /// Sells what a hold holds: so many units of it, and the rest is released, or all.
    ///
    /// # Errors
    /// If the hold is resolved otherwise or not known, and see [`ClientError`].
    pub async fn commit_hold(&self, id: HoldId, units: Option<u64>) -> Result<ResolvedInfo, ClientError> {
        self.resolve(Request::CommitHold(CommitHold { id: Shown(id), units })).await
    }

    /// Releases what a hold holds.
    ///
    /// # Errors
    /// As [`Client::commit_hold`].
    pub async fn release_hold(&self, id: HoldId) -> Result<ResolvedInfo, ClientError> {
        self.resolve(Request::ReleaseHold(ReleaseHold { id: Shown(id) })).await
    }

    /// Closes the connection, and waits a little until the node has heard of it. A further question would open another.
    pub async fn close(&self) {
        self.inner.open.lock().await.close().await;
    }

    async fn resolve(&self, request: Request) -> Result<ResolvedInfo, ClientError> {
        match self.write(request).await? {
            Answer::Resolved(resolved) => Ok(resolved),
            _ => Err(something_else()),
        }
    }

    async fn done(&self, request: Request) -> Result<(), ClientError> {
        match self.write(request).await? {
            Answer::Done(_) => Ok(()),
            _ => Err(something_else()),
        }
    }

    /// The open connection, or another if that one ended; and the replica that it leads to.
    async fn connection(&self) -> Result<(Connection, ReplicaId), ClientError> {
        let mut open = self.inner.open.lock().await;
        if let Some(connection) = open.connection() {
            return Ok((connection, open.welcome.replica.0));
        }
        let anew = Open::open(&self.inner.address, &self.inner.identity).await;
        *open = anew.map_err(|reason| ClientError::Connect { address: self.inner.address.clone(), reason })?;
        *self.inner.welcome.lock() = open.welcome.clone();
        open.connection().map(|connection| (connection, open.welcome.replica.0)).ok_or_else(|| {
            let reason = "the node closed the connection at once".into();
            ClientError::Connect { address: self.inner.address.clone(), reason }
        })
    }

    /// Asks a question; anew if the connection turns out to have ended.
    async fn answers(&self, request: &Request) -> Result<Answers, ClientError> {
        let mut reason = String::new();
        for attempt in 0..CLIENT_TRIES_MAX {
            pause_before(attempt).await;
            match ask(&self.connection().await?.0, request).await {
                Ok(answers) => return Ok(answers),
                Err(missed) => reason = missed.reason(),
            }
        }
        Err(ClientError::Lost { reason })
    }

    /// Asks a question that has one answer, as often as need be: nothing is changed by it.
    async fn read(&self, request: &Request) -> Result<Answer, ClientError> {
        let mut reason = String::new();
        for attempt in 0..CLIENT_TRIES_MAX {
            pause_before(attempt).await;
            match self.answers(request).await?.only().await {
                Ok(answer) => return answer.map_err(|failure| ClientError::told(&failure, None)),
                Err(missed) => reason = missed.reason(),
            }
        }
        Err(ClientError::Lost { reason })
    }

    /// All pages of an answer.
    async fn collect<T>(
        &self,
        request: &Request,
        mut page: impl FnMut(Answer) -> Option<(Vec<T>, bool)>,
    ) -> Result<Vec<T>, ClientError> {
        let mut answers = self.answers(request).await?;
        let mut all = Vec::new();
        loop {
            let answer = answers.next(Some(ANSWER_TIME_MAX)).await.map_err(|reason| ClientError::Lost { reason })?;
            match answer {
                Some(Answer::Failed(failure)) => return Err(ClientError::told(&failure, None)),
                Some(answer) => {
                    let (entries, is_last) = page(answer).ok_or_else(something_else)?;
                    all.extend(entries);
                    if is_last {
                        return Ok(all);
                    }
                    if all.len() > CLIENT_ENTRIES_MAX {
                        let reason = format!("it has more than {CLIENT_ENTRIES_MAX} entries");
                        return Err(ClientError::Lost { reason });
                    }
                }
                None => return Err(ClientError::Lost { reason: "the node ended the answer before its end".into() }),
            }
        }
    }

    /// Asks for a write, once more if the connection is lost, at the same replica only (rule X6).
    async fn write(&self, request: Request) -> Result<Answer, ClientError> {
        // Where the first request went that may have arrived, and what happened then.
        let mut sent: Option<(ReplicaId, String)> = None;
        for attempt in 0..CLIENT_TRIES_MAX {
            pause_before(attempt).await;
            let (connection, replica) = match (self.connection().await, &sent) {
                (Ok(connected), _) => connected,
                (Err(error), None) => return Err(error),
                // The node may be on its way back.
                (Err(_), Some(_)) => continue,
            };
            if let Some((asked, reason)) = &sent
                && *asked != replica
            {
                let reason = format!("{reason}; at {} is replica {replica} now, asked was {asked}", self.inner.address);
                return Err(ClientError::Indeterminate { reference: reference(&request).cloned(), reason });
            }
            let answered = match ask(&connection, &request).await {
                Ok(answers) => answers.only().await,
                Err(missed) => Err(missed),
            };
            match answered {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) if sent.is_none() || is_final(failure.code) => {
                    return Err(ClientError::told(&failure, reference(&request)));
                }
                // It was not looked at, so it tells nothing of the first one.
                Ok(Err(failure)) => sent = Some((replica, failure.text.to_string())),
                Err(Missed::Lost(reason)) => sent = Some((replica, reason)),
                Err(Missed::NotSent(reason)) => {
                    if sent.is_none() && attempt + 1 == CLIENT_TRIES_MAX {
                        return Err(ClientError::Connect { address: self.inner.address.clone(), reason });
                    }
                }
            }
        }
        let reason = sent.map_or_else(|| "it could not be asked for".into(), |(_, reason)| reason);
        Err(ClientError::Indeterminate { reference: reference(&request).cloned(), reason })
    }
}

/// Whether a failure of a repeated request tells that the first one was not done either: the node knew that it had not
/// seen the reference.
fn is_final(code: FailureCode) -> bool {
    matches!(code, FailureCode::Insufficient | FailureCode::Refused | FailureCode::HoldForgotten | FailureCode::Invalid)
}

fn something_else() -> ClientError {
    ClientError::Lost { reason: "the node answered with something else".into() }
}

/// The goods under a reference, so that the write can be asked for again.
fn named(goods: &Goods) -> Goods {
    let mut goods = goods.clone();
    if goods.reference.is_none() {
        goods.reference = Reference::new(&format!("client-{:032x}", crate::chance::random::<u128>())).ok();
    }
    goods
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn pause_before(attempt: u32) {
    if attempt > 0 {
        tokio::time::sleep(CLIENT_TRY_PAUSE * 2_u32.saturating_pow(attempt - 1)).await;
    }
}
