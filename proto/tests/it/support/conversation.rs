//! A reconciliation between two replicas, one message at a time, so that anything can happen between two messages.

use std::collections::VecDeque;

use stockmesh_proto::reconcile::{Agreement, Effect, Outcome, Session, SessionError, Settings};
use stockmesh_proto::wire::{FrameKind, Message, Scope};
use stockmesh_proto::{ReplicaId, ShardCount};

use super::replica::Replica;

/// The side that opened.
pub(crate) const OPENER: usize = 0;
/// The side that was called.
pub(crate) const ACCEPTER: usize = 1;

#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) parties: [ReplicaId; 2],
    pub(crate) sessions: [Session; 2],
    /// Messages on their way to each side, as bytes.
    inboxes: [VecDeque<Vec<u8>>; 2],
    /// Who sent what.
    pub(crate) transcript: Vec<(usize, FrameKind)>,
    pub(crate) outcome: Option<Outcome>,
}

pub(crate) fn settings(shards: ShardCount, chunk_bytes_target: usize, drift_ms_max: u64) -> Settings {
    Settings { shards, drift_ms_max, chunk_bytes_target }
}

impl Conversation {
    pub(crate) fn open(
        opener: &Replica,
        accepter: &Replica,
        settings: Settings,
        agreement: Option<&Agreement>,
    ) -> Self {
        Self {
            parties: [opener.id, accepter.id],
            sessions: [Session::open(settings, opener, agreement), Session::accept(settings)],
            inboxes: Default::default(),
            transcript: Vec::new(),
            outcome: None,
        }
    }

    /// The same over some shards alone.
    pub(crate) fn pull(opener: &Replica, accepter: &Replica, settings: Settings, scope: Scope) -> Self {
        let sessions = [Session::pull(settings, scope), Session::accept(settings)];
        Self { sessions, ..Self::open(opener, accepter, settings, None) }
    }

    /// Lets a side send its next message; false if it has none now. What it read is durable before it leaves.
    pub(crate) fn send(&mut self, side: usize, replica: &mut Replica) -> bool {
        let Some(message) = self.sessions[side].poll_transmit(replica) else { return false };
        replica.sync();
        self.transcript.push((side, message.kind()));
        self.inboxes[1 - side].push_back(message.encode().unwrap()[4..].to_vec());
        true
    }

    /// Delivers the next message to a side; false if none is on its way.
    pub(crate) fn deliver(&mut self, side: usize, replica: &mut Replica, now_ms: u64) -> Result<bool, SessionError> {
        let Some(frame) = self.inboxes[side].pop_front() else { return Ok(false) };
        let message = Message::decode(&frame).unwrap();
        for effect in self.sessions[side].handle(message, replica, now_ms)? {
            match effect {
                Effect::Finished(outcome) => self.outcome = Some(outcome),
                other => replica.carry_out(other),
            }
        }
        Ok(true)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.sessions.iter().all(Session::is_finished) && self.inboxes.iter().all(VecDeque::is_empty)
    }

    /// Runs to the end without a fault. Panics if it gets stuck.
    pub(crate) fn run(&mut self, opener: &mut Replica, accepter: &mut Replica, now_ms: u64) -> Outcome {
        while !self.is_over() {
            let mut moved = self.send(OPENER, opener) | self.send(ACCEPTER, accepter);
            moved |= self.deliver(OPENER, opener, now_ms).unwrap();
            moved |= self.deliver(ACCEPTER, accepter, now_ms).unwrap();
            assert!(moved, "the session is stuck");
        }
        assert!(self.outcome.is_some() || self.sessions[OPENER].outcome().equal, "the opener is told the end");
        self.sessions[OPENER].outcome()
    }

    /// How often the side that sends changed: the number of turns.
    pub(crate) fn turns(&self) -> usize {
        let sides: Vec<usize> = self.transcript.iter().map(|(side, _)| *side).collect();
        sides.chunk_by(|left, right| left == right).count()
    }
}

/// One session without faults and with everything summarised.
pub(crate) fn reconcile(opener: &mut Replica, accepter: &mut Replica, now_ms: u64) -> Outcome {
    let settings = settings(opener.count, 1 << 16, 60_000);
    Conversation::open(opener, accepter, settings, None).run(opener, accepter, now_ms)
}
