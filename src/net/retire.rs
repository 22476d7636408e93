//! Fencing a replica that will never return: no member takes more of its writes, and the heir learns what each of them
//! knew (rules Q1 to Q3, Q5).

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use quinn::SendStream;
use stockmesh_proto::limits::OPEN_BYTES_MAX;
use stockmesh_proto::product::Product;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::{Fence, Fenced, Message, NotRetired, Retire, Retired};
use stockmesh_proto::{ReplicaId, Shard};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::fencing::{Attempt, Fencing, is_down};
use super::frames::{FrameError, OwnStream, read_message, write_message};
use super::link::Link;
use super::members::MemberState;
use super::pull::reconcile;
use super::retiring::RetiringTurn;
use super::session::SyncError;
use super::shared::Shared;
use super::wishes::{Asker, Errand, RetireRequest};
use crate::commit::FenceOutcome;
use crate::error::RetireError;
use crate::limits::{REPLY_TIME_MAX, RETIRE_LOOK_EVERY};
use crate::retirements::{HeirClaim, last_heir, living_rival, named_heir};

/// Answers a heir that asks to fence a replica. One that is linked here is alive, and is not fenced.
pub(super) async fn receive_fence(
    fence: Fence,
    send: SendStream,
    link: &Arc<Link>,
    shared: &Shared,
) -> Result<(), SyncError> {
    let Fence { retired, heir, is_trial, gave_way } = fence;
    if link.read_only {
        return Err(FrameError::Violation("a read-only member asks to fence a replica".into()).into());
    }
    if heir != link.replica {
        return Err(FrameError::Violation("a fence names another heir than who asks for it".into()).into());
    }
    if !link.may_be_answered() {
        return answer(Message::Fenced(Fenced { heir: None, is_alive: false }), send).await;
    }
    // Of a replica that nobody here has heard of there is nothing to fence; and each costs a row for good.
    if shared.members.get(retired).is_none() && !knows(retired, shared) {
        return answer(Message::Fenced(Fenced { heir: Some(heir), is_alive: false }), send).await;
    }
    let own = shared.table.own();
    let claim = HeirClaim::Asks { heir, gave_way };
    let (is_fenced, would_name) =
        shared.committer.retired(|known| (known.contains_key(&retired), named_heir(known, retired, &claim, own)));
    let is_alive = !is_fenced && (retired == own || shared.registry.link(retired).is_some());
    let heir = if is_alive {
        None
    } else if is_trial {
        Some(would_name)
    } else {
        match shared.committer.fence(retired, claim).await? {
            FenceOutcome::Fenced(heir) => Some(heir),
            FenceOutcome::Own | FenceOutcome::Full => None,
        }
    };
    answer(Message::Fenced(Fenced { heir, is_alive }), send).await
}

/// Whether any write of a replica has reached this node, or one that names it.
fn knows(replica: ReplicaId, shared: &Shared) -> bool {
    let is_named = |state: &Shard| {
        state.version().get(replica) > 0
            || state.range(Bound::Unbounded).any(|product| !product.estate(replica).is_empty())
    };
    shared.table.count().indexes().any(|shard| shared.table.read(shard, is_named) == Some(true))
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
    let refused = |reason: &str| {
        let reason = reason.to_owned();
        let refused = NotRetired { unreachable: Vec::new(), alive_at: None, other_heir: None, reason };
        Retired { places: 0, units: 0, held: 0, refused: Some(refused) }
    };
    if shared.leaving.load(Ordering::SeqCst) {
        return answer(Message::Retired(refused("the heir leaves")), send).await;
    }
    let (reply, answered) = oneshot::channel();
    let asker = Asker { replica: link.replica, link: Arc::downgrade(link) };
    let queued = shared.retire_requests.try_send(RetireRequest { asker, wanted, reply });
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

/// How long to wait before an heir is asked again whose link ended, and how much time it must have then.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Asks another node to retire a replica, as its heir. In a cluster of few links it may not be linked, and its link may end
/// before it has asked all others: one is made for as long as it takes, and it is asked again, which goes on where it was.
pub(super) async fn retire_at(
    heir: ReplicaId,
    mut wanted: Retire,
    until: Instant,
    shared: &Shared,
) -> Result<Retired, RetireError> {
    let failed = |why: &str| RetireError::Heir { heir, why: why.to_owned() };
    let (mut why, mut was_asked) = ("it is not linked with this node".to_owned(), false);
    loop {
        if shared.committer.is_closed() {
            return Err(RetireError::Stopped);
        }
        if let Some(link) = shared.registry.link(heir).filter(|link| link.is_open()) {
            let left = until.saturating_duration_since(Instant::now());
            // In less it would take all whom it does not come to for unreachable.
            if was_asked && left < AGAIN_AFTER {
                return Err(failed(&why));
            }
            was_asked = true;
            wanted.deadline_ms = wanted.deadline_ms.min(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            match ask_heir(&link, wanted.clone(), until + REPLY_TIME_MAX, shared).await {
                Some(Ok(Some(Message::Retired(retired)))) => return Ok(retired),
                Some(Ok(_)) => return Err(failed("it answered with something else")),
                Some(Err(error)) if link.is_open() => return Err(failed(&error.to_string())),
                Some(Err(error)) => {
                    why = error.to_string();
                    // However fast links come and go.
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
                None => return Err(failed("it did not answer in time")),
            }
        } else if !may_link(heir, shared) {
            return Err(failed(&why));
        }
        shared.want_link(heir, Errand::Retirement);
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(until) => return Err(failed(&why)),
            () = shared.until_changed() => {}
            () = tokio::time::sleep(RETIRE_LOOK_EVERY) => {}
        }
    }
}

/// Whether a link with a member may come about.
fn may_link(member: ReplicaId, shared: &Shared) -> bool {
    let is_there = shared.members.get(member).is_some_and(|member| member.state != MemberState::Left);
    shared.follows_members && is_there && !shared.committer.retired(|known| known.contains_key(&member))
}

/// Nothing if no answer came in time. The link is kept meanwhile.
async fn ask_heir(
    link: &Link,
    wanted: Retire,
    until: Instant,
    shared: &Shared,
) -> Option<Result<Option<Message>, SyncError>> {
    let asking = ask(link, Message::Retire(wanted));
    tokio::pin!(asking);
    loop {
        shared.want_link(link.replica, Errand::Retirement);
        tokio::select! {
            biased;
            answer = &mut asking => return Some(answer),
            () = tokio::time::sleep_until(until) => return None,
            () = tokio::time::sleep(RETIRE_LOOK_EVERY) => {}
        }
    }
}

async fn ask(link: &Link, message: Message) -> Result<Option<Message>, SyncError> {
    if !link.knows_retirement {
        return Err(FrameError::Ended("the peer's software does not know how to retire a replica".into()).into());
    }
    let mut stream = OwnStream::open(&link.connection).await?;
    write_message(&mut stream.send, &message).await?;
    stream.finish();
    Ok(read_message(&mut stream.receive, OPEN_BYTES_MAX, None).await?)
}

/// Fences a replica everywhere, unless another call here has done so while this one waited for its end. What is returned
/// must live until the fence is closed.
pub(super) async fn fence_once(
    retired: ReplicaId,
    without: &BTreeSet<ReplicaId>,
    until: Instant,
    shared: &Shared,
) -> Result<RetiringTurn, RetireError> {
    let heir = shared.table.own();
    let is_heir = || shared.committer.retired(|known| last_heir(retired, known)) == Some(heir);
    let was_heir = is_heir();
    let Ok(turn) = tokio::time::timeout_at(until, shared.retiring.turn(retired)).await else {
        let why = "another call is retiring it, and has not ended yet".into();
        return Err(RetireError::Heir { heir, why });
    };
    let fencing = Fencing { retired, without, heir, until, shared, gave_way: OnceLock::new() };
    // Whoever goes on for an heir that closed its fence knows all that this one knew.
    let is_fenced = || is_heir() && fencing.other_heir().is_some();
    if !is_fenced() && (was_heir || !is_heir()) {
        match fence_everywhere(&fencing).await {
            Err(RetireError::OtherHeir { .. }) if is_fenced() => {}
            fenced => fenced?,
        }
    }
    Ok(turn)
}

/// Fences a replica at all members, and pulls what each of them knew of it then. When it returns, nothing that it wrote
/// and that any of them knows is missing here, and none of them takes more of it.
async fn fence_everywhere(fencing: &Fencing<'_>) -> Result<(), RetireError> {
    let Fencing { retired, heir, shared, .. } = *fencing;
    ask_rival(fencing, true).await?;
    fencing.check()?;
    let fence = move |is_trial, gave_way| Fence { retired, heir, is_trial, gave_way };
    // First only asked: a replica that turns out to be alive, or a member that is missing, must not leave a fence behind.
    fencing.with_all(|link, gave_way| async move { ask_to_fence(&link, fence(true, gave_way)).await }).await?;
    ask_rival(fencing, false).await?;
    fence_here(fencing).await?;
    heed_slots(fencing).await?;
    let members = fencing
        .with_all(|link, gave_way| {
            let shared = shared.clone();
            async move {
                let fenced = ask_to_fence(&link, fence(false, gave_way)).await?;
                // What it learnt until it answered: what others tell it later comes from these too.
                if fenced == Attempt::Done { pull(&link, Instant::now(), &shared).await } else { Ok(fenced) }
            }
        })
        .await?;
    info!(%retired, members, "the replica is fenced at all members");
    Ok(())
}

/// If this node gave its word to another one that lives, that one is asked first: it alone can give the word back (rule Q1).
async fn ask_rival(fencing: &Fencing<'_>, is_trial: bool) -> Result<(), RetireError> {
    let Fencing { retired, heir, until, shared, .. } = *fencing;
    let Some(rival) = shared.committer.retired(|known| living_rival(known, retired, heir)) else { return Ok(()) };
    while Instant::now() < until {
        fencing.check_node()?;
        if let Some(link) = shared.registry.link(rival).filter(|link| link.knows_retirement && link.is_open()) {
            let asking = ask_to_fence(&link, Fence { retired, heir, is_trial, gave_way: Vec::new() });
            let Ok(asked) = tokio::time::timeout_at(until, asking).await else { break };
            match asked? {
                Attempt::Done => {
                    fencing.gave_way.get_or_init(|| rival);
                    return Ok(());
                }
                Attempt::Behind(other) => return Err(fencing.other(other)),
                Attempt::Refused => break,
                Attempt::Again => {}
            }
        } else if is_down(rival, shared) || !may_link(rival, shared) {
            break;
        }
        shared.want_link(rival, Errand::Retirement);
        tokio::time::sleep(RETIRE_LOOK_EVERY.min(until.saturating_duration_since(Instant::now()))).await;
    }
    Err(fencing.other(rival))
}

async fn fence_here(fencing: &Fencing<'_>) -> Result<(), RetireError> {
    let Fencing { retired, heir: own, shared, .. } = *fencing;
    let fenced = shared.committer.fence(retired, fencing.claim()).await;
    match fenced.map_err(|_| RetireError::Stopped)? {
        FenceOutcome::Fenced(heir) if heir == own => Ok(()),
        FenceOutcome::Fenced(heir) => Err(RetireError::OtherHeir { replica: retired, heir }),
        FenceOutcome::Own => Err(RetireError::Own(retired)),
        FenceOutcome::Full => Err(RetireError::TooMany),
    }
}

/// What slots showed before that others took over was for the one to heed to whom this node had given its word (rule Q1).
async fn heed_slots(fencing: &Fencing<'_>) -> Result<(), RetireError> {
    let Fencing { retired, heir: own, shared, .. } = *fencing;
    let mut heirs = BTreeSet::new();
    for shard in shared.table.count().indexes() {
        shared.table.read(shard, |state| {
            let slots = |product: &Product| {
                let slots = product.inheritances().iter().filter(|slot| slot.taken.is_heir && slot.from == retired);
                slots.map(|slot| slot.to).filter(|heir| *heir != own).collect::<Vec<_>>()
            };
            heirs.extend(state.range(Bound::Unbounded).flat_map(|entry| slots(&entry.product)));
        });
        tokio::task::yield_now().await;
    }
    for heir in heirs {
        shared.committer.fence(retired, HeirClaim::TookOver { heir }).await.map_err(|_| RetireError::Stopped)?;
    }
    Ok(())
}

/// Asks a member to fence.
async fn ask_to_fence(link: &Link, fence: Fence) -> Result<Attempt, RetireError> {
    let member = link.replica;
    match ask(link, Message::Fence(fence.clone())).await {
        Ok(Some(Message::Fenced(Fenced { is_alive: true, .. }))) => {
            Err(RetireError::Alive { replica: fence.retired, at: member })
        }
        Ok(Some(Message::Fenced(Fenced { heir: Some(heir), .. }))) if heir == fence.heir => Ok(Attempt::Done),
        Ok(Some(Message::Fenced(Fenced { heir: Some(heir), .. }))) => {
            // It does not give way, or the member does not know how one does.
            if heir == member || fence.gave_way.contains(&heir) {
                return Err(RetireError::OtherHeir { replica: fence.retired, heir });
            }
            Ok(Attempt::Behind(heir))
        }
        Ok(Some(answer)) => {
            warn!(%member, ?answer, "a member does not fence a replica");
            Ok(Attempt::Refused)
        }
        // The link may have ended meanwhile, and come back.
        Ok(None) => Ok(Attempt::Again),
        Err(error) => {
            debug!(%member, %error, "a member did not answer whether it fences a replica");
            Ok(Attempt::Again)
        }
    }
}

/// Reconciles with a member until all is here that it held at `since`.
async fn pull(link: &Arc<Link>, since: Instant, shared: &Shared) -> Result<Attempt, RetireError> {
    while link.is_open() {
        link.await_reconciliation();
        if let Err(error) = reconcile(link, shared).await {
            debug!(member = %link.replica, %error, "a reconciliation before a replica is retired did not end");
        }
        if link.pulled.lock().is_some_and(|begun| begun >= since) {
            return Ok(Attempt::Done);
        }
        // Also where a price from a clock that is ahead keeps a shard from being taken for now.
        tokio::time::sleep(RETIRE_LOOK_EVERY).await;
    }
    Ok(Attempt::Again)
}
