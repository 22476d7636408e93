//! One link's life: its tasks from the hello to the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use metrics::{counter, gauge};
use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream};
use stockmesh_proto::ReplicaId;
use stockmesh_proto::limits::TELL_BYTES_MAX;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::{FrameKind, Message, Standing};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tracing::{Instrument, info, info_span};

use super::bindings::NodeKey;
use super::certificate::CertificateFingerprint;
use super::exchange::answer;
use super::frames::{FrameError, read_metered, write_message};
use super::handshake::{
    Greeting, HandshakeError, knows_membership, knows_messages, knows_pulls, knows_retirement, knows_rights,
    knows_surplus,
};
use super::identity::Identity;
use super::link::{Allowance, Link, PushFrame};
use super::membership::{answer_list, take_datagrams};
use super::messages;
use super::meter::{Meter, Opened, Pace};
use super::push::{receive_pushes, send_pushes};
use super::refusal::{CloseCode, NEW_INCARNATION, closed_with};
use super::session::{SyncError, respond};
use super::shared::Shared;
use super::trust::{may_take_ids, retired, review, rotated_lately};
use super::verdict::{judge, punish, shut_out};
use super::{hand_over, retire};
use crate::limits::{
    ASKS_MAX, ASKS_PER_SECOND_MAX, DATAGRAMS_PER_SECOND_MAX, FRAME_TIME_MAX, LINK_DRAIN_TIME, LISTS_PER_SECOND_MAX,
    MESSAGES_AT_ONCE_MAX, MESSAGES_PER_SECOND_MAX, PEER_UNMERGED_KIB_MAX, PUSH_QUEUE_MAX, PUSH_STREAMS_MAX,
    SESSIONS_MAX,
};
use crate::witness::Witness;

/// A link as it is at first, and the queue of what is pushed over it.
fn link_of(
    connection: Connection,
    greeting: Greeting,
    (dialled_by, identity): (ReplicaId, Identity),
    shared: &Shared,
) -> Result<(Arc<Link>, mpsc::Receiver<PushFrame>), HandshakeError> {
    let Greeting { theirs: hello, told } = greeting;
    let chain = Identity::chain_of_peer(&connection);
    let Some(certificate) = chain.first() else {
        return Err(HandshakeError::new("the peer has no certificate"));
    };
    let certified = identity.certified(&chain).map_err(|error| HandshakeError::new(error.to_string()))?;
    let fingerprint = CertificateFingerprint::of_der(certificate);
    let (replica, address) = (hello.replica, connection.remote_address());
    let witness = Witness { replica, address, certificate: fingerprint, node: certified.node.clone() };
    let (pushes, push_queue) = mpsc::channel(PUSH_QUEUE_MAX);
    let here_ms = i128::from(shared.wall.now_ms());
    let skew_ms = i64::try_from(i128::from(hello.clock_ms) - here_ms).unwrap_or(i64::MAX);
    let link = Link {
        since: Instant::now(),
        replica,
        told,
        read_only: certified.read_only,
        node: match certified.node {
            Some(name) => NodeKey::Name(name),
            None if identity.uses_raw_keys() => NodeKey::RawKey(fingerprint),
            None => NodeKey::Unknown,
        },
        witness: Arc::new(witness),
        meter: Meter::new(shared.peer_limits, Instant::now()),
        knows_rights: knows_rights(&hello) && !certified.read_only,
        knows_messages: knows_messages(&hello),
        knows_retirement: knows_retirement(&hello),
        knows_pulls: knows_pulls(&hello),
        knows_surplus: knows_surplus(&hello),
        is_temporary: AtomicBool::new(false),
        knows_membership: knows_membership(&hello),
        observed: hello.observed,
        datagrams: Mutex::new(Allowance::full(DATAGRAMS_PER_SECOND_MAX)),
        lists: Mutex::new(Allowance::full(LISTS_PER_SECOND_MAX)),
        asks: Mutex::new(Allowance::full(ASKS_PER_SECOND_MAX)),
        unmerged: Arc::new(Semaphore::new(usize::try_from(PEER_UNMERGED_KIB_MAX).unwrap_or(usize::MAX))),
        telling: Semaphore::new(MESSAGES_AT_ONCE_MAX),
        messages: Mutex::new(Allowance::full(MESSAGES_PER_SECOND_MAX)),
        location: hello.location,
        address,
        fingerprint,
        chain,
        identity,
        connection,
        dialled_by,
        skew_ms,
        pushes,
        push_bytes: AtomicUsize::new(0),
        reconciling: tokio::sync::Mutex::new(()),
        wanted: AtomicBool::new(true),
        awaited: AtomicBool::new(false),
        wanted_again: AtomicBool::new(false),
        agreement: Mutex::new(None),
        confirmed_group: AtomicU64::new(0),
        confirmed_writes: AtomicU64::new(0),
        last_asked: Mutex::new(None),
        last_reconciled: Mutex::new(None),
        pulled: Mutex::new(None),
    };
    Ok((Arc::new(link), push_queue))
}

/// Makes a link of a connection whose hello was accepted, and starts its tasks. It was made with this identity.
///
/// # Errors
/// If the replica is linked with another certificate. The connection is closed then.
pub(super) fn establish(
    connection: Connection,
    greeting: Greeting,
    (dialled_by, identity): (ReplicaId, Identity),
    shared: &Shared,
) -> Result<Arc<Link>, HandshakeError> {
    let told = greeting.told;
    let (link, push_queue) = link_of(connection, greeting, (dialled_by, identity), shared)?;
    let admitted = shared.registry.admit(&link, |key| link.identity.is_pinned(key)).map_err(|refused| {
        link.close(CloseCode::IdTaken, &refused.to_string());
        HandshakeError::new(refused.to_string())
    });
    let superfluous = admitted?;
    info!(peer = %link.replica, location = %link.location, address = %link.address, skew_ms = link.skew_ms, "link up");
    if let Some(superfluous) = superfluous {
        shared.spawn(async move {
            tokio::time::sleep(LINK_DRAIN_TIME).await;
            superfluous.close(CloseCode::Duplicate, "another link between the two nodes is kept");
        });
    }
    // Looked at only now that the link is among those that are closed at a new incarnation or identity, so that one of
    // the two sees the other.
    if shared.table.own() != told {
        link.close(CloseCode::NewIncarnation, NEW_INCARNATION);
    }
    if let Some(reason) = retired(link.replica, shared) {
        link.close(CloseCode::Retired, &reason);
    }
    review(&link, shared);
    let span = info_span!("link", peer = %link.replica);
    shared.spawn(run(Arc::clone(&link), push_queue, shared.clone()).instrument(span));
    shared.note_peer_known();
    // The dialler reconciles at once; with both sides at it, the work would be done twice. But whoever catches up pulls,
    // and is left to it.
    if dialled_by != link.replica || (link.knows_pulls && shared.catch_up.is_catching_up()) {
        shared.want_reconciliation(link.replica);
    }
    Ok(link)
}

async fn run(link: Arc<Link>, push_queue: mpsc::Receiver<PushFrame>, shared: Shared) {
    gauge!("stockmesh_links").increment(1.0);
    let pushing = send_pushes(Arc::clone(&link), push_queue);
    tokio::select! {
        // None of them is ready before the link ends, so each is looked at whenever something happened. Membership comes
        // first: its datagrams are bounded, and should not wait for a peer's many streams.
        biased;
        _ = link.connection.closed() => {}
        // Also a link whose hello was under way when the node went offline, or that is draining.
        () = shared.until_offline() => link.close(CloseCode::Offline, "the node goes offline for now"),
        () = take_datagrams(&link, &shared) => {}
        () = accept_streams(&link, &shared) => {}
        () = accept_pushes(&link, &shared) => {}
        // Ends only with the link.
        () = async { pushing.await; link.connection.closed().await; } => {}
    }
    let ended = link.connection.close_reason();
    let reason = ended.as_ref().map(super::refusal::explain);
    // Whoever ends a link that it dialled itself may be dialled all the same.
    let is_declined = ended.is_some_and(|ended| closed_with(&ended, CloseCode::Surplus));
    if let Some(reason) = reason.clone().filter(|_| is_declined && link.dialled_by == link.told) {
        // Before the topology hears that the link is gone, and dials anew.
        shared.targets.declined(link.replica, link.address, reason);
    }
    shared.registry.remove(&link);
    gauge!("stockmesh_links").decrement(1.0);
    heed_close(&link.connection, link.told, &shared).await;
    info!(peer = %link.replica, reason = reason.as_deref().unwrap_or("ended"), "link down");
}

/// Takes a new replica id if the peer refused the link since another node is linked under the id that was told: two
/// directories with one id never write one history (rule I1), whichever of them is the copy. Not while the
/// other node may be this one under its former certificate (rule H3). Also if the id was retired (rule Q6).
///
/// Not at the word of a read-only member, which changes nothing anywhere (rule K2).
pub(super) async fn heed_close(connection: &Connection, told: ReplicaId, shared: &Shared) {
    if !may_take_ids(connection, shared) {
        return;
    }
    if connection.close_reason().is_some_and(|reason| closed_with(&reason, CloseCode::Retired)) {
        let _ = shared.committer.retired_here(told).await;
        return;
    }
    let is_refused = connection.close_reason().is_some_and(|reason| closed_with(&reason, CloseCode::IdTaken));
    if is_refused && !rotated_lately(shared) {
        let _ = shared.committer.id_taken(told).await;
    }
}

async fn accept_streams(link: &Arc<Link>, shared: &Shared) {
    let permits = Arc::new(Semaphore::new(SESSIONS_MAX + ASKS_MAX));
    let sessions = Arc::new(Semaphore::new(SESSIONS_MAX));
    // A stream is taken only when there is room for what it may bring; beyond that QUIC's limit on streams holds.
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let Ok((send, receive)) = link.connection.accept_bi().await else { return };
        let is_beside = permits.available_permits() + 1 < SESSIONS_MAX + ASKS_MAX;
        if !keep_pace(Opened::Stream, is_beside, link, shared).await {
            return;
        }
        let (link, shared_of_task, sessions) = (Arc::clone(link), shared.clone(), Arc::clone(&sessions));
        let task = async move {
            if let Err(error) = serve_stream(send, receive, &sessions, &link, &shared_of_task).await {
                let silent = matches!(error, SyncError::Frame(FrameError::Silent));
                let stalled = silent.then(|| "a stream was left silent".to_owned());
                judge(&error, stalled.or(error.violation()), &link, &shared_of_task);
            }
            drop(permit);
        };
        shared.spawn(task.in_current_span());
    }
}

/// Counts what the peer opened, and waits if it opens too much (rule K6). Returns whether to go on: not if it is over its
/// limits, since its link is closed then (rule K7).
async fn keep_pace(what: Opened, is_beside: bool, link: &Arc<Link>, shared: &Shared) -> bool {
    match link.meter.opened(what, is_beside, Instant::now()) {
        Pace::Free => true,
        Pace::From(from) => {
            counter!("stockmesh_streams_slowed_total").increment(1);
            tokio::time::sleep_until(from).await;
            true
        }
        Pace::Over(held) => {
            let kind = if what == Opened::Stream { "streams" } else { "reconciliations" };
            shut_out(kind, held, link, shared);
            false
        }
    }
}

/// Serves what a peer opened a stream for: its first frame tells.
async fn serve_stream(
    send: SendStream,
    mut receive: RecvStream,
    sessions: &Semaphore,
    link: &Arc<Link>,
    shared: &Shared,
) -> Result<(), SyncError> {
    let first = read_metered(&mut receive, TELL_BYTES_MAX, Some(FRAME_TIME_MAX), &link.meter).await?;
    if let Some(first) = first.as_ref().filter(|first| link.read_only && !may_come_of_read_only(first.kind())) {
        let reason = format!("a read-only member sent a frame of kind {:?}", first.kind());
        return Err(FrameError::Violation(reason).into());
    }
    match first {
        Some(open @ (Message::Open(_) | Message::Pull(_))) => {
            // Reconciliations wait for each other; questions for rights do not wait for them.
            let is_beside = sessions.available_permits() < SESSIONS_MAX;
            let _permit = sessions.acquire().await;
            if !keep_pace(Opened::Session, is_beside, link, shared).await {
                return Ok(());
            }
            respond(open, send, receive, link, shared).await.map(|_| ())
        }
        Some(Message::Survey) => stand(send, shared).await,
        Some(Message::Ask(ask)) => answer(ask, send, link, shared).await,
        Some(Message::Tell(bytes)) => messages::receive(bytes, send, link, shared).await,
        Some(Message::Members(question)) => answer_list(&question, (send, receive), link, shared).await,
        Some(Message::Ping) => messages::receive_ping(send, link).await,
        Some(Message::Fence(fence)) => retire::receive_fence(fence, send, link, shared).await,
        Some(Message::Take(take)) => hand_over::receive_take(take, send, link, shared).await,
        Some(Message::Retire(wanted)) => retire::receive_retire(wanted, send, link, shared).await,
        Some(_) => {
            Err(FrameError::Violation("a stream began with a frame that has no place at this point".into()).into())
        }
        None => Err(FrameError::Violation("a stream was opened and ended empty".into()).into()),
    }
}

/// Whether a read-only member may begin a stream with such a frame: only with what cannot change the state (rule K2). A
/// list of what may come, so that a kind that is added later does not come in unnoticed.
fn may_come_of_read_only(kind: FrameKind) -> bool {
    matches!(
        kind,
        FrameKind::Open
            | FrameKind::Pull
            | FrameKind::Survey
            | FrameKind::Ask
            | FrameKind::Tell
            | FrameKind::Ping
            | FrameKind::Members
    )
}

/// Tells a peer how this node stands (rule J1): once that is durable (rule R8).
async fn stand(mut send: SendStream, shared: &Shared) -> Result<(), SyncError> {
    let tree = shared.table.tree();
    let leaves = shared.table.count().indexes().map(|shard| tree.leaf(shard)).collect();
    shared.committer.barrier().await?;
    let standing = Standing { catching_up: shared.catch_up.is_busy(), leaves };
    write_message(&mut send, &Message::Standing(standing)).await?;
    let _ = send.finish();
    Ok(())
}

async fn accept_pushes(link: &Arc<Link>, shared: &Shared) {
    let permits = Arc::new(Semaphore::new(PUSH_STREAMS_MAX));
    while let Ok(stream) = link.connection.accept_uni().await {
        if link.read_only {
            punish("a read-only member sent a push", link, shared);
            return;
        }
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            punish("more streams of pushes than allowed", link, shared);
            return;
        };
        if !keep_pace(Opened::Stream, false, link, shared).await {
            return;
        }
        let (link, shared_of_task) = (Arc::clone(link), shared.clone());
        let task = async move {
            if let Err(error) = receive_pushes(stream, &link, &shared_of_task).await {
                judge(&error, error.violation(), &link, &shared_of_task);
            }
            drop(permit);
        };
        shared.spawn(task.in_current_span());
    }
}
