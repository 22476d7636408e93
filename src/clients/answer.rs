//! A request becomes calls of the store, and their results the answer (rules X3 to X6).

use std::time::Duration;

use quinn::SendStream;
use stockmesh_proto::limits::{CLIENT_PAGE_BYTES_TARGET, CLIENT_PAGE_MAX};
use stockmesh_proto::operation::{Operation, Outcome};
use stockmesh_proto::wire::client::{
    Answer, CommitHold, Done, Failure, FailureCode, Get, HoldInfo, HoldsPage, List, MemberInfo, MembersPage, NewHold,
    NewPrice, ProductInfo, ProductsPage, Receipt, ReleaseHold, Request, ResolvedInfo, Sale, Watch, Watching,
};
use stockmesh_proto::{InvalidInput, Location, Quantity, Reference, Sku};

use super::tell;
use crate::error::WriteError;
use crate::limits::{ASKING_TIME_DEFAULT, CLIENT_DEADLINE_MAX};
use crate::net::{FrameError, write_frame};
use crate::product::Product;
use crate::store::Store;
use crate::subscribe::{Changes, Filter};

/// The reference of a write, if it has one.
pub(super) fn reference(request: &Request) -> Option<&Reference> {
    match request {
        Request::Sell(Sale { reference, .. })
        | Request::Receive(Receipt { reference, .. })
        | Request::SetPrice(NewPrice { reference, .. })
        | Request::Hold(NewHold { reference, .. }) => reference.as_ref(),
        _ => None,
    }
}

/// Sends one answer.
pub(super) async fn send(stream: &mut SendStream, answer: &Answer) -> Result<(), FrameError> {
    let frame = answer.encode().or_else(|error| {
        let failure = Failure::new(FailureCode::TooLong, format!("{error}: ask for less"));
        Answer::Failed(Box::new(failure)).encode()
    });
    write_frame(stream, &frame.map_err(FrameError::Encode)?).await
}

/// Does what is answered at once.
pub(super) async fn at_once(request: Request, store: &Store) -> Result<Answer, Failure> {
    match request {
        Request::Hello(_) => Ok(Answer::Welcome(tell::welcome(store))),
        Request::Status(_) => Ok(Answer::StatusIs(Box::new(tell::status(store.status(), &store.members())))),
        Request::Sell(sale) => sell(sale, store).await,
        Request::Receive(receipt) => receive(receipt, store).await,
        Request::SetPrice(NewPrice { sku, price, reference }) => {
            product(store, &sku, None, reference.as_ref())?.set_price(price.0).await.map_err(|e| tell::failure(&e))?;
            Ok(Answer::Done(Done {}))
        }
        Request::Hold(hold) => set_aside(hold, store).await,
        Request::CommitHold(CommitHold { id, units }) => {
            let units = units.map(Quantity::new).transpose().map_err(|error| invalid(&error))?;
            resolve(Operation::CommitHold { id: id.0, units }, store).await
        }
        Request::ReleaseHold(ReleaseHold { id }) => resolve(Operation::ReleaseHold { id: id.0 }, store).await,
        _ => Err(Failure::new(FailureCode::Unsupported, "the request is not answered like this; nothing was changed")),
    }
}

fn invalid(error: &InvalidInput) -> Failure {
    Failure::new(FailureCode::Invalid, error)
}

fn product(store: &Store, sku: &Sku, at: Option<&Location>, reference: Option<&Reference>) -> Result<Product, Failure> {
    let make = || -> Result<Product, InvalidInput> {
        let product = store.product(sku.as_str())?;
        let product = at.map_or_else(|| Ok(product.clone()), |at| product.at(at.as_str()))?;
        reference.map_or_else(|| Ok(product.clone()), |reference| product.reference(reference.as_str()))
    };
    make().map_err(|error| invalid(&error))
}

fn deadline(wanted_ms: Option<u64>) -> Duration {
    wanted_ms.map_or(ASKING_TIME_DEFAULT, Duration::from_millis).min(CLIENT_DEADLINE_MAX)
}

async fn sell(sale: Sale, store: &Store) -> Result<Answer, Failure> {
    let Sale { sku, at, units, reference, deadline_ms } = sale;
    let product = product(store, &sku, at.as_ref(), reference.as_ref())?;
    product.sell(units).deadline(deadline(deadline_ms)).await.map_err(|error| tell::failure(&error))?;
    Ok(Answer::Done(Done {}))
}

async fn receive(receipt: Receipt, store: &Store) -> Result<Answer, Failure> {
    let Receipt { sku, at, units, reference } = receipt;
    let product = product(store, &sku, at.as_ref(), reference.as_ref())?;
    product.receive(units).await.map_err(|error| tell::failure(&error))?;
    Ok(Answer::Done(Done {}))
}

async fn set_aside(hold: NewHold, store: &Store) -> Result<Answer, Failure> {
    let NewHold { sku, at, units, ttl_ms, reference, deadline_ms } = hold;
    let product = product(store, &sku, at.as_ref(), reference.as_ref())?;
    let holding = product.hold(units, Duration::from_millis(ttl_ms)).deadline(deadline(deadline_ms));
    let hold = holding.await.map_err(|error| tell::failure(&error))?;
    Ok(Answer::Held(tell::hold(&hold)))
}

/// By its id and not by a handle, so that the committer says why not.
async fn resolve(operation: Operation, store: &Store) -> Result<Answer, Failure> {
    let outcomes = store.replica().write(vec![operation].into()).await.map_err(|error| tell::failure(&error))?;
    match outcomes.first() {
        Some(Outcome::Resolved { sold, released }) => {
            Ok(Answer::Resolved(ResolvedInfo { sold: *sold, released: *released }))
        }
        // Nothing else comes of it.
        _ => Err(tell::failure(&WriteError::Closed)),
    }
}

/// The products that were named, in pages.
pub(super) async fn get(wanted: Get, store: Store, stream: &mut SendStream) -> Result<(), FrameError> {
    let mut unknown = Vec::new();
    let mut found = Vec::new();
    for sku in wanted.skus {
        match store.get(sku.as_str()) {
            Ok(view) => found.push(view),
            Err(_) => unknown.push(sku),
        }
    }
    // What follows may wait for the client, which must not keep the store open.
    drop(store);
    let products = found.into_iter().map(|view| tell::product(&view, wanted.at.as_ref()));
    send_products(products, unknown, stream).await
}

/// All products with a prefix, in pages.
pub(super) async fn list(wanted: List, store: Store, stream: &mut SendStream) -> Result<(), FrameError> {
    let query = store.query().prefix(wanted.prefix.as_str());
    drop(store);
    let products = query.iter().map(|view| tell::product(&view, wanted.at.as_ref()));
    send_products(products, Vec::new(), stream).await
}

async fn send_products(
    products: impl Iterator<Item = ProductInfo>,
    unknown: Vec<Sku>,
    stream: &mut SendStream,
) -> Result<(), FrameError> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for product in products {
        bytes += tell::product_bytes(&product);
        page.push(product);
        if page.len() == CLIENT_PAGE_MAX || bytes >= CLIENT_PAGE_BYTES_TARGET {
            let products = std::mem::take(&mut page);
            bytes = 0;
            send(stream, &Answer::Products(ProductsPage { products, unknown: Vec::new(), last: false })).await?;
            // Reading many products takes time; others have work too.
            tokio::task::yield_now().await;
        }
    }
    send(stream, &Answer::Products(ProductsPage { products: page, unknown, last: true })).await
}

/// All members, in pages.
pub(super) async fn members(store: Store, stream: &mut SendStream) -> Result<(), FrameError> {
    let members = store.members();
    drop(store);
    let page = |members, last| Answer::MembersAre(MembersPage { members, last });
    let bytes = |member: &MemberInfo| 1024 + 600 * member.labels.len();
    send_pages(members.into_iter().map(tell::member), bytes, page, stream).await
}

/// All holds that are not resolved, in pages.
pub(super) async fn holds(store: Store, stream: &mut SendStream) -> Result<(), FrameError> {
    let holds = store.holds();
    drop(store);
    let page = |holds, last| Answer::HoldsAre(HoldsPage { holds, last });
    send_pages(holds.iter().map(tell::hold), |_: &HoldInfo| 640, page, stream).await
}

async fn send_pages<T>(
    entries: impl Iterator<Item = T>,
    bytes_of: impl Fn(&T) -> usize,
    answer: impl Fn(Vec<T>, bool) -> Answer,
    stream: &mut SendStream,
) -> Result<(), FrameError> {
    let (mut page, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        bytes += bytes_of(&entry);
        page.push(entry);
        if page.len() == CLIENT_PAGE_MAX || bytes >= CLIENT_PAGE_BYTES_TARGET {
            bytes = 0;
            send(stream, &answer(std::mem::take(&mut page), false)).await?;
        }
    }
    send(stream, &answer(page, true)).await
}

/// Subscribes. The changes are told by [`tell_changes`].
pub(super) fn watch(wanted: &Watch, store: &Store) -> Result<Changes, Failure> {
    let mut filter = Filter::prefix(wanted.prefix.as_str());
    if let Some(below) = wanted.below {
        filter = filter.below(below.0);
    }
    if let Some(at) = &wanted.at {
        filter = filter.at(at.as_str()).map_err(|error| invalid(&error))?;
    }
    if wanted.events_only {
        filter = filter.events_only();
    }
    Ok(store.subscribe(filter))
}

/// Tells changes until the store is closed.
pub(super) async fn tell_changes(
    mut changes: Changes,
    wanted: Watch,
    stream: &mut SendStream,
) -> Result<(), FrameError> {
    send(stream, &Answer::Watching(Watching {})).await?;
    while let Some(change) = changes.next().await {
        send(stream, &Answer::Change(Box::new(tell::change(change, wanted.at.as_ref())))).await?;
    }
    let closed = Failure::new(FailureCode::Closed, "the node closes; no further changes are told");
    send(stream, &Answer::Failed(Box::new(closed))).await
}
