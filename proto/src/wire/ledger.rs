//! Entries of the ledger: what one group commit did for its requests (rules D6, D7). On disk only.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bounded;
use crate::fingerprint::Fingerprint;
use crate::hold::HoldId;
use crate::id::{Location, Reference, ReplicaId, Sku};
use crate::limits::{BATCH_OPERATIONS_MAX, LEDGER_MOVEMENTS_MAX, LEDGER_REQUESTS_MAX};
use crate::movement::{Movement, MovementKind, Reason};
use crate::operation::Outcome;

/// One entry of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRecord {
    /// When it was committed by the wall clock, in milliseconds since 1970.
    pub time_ms: u64,
    /// How many entries before this one the oldest lies that holds a reference which was remembered then; 0 if that is
    /// this one, or if none was. A distance, since entries that are saved from a damaged store are numbered anew.
    pub references_back: u64,
    /// What was done, by the id under which it was: more than one if the replica took a new id in between.
    #[serde(deserialize_with = "bounded::list::<_, _, PARTS_MAX>")]
    pub parts: Vec<LedgerPart>,
}

const PARTS_MAX: usize = 1024;

/// What one replica id did in a group commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerPart {
    /// Whose slots were written.
    pub replica: ReplicaId,
    /// The requests, in the order in which they were applied.
    #[serde(deserialize_with = "bounded::list::<_, _, LEDGER_REQUESTS_MAX>")]
    pub requests: Vec<LedgerRequest>,
}

/// What one request did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRequest {
    /// The reference under which it is remembered, if it has one.
    pub reference: Option<Reference>,
    /// The hash of its content.
    pub content: Option<Fingerprint>,
    /// What its operations did; empty without a reference.
    #[serde(deserialize_with = "bounded::list::<_, _, BATCH_OPERATIONS_MAX>")]
    pub outcomes: Vec<Outcome>,
    /// The movements of stock.
    #[serde(deserialize_with = "bounded::list::<_, _, LEDGER_MOVEMENTS_MAX>")]
    pub movements: Vec<Movement>,
}

/// A movement as it is written: kind and reason as numbers, and what only some kinds have.
#[derive(Serialize, Deserialize)]
struct MovementRecord<S, L>(S, L, u8, i64, u8, Option<HoldId>, Option<L>, Option<ReplicaId>);

impl Serialize for Movement {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (mut reason, mut hold, mut place, mut replica) = (0, None, None, None);
        let kind = match &self.kind {
            MovementKind::Received => 1,
            MovementKind::Adjusted(why) => {
                reason = reason_code(*why);
                2
            }
            MovementKind::Counted => 3,
            MovementKind::Sold => 4,
            MovementKind::Held(id) => {
                hold = Some(*id);
                5
            }
            MovementKind::Committed(id) => {
                hold = Some(*id);
                6
            }
            MovementKind::Released(id) => {
                hold = Some(*id);
                7
            }
            MovementKind::Expired(id) => {
                hold = Some(*id);
                8
            }
            MovementKind::TransferredTo(to) => {
                place = Some(to);
                9
            }
            MovementKind::TransferredFrom(from) => {
                place = Some(from);
                10
            }
            MovementKind::Granted(to) => {
                replica = Some(*to);
                11
            }
            MovementKind::Inherited(from) => {
                replica = Some(*from);
                12
            }
            MovementKind::Reapplied(from) => {
                replica = Some(*from);
                13
            }
        };
        MovementRecord(&self.sku, &self.location, kind, self.quantity, reason, hold, place, replica)
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Movement {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let MovementRecord(sku, location, kind, quantity, reason, hold, place, replica) =
            MovementRecord::<Sku, Location>::deserialize(deserializer)?;
        let kind = match (kind, reason_of(reason), hold, place, replica) {
            (1, ..) => MovementKind::Received,
            (2, Some(reason), ..) => MovementKind::Adjusted(reason),
            (3, ..) => MovementKind::Counted,
            (4, ..) => MovementKind::Sold,
            (5, _, Some(id), ..) => MovementKind::Held(id),
            (6, _, Some(id), ..) => MovementKind::Committed(id),
            (7, _, Some(id), ..) => MovementKind::Released(id),
            (8, _, Some(id), ..) => MovementKind::Expired(id),
            (9, _, _, Some(to), _) => MovementKind::TransferredTo(to),
            (10, _, _, Some(from), _) => MovementKind::TransferredFrom(from),
            (11, _, _, _, Some(to)) => MovementKind::Granted(to),
            (12, _, _, _, Some(from)) => MovementKind::Inherited(from),
            (13, _, _, _, Some(from)) => MovementKind::Reapplied(from),
            _ => return Err(D::Error::custom("a movement is of no known kind, or lacks what its kind needs")),
        };
        Ok(Self { sku, location, kind, quantity })
    }
}

const REASONS: [Reason; 6] =
    [Reason::Sold, Reason::Returned, Reason::Damaged, Reason::Lost, Reason::Found, Reason::Correction];

/// Reasons count from 1 in this order; 0 is none.
fn reason_code(reason: Reason) -> u8 {
    let position = REASONS.iter().position(|known| *known == reason);
    position.and_then(|position| u8::try_from(position + 1).ok()).unwrap_or_default()
}

fn reason_of(code: u8) -> Option<Reason> {
    REASONS.get(usize::from(code.checked_sub(1)?)).copied()
}
