//! Retiring a replica that will never return.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use stockmesh_proto::limits::RETIRE_WITHOUT_MAX;
use stockmesh_proto::reconcile::StateView;
use stockmesh_proto::wire::{NotRetired, Retire as Wanted, Retired as Answer};
use stockmesh_proto::{InvalidInput, ReplicaId, Shard};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::commit::FenceOutcome;
use crate::error::{RetireError, WriteError};
use crate::inheriting::{TakenOver, take_over};
use crate::limits::{
    RETIRE_FOR_PEERS_MS_MAX, RETIRE_REQUESTS_MAX, RETIRE_REQUESTS_OF_PEER_MAX, RETIRE_TIME_DEFAULT, RETIRE_TIME_MAX,
    RETIRED_HOLD_TIME_DEFAULT,
};
use crate::net::{Asker, RetireRequest};
use crate::replica::Replica;
use crate::retirements::HeirClaim;
use crate::withdraw::check_ttl;

/// A replica that is to be retired, made by [`Store::retire`](crate::Store::retire). Nothing happens until it is awaited.
///
/// All members stop taking writes of it, and links with it; the heir learns what each of them knew of it; then the heir
/// takes over its rights and the units that it held. If the replica returns after all, it is told, goes on under a new
/// id, and counts what it alone had written.
#[derive(Debug)]
#[must_use = "nothing happens until it is awaited"]
pub struct Retire {
    replica: Arc<Replica>,
    retired: ReplicaId,
    heir: Option<ReplicaId>,
    without: BTreeSet<ReplicaId>,
    deadline: Duration,
    hold_time: Duration,
}

/// A replica that was retired, and what the heir took over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retired {
    /// Who was retired.
    pub replica: ReplicaId,
    /// Who took over for it.
    pub heir: ReplicaId,
    /// Places of which something was taken over by this call: products at locations.
    pub places: u64,
    /// Units of rights that came by this call.
    pub units: u64,
    /// Units among them that the replica held, and that the heir holds on: they are among its
    /// [`holds`](crate::Store::holds), one for each place, under new ids.
    pub held: u64,
}

impl Retire {
    pub(crate) fn new(replica: Arc<Replica>, retired: ReplicaId) -> Self {
        let (deadline, hold_time) = (RETIRE_TIME_DEFAULT, RETIRED_HOLD_TIME_DEFAULT);
        Self { replica, retired, heir: None, without: BTreeSet::new(), deadline, hold_time }
    }

    /// Who takes over: this node unless said. Another one is asked over a link that is made for it if there is none; if that
    /// is lost before the answer came, it is asked again, and what it took over before that is not counted in the answer.
    pub fn heir(mut self, heir: ReplicaId) -> Self {
        self.heir = Some(heir);
        self
    }

    /// Does not wait for these members, which cannot be reached: the explicit loss. What they alone know of the retired
    /// replica counts for nothing from then on: of its sales that only they have heard of the units will be sold again,
    /// of its receipts the units are missing, until the replica itself returns. Should one of them still take writes of
    /// the replica, the same is true of these. Those that are linked with the heir are not left out.
    pub fn without(mut self, members: impl IntoIterator<Item = ReplicaId>) -> Self {
        self.without.extend(members);
        self
    }

    /// How long to wait for members that cannot be reached, and for what they know: 30 s unless said, an hour at the most.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// How long units that the replica held stay held by the heir: a day unless said, 30 days at the most.
    pub fn hold_for(mut self, time: Duration) -> Self {
        self.hold_time = time;
        self
    }

    async fn run(self) -> Result<Retired, RetireError> {
        let Self { replica, retired, heir, without, deadline, hold_time } = self;
        let hold_ms = check_ttl(hold_time).map_err(WriteError::from)?;
        check(deadline, without.len()).map_err(WriteError::from)?;
        let own = replica.table.own();
        let wanted = Wanted {
            retired,
            without: without.into_iter().collect(),
            deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
            hold_ms,
        };
        match (heir.filter(|heir| *heir != own), &replica.node) {
            (None, _) => {
                let taken = retire_here(&replica, &wanted).await?;
                Ok(Retired { replica: retired, heir: own, places: taken.places, units: taken.units, held: taken.held })
            }
            (Some(heir), None) => Err(RetireError::Heir { heir, why: "this node has no network".into() }),
            (Some(heir), Some(node)) => {
                let answer = node.retire_at(heir, wanted, Instant::now() + deadline).await?;
                understood(answer, retired, heir)
            }
        }
    }
}

impl IntoFuture for Retire {
    type Output = Result<Retired, RetireError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

fn check(deadline: Duration, without: usize) -> Result<(), InvalidInput> {
    if deadline > RETIRE_TIME_MAX {
        return Err(InvalidInput::new("deadline", format!("{deadline:?}"), "must be at most an hour"));
    }
    if without > RETIRE_WITHOUT_MAX {
        let rule = format!("must be at most {RETIRE_WITHOUT_MAX} members");
        return Err(InvalidInput::new("without", without, rule));
    }
    Ok(())
}

/// Retires a replica with this one as its heir. Done again it goes on where it was.
async fn retire_here(replica: &Replica, wanted: &Wanted) -> Result<TakenOver, RetireError> {
    let Replica { table, committer, node, .. } = replica;
    let (own, retired) = (table.own(), wanted.retired);
    if retired == own {
        return Err(RetireError::Own(retired));
    }
    let has_written =
        table.count().indexes().any(|shard| table.read(shard, |state| state.version().get(retired)) > Some(0));
    let is_named = || {
        let names = |state: &Shard| state.range(Bound::Unbounded).any(|product| !product.estate(retired).is_empty());
        table.count().indexes().any(|shard| table.read(shard, names) == Some(true))
    };
    let is_member = node.as_ref().is_some_and(|node| node.is_member(retired));
    if !has_written && !is_member && !committer.former_replicas().contains(&retired) && !is_named() {
        return Err(RetireError::Unknown(retired));
    }
    let _turn = match node {
        Some(node) => {
            let until = Instant::now() + Duration::from_millis(wanted.deadline_ms).min(RETIRE_TIME_MAX);
            Some(node.fence(retired, &wanted.without.iter().copied().collect(), until).await?)
        }
        None => {
            let claim = HeirClaim::Asks { heir: own, gave_way: Vec::new() };
            noted_as_heir(committer.fence(retired, claim).await, retired, own)?;
            None
        }
    };
    // Before the fence is closed: whoever takes over in the background waits for this one.
    let taking_over = committer.taking_over();
    let _guard = taking_over.lock().await;
    noted_as_heir(committer.fence(retired, HeirClaim::Closes { heir: own }).await, retired, own)?;
    let taken = take_over(retired, Duration::from_millis(wanted.hold_ms), table, committer).await?;
    if table.own() != own {
        let why = "it took a new replica id meanwhile, and may not have taken over all; retire its former id, then call again";
        return Err(RetireError::Heir { heir: own, why: why.into() });
    }
    Ok(taken)
}

/// Whether this node is noted as the heir.
fn noted_as_heir<E>(noted: Result<FenceOutcome, E>, retired: ReplicaId, own: ReplicaId) -> Result<(), RetireError> {
    match noted {
        Ok(FenceOutcome::Fenced(heir)) if heir == own => Ok(()),
        Ok(FenceOutcome::Fenced(heir)) => Err(RetireError::OtherHeir { replica: retired, heir }),
        Ok(FenceOutcome::Own) => Err(RetireError::Own(retired)),
        Ok(FenceOutcome::Full) => Err(RetireError::TooMany),
        Err(_) => Err(RetireError::Stopped),
    }
}

/// What another node says of what it was asked to retire.
fn understood(answer: Answer, retired: ReplicaId, heir: ReplicaId) -> Result<Retired, RetireError> {
    let Answer { places, units, held, refused } = answer;
    match refused {
        None => Ok(Retired { replica: retired, heir, places, units, held }),
        Some(NotRetired { alive_at: Some(at), .. }) => Err(RetireError::Alive { replica: retired, at }),
        Some(NotRetired { other_heir: Some(heir), .. }) => Err(RetireError::OtherHeir { replica: retired, heir }),
        Some(NotRetired { unreachable, .. }) if !unreachable.is_empty() => {
            Err(RetireError::Unreachable { members: unreachable })
        }
        Some(NotRetired { reason, .. }) => Err(RetireError::Heir { heir, why: reason }),
    }
}

fn told(result: Result<TakenOver, RetireError>) -> Answer {
    let error = match result {
        Ok(TakenOver { places, units, held }) => return Answer { places, units, held, refused: None },
        Err(error) => error,
    };
    let reason = match &error {
        // The list stands beside it, and is long.
        RetireError::Unreachable { .. } => "members cannot be reached".to_owned(),
        // The asker says itself that it was this heir.
        RetireError::Heir { why, .. } => why.clone(),
        error => error.to_string(),
    };
    let (mut unreachable, mut alive_at, mut other_heir) = (Vec::new(), None, None);
    match error {
        RetireError::Unreachable { members } => unreachable = members,
        RetireError::Alive { at, .. } => alive_at = Some(at),
        RetireError::OtherHeir { heir, .. } => other_heir = Some(heir),
        _ => {}
    }
    unreachable.truncate(RETIRE_WITHOUT_MAX);
    Answer { places: 0, units: 0, held: 0, refused: Some(NotRetired { unreachable, alive_at, other_heir, reason }) }
}

/// Retires what peers ask this node to, as the heir, for as long as the store lives.
pub(crate) async fn serve_retirements(replica: Weak<Replica>) {
    let taken = replica.upgrade().and_then(|replica| replica.node.as_ref()?.retire_requests());
    let Some(mut requests) = taken else { return };
    let mut running: Vec<Running> = Vec::new();
    while let Some(RetireRequest { asker, wanted, reply }) = requests.recv().await {
        let Some(replica) = replica.upgrade() else { return };
        forget_repeated(&mut running);
        let of_peer = running.iter().filter(|other| other.asker.replica == asker.replica).count();
        if running.len() >= RETIRE_REQUESTS_MAX || of_peer >= RETIRE_REQUESTS_OF_PEER_MAX {
            let (heir, why) = (replica.table.own(), "it has too many such requests".to_owned());
            let _ = reply.send(told(Err(RetireError::Heir { heir, why })));
            continue;
        }
        // One that waits for its members keeps no other from being done; the asker may go away meanwhile.
        let retired = wanted.retired;
        let task = tokio::spawn(async move {
            let (mut reply, mut wanted) = (reply, wanted);
            // The store is kept for no longer, should it be dropped meanwhile.
            wanted.deadline_ms = wanted.deadline_ms.min(RETIRE_FOR_PEERS_MS_MAX);
            tokio::select! {
                biased;
                done = retire_here(&replica, &wanted) => drop(reply.send(told(done))),
                () = reply.closed() => {}
            }
        });
        running.push(Running { asker, retired, task });
    }
}

/// What a peer asked this node to retire.
struct Running {
    asker: Asker,
    retired: ReplicaId,
    task: JoinHandle<()>,
}

/// Leaves out what has ended, and what nobody waits for any more since its asker's link ended; but of an asker's wishes to retire
/// one replica the oldest goes on: the asker asks again, and then it is done.
fn forget_repeated(running: &mut Vec<Running>) {
    let mut seen = BTreeSet::new();
    running.retain(|Running { asker, retired, task }| {
        if task.is_finished() {
            return false;
        }
        let is_oldest = seen.insert((asker.replica, *retired));
        let goes_on = is_oldest || asker.waits();
        if !goes_on {
            task.abort();
        }
        goes_on
    });
}
