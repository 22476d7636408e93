//! What SWIM is given to write and read datagrams with, and to say what it brings about.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Notification, Runtime, Timer};

use super::node::Node;
use super::packet::{put_header, put_update, source_incarnation, take_header, take_update};
use crate::id::ReplicaId;
use crate::member::{MalformedMember, Reader};

/// How datagrams of SWIM are written and read (rule N3). The driver has judged what is read here.
#[derive(Clone, Copy, Debug)]
pub(super) struct SwimCodec;

impl Codec<Node> for SwimCodec {
    type Error = MalformedMember;

    fn encode_header(&mut self, header: &Header<Node>, buf: impl BufMut) -> Result<(), MalformedMember> {
        let mut bytes = Vec::with_capacity(64);
        put_header(header, &mut bytes);
        put_all(&bytes, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Node>, MalformedMember> {
        take_from(buf, take_header)
    }

    fn encode_member(&mut self, member: &Member<Node>, buf: impl BufMut) -> Result<(), MalformedMember> {
        let mut bytes = Vec::with_capacity(64);
        put_update(member, &mut bytes)?;
        put_all(&bytes, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Node>, MalformedMember> {
        take_from(buf, take_update)
    }
}

/// All or nothing: what does not fit must leave no trace.
fn put_all(bytes: &[u8], mut buf: impl BufMut) -> Result<(), MalformedMember> {
    if buf.remaining_mut() < bytes.len() {
        return Err(MalformedMember::new("it does not fit a datagram"));
    }
    buf.put_slice(bytes);
    Ok(())
}

fn take_from<T>(
    mut buf: impl Buf,
    take: impl FnOnce(&mut Reader<'_>) -> Result<T, MalformedMember>,
) -> Result<T, MalformedMember> {
    let mut reader = Reader(buf.chunk());
    let before = reader.0.len();
    let taken = take(&mut reader)?;
    let count = before - reader.0.len();
    buf.advance(count);
    Ok(taken)
}

/// What one call of SWIM brought about.
#[derive(Debug, Default)]
pub(super) struct Collected {
    pub(super) sends: Vec<(ReplicaId, Vec<u8>)>,
    pub(super) timers: Vec<(Duration, Timer<Node>)>,
    /// Members of whom something may have changed.
    pub(super) touched: BTreeSet<ReplicaId>,
    /// The incarnation that was told last.
    pub(super) incarnation: Option<u16>,
}

impl Runtime<Node> for Collected {
    fn notify(&mut self, notification: Notification<'_, Node>) {
        match notification {
            Notification::MemberUp(node) | Notification::MemberDown(node) => {
                self.touched.insert(node.replica);
            }
            Notification::Rename(from, to) => self.touched.extend([from.replica, to.replica]),
            _ => {}
        }
    }

    fn send_to(&mut self, to: Node, data: &[u8]) {
        self.incarnation = source_incarnation(data).or(self.incarnation);
        self.sends.push((to.replica, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Node>, after: Duration) {
        if let Timer::ChangeSuspectToDown { member_id, .. } = &event {
            self.touched.insert(member_id.replica);
        }
        self.timers.push((after, event));
    }
}
