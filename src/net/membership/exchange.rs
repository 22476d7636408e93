//! Datagrams and member lists as they come from peers (rules N3, N7).

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use quinn::{RecvStream, SendStream, VarInt};
use stockmesh_proto::limits::{FRAME_BYTES_MAX, MEMBERS_MAX};
use stockmesh_proto::member::ListedMember;
use stockmesh_proto::wire::{MemberList, Message};
use tokio::task::JoinSet;

use crate::limits::{FRAME_TIME_MAX, LISTS_PER_SECOND_MAX, LISTS_TIME_MAX};
use crate::net::frames::{FrameError, read_message, write_message};
use crate::net::link::Link;
use crate::net::session::SyncError;
use crate::net::shared::Shared;
use crate::net::sightings::Ended;
use crate::net::verdict::punish;

impl From<Ended> for SyncError {
    fn from(ended: Ended) -> Self {
        FrameError::Ended(ended.to_string()).into()
    }
}

/// Hands the link's datagrams to membership, until the link ends. A peer that sends too many, or one that breaks a rule,
/// loses its link.
pub(in crate::net) async fn take_datagrams(link: &Arc<Link>, shared: &Shared) {
    if !link.knows_membership {
        return std::future::pending().await;
    }
    while let Ok(bytes) = link.connection.read_datagram().await {
        if !link.may_send_datagram() {
            return punish("more datagrams of membership than allowed", link, shared);
        }
        counter!("stockmesh_datagrams_received_total").increment(1);
        shared.sightings.datagram(link, bytes);
    }
}

/// What an exchange of lists came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exchanged {
    /// How much was news to either side.
    pub(super) news: usize,
    /// The peer knows all that this side does.
    pub(super) is_known: bool,
}

/// Exchanges lists with a peer: asks for its list unless both know the same, and tells it what it lacks.
pub(super) async fn exchange_lists(link: &Link, shared: &Shared) -> Result<Exchanged, SyncError> {
    let exchange = async {
        let (mut send, mut receive) = link.connection.open_bi().await?;
        let digest = shared.sightings.digest().await?;
        write_message(&mut send, &Message::Members(MemberList { digest, last: true, members: Vec::new() })).await?;
        let (theirs, list) = read_list(&mut receive).await?;
        // A new member may know nobody, not even itself yet.
        let is_refused = list.is_empty() && theirs == refusal(digest);
        if theirs == digest || is_refused {
            let _ = send.finish();
            return Ok(Exchanged { news: 0, is_known: theirs == digest });
        }
        let (news, lacking) = shared.sightings.learn(link.replica, list).await?;
        let news = news + lacking.len();
        write_list(digest, &lacking, &mut send).await?;
        let _ = send.finish();
        // The end of its side says that it has taken that in.
        Ok(Exchanged { news, is_known: receive.read_to_end(0).await.is_ok() })
    };
    let late = |_| FrameError::Silent;
    tokio::time::timeout(LISTS_TIME_MAX, exchange).await.map_err(late)?
}

/// Tells all linked peers that this node leaves, over streams: datagrams may be lost, and with them whether it left or died.
/// Returns once they have taken it in, or are not linked any more.
pub(in crate::net) async fn tell_leaving(shared: &Shared) {
    let mut telling = JoinSet::new();
    for link in shared.registry.links().into_iter().filter(|link| link.knows_membership) {
        let shared = shared.clone();
        telling.spawn(async move {
            while link.is_open() && !exchange_lists(&link, &shared).await.is_ok_and(|told| told.is_known) {
                // It may have been asked as often as it allows.
                tokio::time::sleep(Duration::from_secs(1) / LISTS_PER_SECOND_MAX).await;
            }
        });
    }
    while telling.join_next().await.is_some() {}
}

/// Answers a peer that opened such an exchange, and takes what it tells then.
pub(in crate::net) async fn answer_list(
    question: &MemberList,
    (mut send, mut receive): (SendStream, RecvStream),
    link: &Link,
    shared: &Shared,
) -> Result<(), SyncError> {
    if !question.last || !question.members.is_empty() {
        return Err(FrameError::Violation("a question for members holds members".into()).into());
    }
    // First, since even the digest is work.
    if !link.may_get_list() {
        return write_list(refusal(question.digest), &[], &mut send).await;
    }
    let digest = shared.sightings.digest().await?;
    if question.digest == digest {
        return write_list(question.digest, &[], &mut send).await;
    }
    let exchange = async {
        write_list(digest, &shared.sightings.list().await?, &mut send).await?;
        let (_, list) = read_list(&mut receive).await?;
        shared.sightings.learn(link.replica, list).await?;
        // Not before: it says that the list was taken in.
        let _ = send.finish();
        Ok(())
    };
    let late = |_| FrameError::Silent;
    let taken = tokio::time::timeout(LISTS_TIME_MAX, exchange).await.map_err(late).map_err(SyncError::from).flatten();
    if taken.is_err() {
        let _ = send.reset(VarInt::from_u32(0));
    }
    taken
}

/// What stands for the digest where a list is not told since it is asked for too often: another one than was asked with.
fn refusal(digest: u64) -> u64 {
    !digest
}

async fn write_list(digest: u64, list: &[ListedMember], send: &mut SendStream) -> Result<(), SyncError> {
    for page in MemberList::pages(digest, list) {
        write_message(send, &Message::Members(page)).await?;
    }
    Ok(())
}

/// Reads frames up to the last, which the stream may end before if there is nothing to tell. Bounded by what a cluster may have.
async fn read_list(receive: &mut RecvStream) -> Result<(u64, Vec<ListedMember>), SyncError> {
    let violation = |text: &str| FrameError::Violation(text.to_owned());
    let mut list = Vec::new();
    loop {
        match read_message(receive, FRAME_BYTES_MAX, Some(FRAME_TIME_MAX)).await? {
            Some(Message::Members(mut page)) => {
                list.append(&mut page.members);
                if list.len() > MEMBERS_MAX + 1 {
                    return Err(violation("a list names more members than a cluster may have").into());
                }
                if page.last {
                    return Ok((page.digest, list));
                }
            }
            Some(_) => return Err(violation("a list of members is mixed with other frames").into()),
            None => return Ok((0, list)),
        }
    }
}
