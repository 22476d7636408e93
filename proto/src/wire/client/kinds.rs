//! The kinds of frames between a client and a node (rule X2).

use super::super::frame::{self, WireError};
use super::answer::{Change, Done, Failure, HoldInfo, HoldsPage, ProductsPage, ResolvedInfo, Watching, Welcome};
use super::request::{
    AllHolds, AllMembers, CommitHold, Get, Greeting, List, NewHold, NewPrice, Receipt, ReleaseHold, Sale, StatusWanted,
    Watch,
};
use super::status::{MembersPage, StatusInfo};
use crate::limits::{CLIENT_ANSWER_BYTES_MAX, CLIENT_REQUEST_BYTES_MAX};

/// A kind of frame: its name, its byte, and the most bytes of such a frame without its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindOf {
    /// As the specification names it.
    pub name: &'static str,
    /// The first byte after the length.
    pub byte: u8,
    /// Most bytes of kind and body.
    pub bytes_max: usize,
}

macro_rules! frames {
    ($(#[$meta:meta])* $name:ident, $bytes_max:expr, $($(#[$variant_meta:meta])* $variant:ident($body:ty) = $byte:literal,)*) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$variant_meta])* $variant($body),)*
        }

        impl $name {
            /// All kinds.
            pub const KINDS: &'static [KindOf] =
                &[$(KindOf { name: stringify!($variant), byte: $byte, bytes_max: $bytes_max },)*];
            /// Most bytes of such a frame, without its length.
            pub const BYTES_MAX: usize = $bytes_max;

            /// The frame, with its length before it.
            ///
            /// # Errors
            /// If it exceeds its limit.
            pub fn encode(&self) -> Result<Vec<u8>, WireError> {
                match self {
                    $(Self::$variant(body) => frame::encode($byte, $bytes_max, true, body),)*
                }
            }

            /// Reads a frame without its length (rules W3, X2).
            ///
            /// # Errors
            /// If its kind is unknown, it is too long, or its body is not what its kind says.
            pub fn decode(frame: &[u8]) -> Result<Self, WireError> {
                let (kind, body) = frame.split_first().ok_or(WireError::Empty)?;
                if frame.len() > $bytes_max {
                    return Err(WireError::TooLong { bytes: frame.len(), bytes_max: $bytes_max });
                }
                match *kind {
                    $($byte => frame::decode_body(body).map(Self::$variant),)*
                    unknown => Err(WireError::UnknownKind(unknown)),
                }
            }
        }
    };
}

frames! {
    /// What a client asks.
    Request, CLIENT_REQUEST_BYTES_MAX,
    /// Who is there: the first request of a connection.
    Hello(Greeting) = 1,
    /// How the node stands.
    Status(StatusWanted) = 2,
    /// Whom it knows.
    Members(AllMembers) = 3,
    /// Some products.
    Get(Get) = 4,
    /// All products with a prefix.
    List(List) = 5,
    /// Changes from now on.
    Watch(Watch) = 6,
    /// Sells.
    Sell(Sale) = 16,
    /// Counts in.
    Receive(Receipt) = 17,
    /// Sets a price.
    SetPrice(NewPrice) = 18,
    /// Sets units aside.
    Hold(NewHold) = 19,
    /// Sells what was set aside.
    CommitHold(CommitHold) = 20,
    /// Releases what was set aside.
    ReleaseHold(ReleaseHold) = 21,
    /// The holds that are not resolved.
    Holds(AllHolds) = 22,
}

impl Request {
    /// Whether it changes anything.
    pub fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Sell(_)
                | Self::Receive(_)
                | Self::SetPrice(_)
                | Self::Hold(_)
                | Self::CommitHold(_)
                | Self::ReleaseHold(_)
        )
    }
}

frames! {
    /// What a node answers.
    Answer, CLIENT_ANSWER_BYTES_MAX,
    /// Who it is.
    Welcome(Welcome) = 129,
    /// How it stands.
    StatusIs(Box<StatusInfo>) = 130,
    /// Some members.
    MembersAre(MembersPage) = 131,
    /// Some products.
    Products(ProductsPage) = 132,
    /// The subscription begins.
    Watching(Watching) = 133,
    /// One change.
    Change(Box<Change>) = 134,
    /// The write is durable.
    Done(Done) = 144,
    /// A hold was given.
    Held(HoldInfo) = 145,
    /// A hold was resolved.
    Resolved(ResolvedInfo) = 146,
    /// Some holds.
    HoldsAre(HoldsPage) = 147,
    /// The request failed.
    Failed(Box<Failure>) = 255,
}
