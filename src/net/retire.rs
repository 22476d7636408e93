//! Fencing a replica that will never return: no member takes more of its writes, and the heir learns what each of them
//! knew (rules Q1 to Q3, Q5).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use quinn::SendStream;
use stockmesh_proto::ReplicaId;
use stockmesh_proto::limits::OPEN_BYTES_MAX;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::{Fence, Fenced, Message, NotRetired, Retire, Retired};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::frames::{FrameError, read_message, write_message};
use super::link::Link;
use super::members::MemberState;
use super::pull::reconcile;
use super::session::SyncError;
use super::shared::Shared;
use super::wishes::RetireRequest;
use crate::commit::FenceOutcome;
use crate::error::RetireError;
use crate::limits::{REPLY_TIME_MAX, RETIRE_LOOK_EVERY};
use crate::retirements::Retirement;

/// Answers a heir that asks to fence a replica. One that is linked here is alive, and is not fenced.
pub(super) async fn receive_fence(
    fence: Fence,
    send: SendStream,
    link: &Arc<Link>,
    shared: &Shared,
) -> Result<(), SyncError> {
    let Fence { retired, heir, is_trial } = fence;
    if link.read_only {
        return Err(FrameError::Violation("a read-only member asks to fence a replica".into()).into());
    }
    if heir != link.replica {
        return Err(FrameError::Violation("a fence names another heir than who asks for it".into()).into());
    }
    // Of a replica that nobody here has heard of there is nothing to fence; and each costs a row for good.
    let is_known = shared.members.get(retired).is_some() || knows_writes(retired, shared);
    if !is_known || !link.may_be_answered() {
        return answer(Message::Fenced(Fenced { heir: Some(heir).filter(|_| !is_known), is_alive: false }), send).await;
    }
    let (known, heir_lives) = shared.committer.retired(|known| {
        let heir = known.get(&retired).map(|retirement| retirement.heir);
        (heir, heir.is_some_and(|heir| !known.contains_key(&heir)))
    });
    let is_alive = known.is_none() && (retired == shared.table.own() || shared.registry.link(retired).is_some());
    let heir = match known {
        _ if is_alive => None,
        _ if is_trial => Some(known.filter(|_| heir_lives).unwrap_or(heir)),
        _ => match shared.committer.fence(retired, Retirement { heir, is_closed: false }).await? {
            FenceOutcome::Fenced(heir) => Some(heir),
            FenceOutcome::Own | FenceOutcome::Full => None,
        },
    };
    answer(Message::Fenced(Fenced { heir, is_alive }), send).await
}

/// Whether any write of a replica has reached this node.
fn knows_writes(replica: ReplicaId, shared: &Shared) -> bool {
    let count = shared.table.count();
    count.indexes().any(|shard| shared.table.read(shard, |state| state.version().get(replica)) > Some(0))
}

/// Hands a peer's wish that this node retire a replica to whoever can.
pub(super) async fn receive_retire(
    wanted: Retire,
    send: SendStream,
    link: &Arc<Link>,
    shared: &Shared,
) -> Result<(), SyncError> {
    if link.read_only {
        return Err(FrameError::Violation("a read-only member asks to retire a replica".into()).into());
    }
    info!(peer = %link.replica, retired = %wanted.retired, "a peer asks this node to retire a replica");
    let (reply, answered) = oneshot::channel();
    let queued = shared.retire_requests.try_send(RetireRequest { wanted, reply });
    let refused = |reason: &str| {
        let reason = reason.to_owned();
        let refused = NotRetired { unreachable: Vec::new(), alive_at: None, other_heir: None, reason };
        Retired { places: 0, units: 0, held: 0, refused: Some(refused) }
    };
    let retired = match queued {
        Ok(()) => answered.await.unwrap_or_else(|_| refused("the heir closes")),
        Err(_) => refused("the heir has too many such requests"),
    };
    answer(Message::Retired(retired), send).await
}

async fn answer(message: Message, mut send: SendStream) -> Result<(), SyncError> {
    write_message(&mut send, &message).await?;
    let _ = send.finish();
    Ok(())
}

/// Asks another node to retire a replica, as its heir.
pub(super) async fn retire_at(
    heir: ReplicaId,
    wanted: Retire,
    until: tokio::time::Instant,
    shared: &Shared,
) -> Result<Retired, RetireError> {
    let failed = |why: String| RetireError::Heir { heir, why };
    let link = shared.registry.link(heir).ok_or_else(|| failed("it is not linked with this node".into()))?;
    let asking = ask(&link, Message::Retire(wanted));
    match tokio::time::timeout_at(until + REPLY_TIME_MAX, asking).await {
        Ok(Ok(Some(Message::Retired(retired)))) => Ok(retired),
        Ok(Ok(_)) => Err(failed("it answered with something else".into())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed("it did not answer in time".into())),
    }
}

async fn ask(link: &Link, message: Message) -> Result<Option<Message>, SyncError> {
    if !link.knows_retirement {
        return Err(FrameError::Ended("the peer's software does not know how to retire a replica".into()).into());
    }
    let (mut send, mut receive) = link.connection.open_bi().await?;
    write_message(&mut send, &message).await?;
    let _ = send.finish();
    Ok(read_message(&mut receive, OPEN_BYTES_MAX, None).await?)
}

/// Who must be asked: all that are or may come back, but those that are left out on purpose.
fn concerned(retired: ReplicaId, without: &BTreeSet<ReplicaId>, shared: &Shared) -> BTreeSet<ReplicaId> {
    let members = shared.members.all().into_iter();
    let members = members.filter(|member| member.state != MemberState::Left && !member.read_only);
    let linked = shared.registry.links().into_iter().filter(|link| !link.read_only).map(|link| link.replica);
    let mut concerned: BTreeSet<ReplicaId> = members.map(|member| member.replica).chain(linked).collect();
    shared.committer.retired(|known| concerned.retain(|replica| !known.contains_key(replica)));
    let former = shared.committer.former_replicas();
    concerned.retain(|replica| *replica != retired && !without.contains(replica) && !former.contains(replica));
    concerned
}

/// Waits until there is a link to each of those concerned.
async fn link_all(
    retired: ReplicaId,
    without: &BTreeSet<ReplicaId>,
    until: tokio::time::Instant,
    shared: &Shared,
) -> Result<BTreeMap<ReplicaId, Arc<Link>>, RetireError> {
    loop {
        if shared.registry.link(retired).is_some() {
            return Err(RetireError::Alive { replica: retired, at: shared.table.own() });
        }
        let concerned = concerned(retired, without, shared);
        let links: BTreeMap<ReplicaId, Arc<Link>> = concerned
            .iter()
            .filter_map(|replica| Some((*replica, shared.registry.link(*replica)?)))
            .filter(|(_, link)| link.knows_retirement)
            .collect();
        if links.len() == concerned.len() {
            return Ok(links);
        }
        let missing: Vec<ReplicaId> = concerned.into_iter().filter(|replica| !links.contains_key(replica)).collect();
        if tokio::time::Instant::now() >= until {
            return Err(RetireError::Unreachable { members: missing });
        }
        missing.iter().for_each(|replica| shared.want_link(*replica));
        tokio::select! {
            () = shared.until_changed() => {}
            () = tokio::time::sleep(RETIRE_LOOK_EVERY) => {}
        }
    }
}

/// Fences a replica at all members, and pulls what each of them knew of it then. When it returns, nothing that it wrote
/// and that any of them knows is missing here, and none of them takes more of it.
pub(super) async fn fence_everywhere(
    retired: ReplicaId,
    without: &BTreeSet<ReplicaId>,
    until: tokio::time::Instant,
    shared: &Shared,
) -> Result<(), RetireError> {
    // First only asked: a replica that turns out to be alive, or a member that is missing, must not leave a fence behind.
    let links = link_all(retired, without, until, shared).await?;
    ask_all(&links, retired, true, until, shared).await?;
    fence_here(retired, false, shared).await?;
    ask_all(&links, retired, false, until, shared).await?;
    pull_all(&links, until, shared).await?;
    fence_here(retired, true, shared).await?;
    info!(%retired, members = links.len(), "the replica is fenced at all members");
    Ok(())
}

async fn fence_here(retired: ReplicaId, is_closed: bool, shared: &Shared) -> Result<(), RetireError> {
    let own = shared.table.own();
    let fenced = shared.committer.fence(retired, Retirement { heir: own, is_closed }).await;
    match fenced.map_err(|_| RetireError::Stopped)? {
        FenceOutcome::Fenced(heir) if heir == own => Ok(()),
        FenceOutcome::Fenced(heir) => Err(RetireError::OtherHeir { replica: retired, heir }),
        FenceOutcome::Own => Err(RetireError::Own(retired)),
        FenceOutcome::Full => Err(RetireError::TooMany),
    }
}

async fn ask_all(
    links: &BTreeMap<ReplicaId, Arc<Link>>,
    retired: ReplicaId,
    is_trial: bool,
    until: tokio::time::Instant,
    shared: &Shared,
) -> Result<(), RetireError> {
    let own = shared.table.own();
    let mut asking = JoinSet::new();
    for (replica, link) in links {
        let (replica, link) = (*replica, Arc::clone(link));
        let question = Message::Fence(Fence { retired, heir: own, is_trial });
        asking.spawn(async move { (replica, tokio::time::timeout_at(until, ask(&link, question)).await) });
    }
    let mut silent = Vec::new();
    while let Some(answered) = asking.join_next().await {
        let Ok((replica, answer)) = answered else { continue };
        match answer {
            Ok(Ok(Some(Message::Fenced(Fenced { is_alive: true, .. })))) => {
                return Err(RetireError::Alive { replica: retired, at: replica });
            }
            Ok(Ok(Some(Message::Fenced(Fenced { heir: Some(heir), .. })))) if heir == own => {}
            Ok(Ok(Some(Message::Fenced(Fenced { heir: Some(heir), .. })))) => {
                return Err(RetireError::OtherHeir { replica: retired, heir });
            }
            other => {
                warn!(member = %replica, answer = ?other.map(|answer| answer.map_err(|error| error.to_string())),
                    "a member did not fence a replica");
                silent.push(replica);
            }
        }
    }
    if silent.is_empty() { Ok(()) } else { Err(RetireError::Unreachable { members: silent }) }
}

/// Reconciles with each, so that this node holds all that they held when they were fenced.
async fn pull_all(
    links: &BTreeMap<ReplicaId, Arc<Link>>,
    until: tokio::time::Instant,
    shared: &Shared,
) -> Result<(), RetireError> {
    let fenced = Instant::now();
    let mut missing = Vec::new();
    for replica in links.keys() {
        if tokio::time::timeout_at(until, pull(*replica, fenced, shared)).await.is_err() {
            missing.push(*replica);
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(RetireError::Unreachable { members: missing }) }
}

/// Reconciles with a member until all is here that it held at `since`.
async fn pull(replica: ReplicaId, since: Instant, shared: &Shared) {
    loop {
        if let Some(link) = shared.registry.link(replica) {
            link.wanted.store(true, Ordering::SeqCst);
            if let Err(error) = reconcile(&link, shared).await {
                debug!(member = %replica, %error, "a reconciliation before a replica is retired did not end");
            }
            if link.pulled.lock().is_some_and(|begun| begun >= since) {
                return;
            }
        }
        // Also where a price from a clock that is ahead keeps a shard from being taken for now.
        tokio::time::sleep(RETIRE_LOOK_EVERY).await;
    }
}
