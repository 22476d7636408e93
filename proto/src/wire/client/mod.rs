//! What programs ask a node, and what it answers (`PROTOCOL.md`, section 19): a protocol of its own, beside that of the
//! peers, on the same frames. All bodies are maps with named fields, so that clients and nodes of other versions get on.

mod answer;
mod kinds;
mod request;
mod status;
mod text;

pub use answer::{
    Change, ChangeKind, Done, Effect, Failure, FailureCode, HoldInfo, HoldStanding, HoldsPage, LocationStock,
    ProductInfo, ProductsPage, ResolvedInfo, Watching, Welcome,
};
pub use kinds::{Answer, KindOf, Request};
pub use request::{
    AllHolds, AllMembers, CommitHold, Get, Greeting, List, NewHold, NewPrice, Receipt, ReleaseHold, Sale, StatusWanted,
    Watch,
};
pub use status::{
    DurabilityInfo, DurabilityState, Label, MemberCounts, MemberInfo, MemberStanding, MembersPage, PeerInfo, PeerState,
    RefusalInfo, StatusInfo,
};
pub use text::{Amount, ErrorText, Shown, Text};
