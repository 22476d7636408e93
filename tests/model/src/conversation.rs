//! Reconciliations between two replicas: one message at a time, so that anything can happen in between, or whole.

use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};

use stockmesh_proto::reconcile::{Agreement, Effect, Session, Settings, StateView};
use stockmesh_proto::wire::{Message, Part};

use crate::check::Fault;
use crate::replica::{NOW_MS, Replica, SHARD, shards};

const OPENER: usize = 0;
const REPLIER: usize = 1;

fn settings(chunk_bytes_target: usize) -> Settings {
    Settings { shards: shards(), drift_ms_max: u64::MAX, chunk_bytes_target }
}

/// Two sessions and what is on its way between them. A stream keeps the order, and loses nothing but its end.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    /// Which replicas: the one that opened, and the other.
    pub(crate) parties: [usize; 2],
    sessions: [Session; 2],
    inboxes: [VecDeque<Message>; 2],
    digest: u64,
}

impl Conversation {
    /// Chunks hold one product each, so that a shard's delta has parts that can be lost. A side that believes to have agreed on
    /// what it holds now summarises nothing at once, and is asked: rightly or wrongly, it must cost no more than that.
    pub(crate) fn open(parties: [usize; 2], opener: &Replica, believes_agreed: bool) -> Self {
        let agreement = believes_agreed.then(|| Agreement::of(&opener.tree(), shards()));
        let sessions = [Session::open(settings(0), opener, agreement.as_ref()), Session::accept(settings(0))];
        Self { parties, sessions, inboxes: Default::default(), digest: 0 }.digested()
    }

    /// The two sessions as one number: their fields are ordered, so what is printed of them names them.
    fn digested(mut self) -> Self {
        struct Sink(DefaultHasher);
        impl fmt::Write for Sink {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.0.write(text.as_bytes());
                Ok(())
            }
        }
        let mut sink = Sink(DefaultHasher::new());
        write!(sink, "{:?}{:?}{:?}", self.parties, self.sessions, self.inboxes).unwrap();
        self.digest = sink.0.finish();
        self
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn is_over(&self) -> bool {
        self.sessions.iter().all(Session::is_finished) && self.inboxes.iter().all(VecDeque::is_empty)
    }

    /// The conversation after a side sent its next message; `None` if it has none.
    pub(crate) fn sent(&self, side: usize, replica: &Replica) -> Option<Self> {
        let mut next = self.clone();
        let message = next.sessions[side].poll_transmit(replica)?;
        next.inboxes[1 - side].push_back(message);
        Some(next.digested())
    }

    pub(crate) fn has_mail(&self, side: usize) -> bool {
        !self.inboxes[side].is_empty()
    }

    /// The next message to a side, if it is a chunk.
    pub(crate) fn next_part(&self, side: usize) -> Option<&Part> {
        match self.inboxes[side].front() {
            Some(Message::Part(part)) => Some(part),
            _ => None,
        }
    }

    /// The conversation after the next message came to a side, and what that side must carry out.
    pub(crate) fn delivered(&self, side: usize, replica: &Replica) -> Result<(Self, Vec<Effect>), Fault> {
        let mut next = self.clone();
        let message = next.inboxes[side].pop_front().ok_or_else(|| Fault::new("model", "there is no message"))?;
        let effects = next.sessions[side].handle(message, replica, NOW_MS);
        let effects = effects.map_err(|error| Fault::new("R", format!("an honest message is refused: {error}")))?;
        Ok((next.digested(), effects))
    }
}

impl Hash for Conversation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl PartialEq for Conversation {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

/// Runs a reconciliation from its beginning to its end. Returns whether the shard was in doubt on the way.
pub(crate) fn reconcile(opener: &mut Replica, replier: &mut Replica) -> Result<bool, Fault> {
    let settings = settings(1 << 16);
    let mut sessions = [Session::open(settings, opener, None), Session::accept(settings)];
    let mut is_in_doubt = false;
    while !sessions.iter().all(Session::is_finished) {
        let mut has_moved = false;
        for side in [OPENER, REPLIER] {
            let (from, to) = if side == OPENER { (&*opener, &mut *replier) } else { (&*replier, &mut *opener) };
            while let Some(message) = sessions[side].poll_transmit(from) {
                has_moved = true;
                let effects = sessions[1 - side].handle(message, to, NOW_MS);
                let effects = effects.map_err(|error| Fault::new("R", format!("a session breaks: {error}")))?;
                is_in_doubt |= to.carry_out(effects)?;
            }
        }
        if !has_moved {
            return Err(Fault::new("R", "a session is stuck"));
        }
    }
    Ok(is_in_doubt)
}

/// All links are back: the replicas reconcile along a line and back, and must then be equal, slots and vectors. Messages on
/// their way are lost.
///
/// If nobody looks at what happens on the way, all that counts is how they end.
pub(crate) fn heal(replicas: &mut [Replica], is_watched: bool) -> Result<(), Fault> {
    let forth = 1..replicas.len();
    for right in forth.clone().chain(forth.rev().skip(1)) {
        let (left, rest) = replicas.split_at_mut(right);
        if let (Some(left), Some(right)) = (left.last_mut(), rest.first_mut()) {
            reconcile(left, right)?;
            if is_watched && left.shard.fingerprint() != right.shard.fingerprint() {
                return Err(Fault::new("converged", format!("{} and {} reconciled and differ", left.id, right.id)));
            }
        }
    }
    for pair in replicas.windows(2) {
        if !pair[0].is_equal(&pair[1]) {
            let text = format!("{} and {} stay different in shard {SHARD}", pair[0].id, pair[1].id);
            return Err(Fault::new("converged", text));
        }
    }
    if is_watched { replicas.iter().try_for_each(Replica::check_repaired) } else { Ok(()) }
}
