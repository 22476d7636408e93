//! Lists of members (rule N7).

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::bounded;
use crate::limits::MEMBERS_PER_FRAME_MAX;
use crate::member::ListedMember;

/// Members of the cluster, or a part of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberList {
    /// The sender's digest of all that it knows.
    pub digest: u64,
    /// Whether this is the last frame of the list.
    pub last: bool,
    /// The members of this frame.
    #[serde(deserialize_with = "bounded::list::<_, _, MEMBERS_PER_FRAME_MAX>")]
    pub members: Vec<ListedMember>,
}

impl MemberList {
    /// Splits a list into frames, at least one.
    pub fn pages(digest: u64, members: &[ListedMember]) -> Vec<Self> {
        let mut pages: Vec<Self> = members
            .chunks(MEMBERS_PER_FRAME_MAX)
            .map(|members| Self { digest, last: false, members: members.to_vec() })
            .collect();
        if pages.is_empty() {
            pages.push(Self { digest, last: false, members: Vec::new() });
        }
        if let Some(last) = pages.last_mut() {
            last.last = true;
        }
        pages
    }
}

/// As bytes, in the same form as in datagrams (rule N3).
impl Serialize for ListedMember {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.encode())
    }
}

impl<'de> Deserialize<'de> for ListedMember {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MemberVisitor;
        impl de::Visitor<'_> for MemberVisitor {
            type Value = ListedMember;
            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a listed member")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<ListedMember, E> {
                ListedMember::decode(bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(MemberVisitor)
    }
}
