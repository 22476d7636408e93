//! The wire format: MessagePack in frames with a length before them (`PROTOCOL.md`, section 6).
//!
//! One encoding serves the wire, the journal and the snapshots. Whatever is read is bounded before memory is
//! reserved, no type is recursive, and a frame must be consumed to its last byte.

mod bounded;
pub mod client;
mod delta;
mod frame;
mod ledger;
mod members;
mod message;
mod pull;
mod push;
mod record;
mod retirement;

pub use frame::{FrameKind, WireError, decode_body, encode_frame, frame_length, split_kind};
pub use ledger::{LedgerPart, LedgerRecord, LedgerRequest};
pub use members::MemberList;
pub use message::{Ask, Granted, Hello, Message, Open, Part, Refusal, RefusalCode, Summary, Told};
pub use pull::{Scope, Standing};
pub use push::{Push, PushShard};
pub use record::{BatchRecord, ShardRecord, SnapshotRecord};
pub use retirement::{Fence, Fenced, HoldTaken, NotRetired, Retire, Retired, TakeHold};
