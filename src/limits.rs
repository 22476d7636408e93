//! Every limit of the store on lengths, counts, rates and times; those of the protocol are in the core's own module.
//!
//! The optional readers of files keep theirs beside them (`transactions`, `certificates`), as does the disk's layout
//! (`storage`).

use std::ops::RangeInclusive;
use std::time::Duration;

// What a user may set.

/// How often a node may reconcile with a random peer, at the most and at the least.
pub(crate) const RECONCILE_EVERY_MIN: Duration = Duration::from_millis(10);
/// See [`RECONCILE_EVERY_MIN`].
pub(crate) const RECONCILE_EVERY_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Writes that full members lack for so many of these intervals, but for a time within these bounds, are stranded (rule K9).
pub(crate) const STRANDED_LOOKS: u32 = 6;
/// See [`STRANDED_LOOKS`].
pub(crate) const STRANDED_TIME: RangeInclusive<Duration> = Duration::from_secs(30)..=Duration::from_secs(600);
/// Largest drift bound.
pub(crate) const DRIFT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Peers that one node may be configured to dial.
pub(crate) const PEERS_MAX: usize = 1024;

/// Longest name of a node, in bytes: what X.520 allows for a common name.
pub(crate) const NODE_NAME_BYTES_MAX: usize = 64;
/// Public keys that one node may list as trusted.
pub(crate) const PINNED_KEYS_MAX: usize = 8_192;
/// Largest PEM file: a chain of a few certificates is a few kilobytes.
pub(crate) const PEM_BYTES_MAX: u64 = 1 << 20;

// Connections and links.

/// Bytes that a peer may send on one stream before they are read.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// The same for all streams of a link; also what is sent ahead of an acknowledgement.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Streams of each kind that a peer may have open.
pub(crate) const STREAMS_MAX: u32 = 32;
/// Pause after which an idle link is kept alive.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Silence after which a link counts as dead.
pub(crate) const IDLE_TIMEOUT_MS: u32 = 20_000;
/// Handshakes under way at once.
pub(crate) const INCOMING_MAX: usize = 256;

/// Incoming connections whose handshake or hello is under way at once.
pub(crate) const HANDSHAKES_MAX: usize = 256;
/// How many of them one source may hold: whoever never ends its own leaves room for others.
pub(crate) const HANDSHAKES_OF_SOURCE_MAX: usize = HANDSHAKES_MAX / 4;

/// How long the TLS handshake and the hello may take together.
pub(crate) const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a refusal may take to reach the peer.
pub(crate) const REFUSAL_TIME_MAX: Duration = Duration::from_secs(1);

/// Two nodes count as dialling each other at the same time if their links come up within this.
pub(crate) const SAME_TIME: Duration = Duration::from_secs(2);
/// Refusals that are remembered for the operator.
pub(crate) const REFUSALS_MAX: usize = 64;

/// How long a superfluous link goes on, so that what is under way on it ends.
pub(crate) const LINK_DRAIN_TIME: Duration = Duration::from_secs(2);

/// How long after a change of certificate a peer may still hold the link under the former one: until it counts as dead,
/// and a dial and a half.
pub(crate) const ROTATION_TIME: Duration = Duration::from_secs(30);

/// How long before the end of this node's certificate it is told …
pub(crate) const IDENTITY_EXPIRY_AHEAD: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// … and how often.
pub(crate) const IDENTITY_TELL_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// How often it is looked at; a clock that is set ahead is noticed then.
pub(crate) const IDENTITY_LOOK_EVERY: Duration = Duration::from_secs(60);

/// Longest list of revoked certificates: some ten thousand.
pub(crate) const REVOCATIONS_BYTES_MAX: u64 = 1 << 20;
/// How often it is looked at whether the list changed.
pub(crate) const REVOCATIONS_LOOK_EVERY: Duration = Duration::from_secs(2);
/// Characters of a wrong line that are shown.
pub(crate) const REVOCATION_SHOWN_MAX: usize = 80;

/// Pause before a peer is dialled again, at first …
pub(crate) const DIAL_PAUSE_MIN: Duration = Duration::from_millis(100);
/// … and at the most.
pub(crate) const DIAL_PAUSE_MAX: Duration = Duration::from_secs(10);
/// A link that lasted so long was a success. One that ends sooner, if after the hello, is dialled after a longer pause.
pub(crate) const LINK_LASTING: Duration = Duration::from_secs(10);
/// Addresses of one name that are dialled, one after the other.
pub(crate) const DIAL_TARGETS_MAX: usize = 8;

// What one peer may send; the ranges are those of `PeerLimits`.

/// Bytes of frames per second …
pub(crate) const PEER_BYTES_PER_SECOND_DEFAULT: u64 = 64 << 20;
/// … at the least so many that the few largest frames that are under way at once come sooner than a peer gives up.
pub(crate) const PEER_BYTES_PER_SECOND: RangeInclusive<u64> = (128 << 10)..=(64 << 30);
/// Frames per second.
pub(crate) const PEER_FRAMES_PER_SECOND_DEFAULT: u64 = 50_000;
/// See [`PEER_FRAMES_PER_SECOND_DEFAULT`].
pub(crate) const PEER_FRAMES_PER_SECOND: RangeInclusive<u64> = 1_000..=10_000_000;
/// Streams per second that a peer opens.
pub(crate) const PEER_STREAMS_PER_SECOND_DEFAULT: u64 = 10_000;
/// See [`PEER_STREAMS_PER_SECOND_DEFAULT`].
pub(crate) const PEER_STREAMS_PER_SECOND: RangeInclusive<u64> = 100..=1_000_000;
/// Reconciliations per second that a peer opens: it needs a few.
pub(crate) const PEER_SESSIONS_PER_SECOND_DEFAULT: u64 = 500;
/// See [`PEER_SESSIONS_PER_SECOND_DEFAULT`].
pub(crate) const PEER_SESSIONS_PER_SECOND: RangeInclusive<u64> = 10..=100_000;
/// For how long a peer may be held back, within a window, before its link is closed.
pub(crate) const PEER_SLOWED_MAX_DEFAULT: Duration = Duration::from_secs(30);
/// See [`PEER_SLOWED_MAX_DEFAULT`].
pub(crate) const PEER_SLOWED_MAX: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60);
/// That window.
pub(crate) const PEER_WINDOW: Duration = Duration::from_secs(60);
/// How much may come at once after a pause: what is allowed in so long.
pub(crate) const PEER_BURST: Duration = Duration::from_secs(2);
/// How long a peer that was over its limits is not let in.
pub(crate) const PENALTY_TIME: Duration = Duration::from_secs(30);
/// Certificates that are not let in for that reason at once.
pub(crate) const PENALTIES_MAX: usize = 1_024;

/// KiB of one peer's slots, as they are on the wire, that may be decoded and not merged yet, over all its streams.
pub(crate) const PEER_UNMERGED_KIB_MAX: u32 = 8 << 10;

/// Replica ids of which it is remembered whose they are, in all …
pub(crate) const BINDINGS_MAX: usize = 16_384;
/// … and of one node: its latest.
pub(crate) const BINDINGS_OF_NODE_MAX: usize = 8;

// Discovery and topology.

/// How often a name is resolved again, with a third of jitter …
pub(crate) const RESOLVE_EVERY_DEFAULT: Duration = Duration::from_secs(45);
/// … and how often it may be.
pub(crate) const RESOLVE_EVERY_MIN: Duration = Duration::from_secs(1);
/// See [`RESOLVE_EVERY_MIN`].
pub(crate) const RESOLVE_EVERY_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Sources of candidates that one node may have.
pub(crate) const SOURCES_MAX: usize = 64;
/// Characters of a source's name and of its error that are shown.
pub(crate) const SOURCE_SHOWN_MAX: usize = 200;
/// A source is asked no more often than this, whatever it does.
pub(crate) const SOURCE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Candidates of all sources that are known at once.
pub(crate) const CANDIDATES_MAX: usize = 1024;
/// Targets of dials that are shown in the status.
pub(crate) const DIALS_SHOWN_MAX: usize = 256;
/// Addresses that are known to be the node's own …
pub(crate) const OWN_ADDRESSES_MAX: usize = 64;
/// … and for how long.
pub(crate) const OWN_ADDRESS_TIME: Duration = Duration::from_secs(60 * 60);
/// Dials of members and candidates that are under way at once …
pub(crate) const DIALS_AT_ONCE_MAX: usize = 16;
/// … of which so many may be to those that did not answer the last time, while there are links.
pub(crate) const DIALS_OF_DEAD_MAX: usize = 4;
/// Dials of members and candidates that begin within a second.
pub(crate) const DIALS_PER_SECOND_MAX: u32 = 32;
/// Members that do not answer and are dialled with the usual pauses. If there are more, pauses grow as their number.
pub(crate) const DEAD_DIALLED_OFTEN_MAX: usize = 8;
/// How long a member waits for the other one, if that is to dial first.
pub(crate) const DIAL_GRACE: Duration = Duration::from_secs(2);
/// How often the links are looked at, at the least …
pub(crate) const TOPOLOGY_LOOK_EVERY: Duration = Duration::from_secs(1);
/// … and at the most.
pub(crate) const TOPOLOGY_PAUSE_MIN: Duration = Duration::from_millis(50);
/// How often a link is replaced by another, in a cluster that is too large to link with all, with a quarter of jitter.
pub(crate) const LINK_REFRESH_EVERY: Duration = Duration::from_secs(60);
/// A link is not ended as surplus before: by then the peer knows other members.
pub(crate) const LINK_SETTLED: Duration = Duration::from_secs(10);
/// How long a member that has links enough is left alone.
pub(crate) const SURPLUS_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Links that somebody asked for, beyond those that are chosen …
pub(crate) const TEMPORARY_LINKS_MAX: usize = 32;
/// … and how long they last.
pub(crate) const TEMPORARY_LINK_TIME: Duration = Duration::from_secs(10);

// Frames, reconciliations and pushes.

/// How long a frame may take from its first byte to its last: what a peer that drips bytes is given …
pub(crate) const FRAME_TIME_MAX: Duration = Duration::from_secs(10);
/// … and so much longer for each KiB of it that came: a line may be slow, and shared by many links.
pub(crate) const FRAME_TIME_PER_KIB: Duration = Duration::from_secs(4);
/// How long a peer may think before its next frame of a reconciliation begins, and leave one of ours untaken …
pub(crate) const REPLY_TIME_MAX: Duration = Duration::from_secs(30);
/// … and up to so much longer, by the same measure, if it must first get what was sent to it.
pub(crate) const REPLY_TIME_OF_SENT_MAX: Duration = Duration::from_secs(5 * 60);

/// Reconciliations that one peer may have open with this node at once.
pub(crate) const SESSIONS_MAX: usize = 4;
/// Streams of pushes that one peer may have open; it needs one.
pub(crate) const PUSH_STREAMS_MAX: usize = 2;

/// How often it is looked whether a peer is silent in a pull, or its pause is over.
pub(crate) const PULL_LOOK_EVERY: Duration = Duration::from_millis(50);
/// Pause before a node that catches up reconciles again.
pub(crate) const JOIN_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How long a node that met only others that catch up too waits for one that does not.
pub(crate) const JOIN_AMONG_JOINERS_TIME: Duration = Duration::from_secs(10);
/// How long a new link is left to a peer that catches up, before this node reconciles on its part.
pub(crate) const JOIN_YIELD_TIME_MAX: Duration = Duration::from_secs(120);

/// Merges that may be under way before the next message is read.
pub(crate) const SESSION_MERGES_MAX: usize = 8;

/// Pushes of one peer that may be merging before the next is read.
pub(crate) const PUSH_MERGES_MAX: usize = 16;

/// Pushes that may wait for one peer; beyond it they are dropped, and reconciliation brings them.
pub(crate) const PUSH_QUEUE_MAX: usize = 256;
/// Bytes of pushes that may wait for one peer.
pub(crate) const PUSH_QUEUE_BYTES_MAX: usize = 8 << 20;
/// How often those who wait for a confirmation of one peer ask it again, all together: a reconciliation may end at once
/// and confirm nothing.
pub(crate) const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// Peers that may wait for an urgent reconciliation.
pub(crate) const URGENT_MAX: usize = 256;

// Rights to sell.

/// How long peers are asked for rights unless a call says otherwise …
pub(crate) const ASKING_TIME_DEFAULT: Duration = Duration::from_millis(500);
/// … and the longest it may say.
pub(crate) const ASKING_TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// How long one peer may take to answer before another is asked instead.
pub(crate) const ASK_TIME_MAX: Duration = Duration::from_millis(200);
/// Round trips that it may take besides: the question and its answer, and one for a datagram that is lost.
pub(crate) const ASK_ROUND_TRIPS: u32 = 3;
/// Questions for rights of one peer that are answered at once; more wait on their streams.
pub(crate) const ASKS_MAX: usize = 16;
/// Questions of one peer per second that are answered with rights, on average; beyond it the answer is nothing.
pub(crate) const ASKS_PER_SECOND_MAX: u32 = 2_000;
/// Products and locations of which the demand is kept.
pub(crate) const DEMANDS_MAX: usize = 65_536;
/// How often those of which nobody wants anything any more are looked for, where there is no room for another.
pub(crate) const DEMANDS_SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Deficits that are kept in mind, to be paid back from others' rights.
pub(crate) const DEFICITS_MAX: usize = 4_096;
/// Pause after which it is looked again for rights while somebody waits: what comes by pushes, receipts and releases.
pub(crate) const RIGHTS_LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often rights are moved towards demand, with a quarter of jitter.
pub(crate) const REBALANCE_EVERY: Duration = Duration::from_secs(1);
/// Questions of one such round.
pub(crate) const REBALANCE_ASKS_MAX: usize = 16;
/// Rights that last so long at the present demand are enough.
pub(crate) const REBALANCE_COVER: Duration = Duration::from_secs(60);

// Messages of the application.

/// How long a message may take to be answered.
pub(crate) const MESSAGE_TIME_MAX: Duration = Duration::from_secs(5);
/// Messages that are sent to one peer at once; others wait.
pub(crate) const MESSAGES_AT_ONCE_MAX: usize = 8;
/// Messages that may wait for a slow reader; beyond it the oldest are dropped, and the reader is told.
pub(crate) const MESSAGES_WAITING_MAX: usize = 256;
/// What one peer may send within a second: each message counts one, and one more for each KiB.
pub(crate) const MESSAGES_PER_SECOND_MAX: u32 = 4_096;

// Clients: programs that act on this node over the network.

/// Clients that may be connected at once …
#[cfg(feature = "clients")]
pub(crate) const CLIENTS_MAX: usize = 256;
/// … and how many of them with one certificate: whoever has one leaves room for others.
#[cfg(feature = "clients")]
pub(crate) const CLIENTS_OF_CERTIFICATE_MAX: usize = CLIENTS_MAX / 4;
/// Requests of one client that are under way at once, without those that go on for long; more wait on their streams.
#[cfg(feature = "clients")]
pub(crate) const CLIENT_REQUESTS_MAX: usize = 8;
/// Requests of all clients that are under way at once.
#[cfg(feature = "clients")]
pub(crate) const CLIENTS_REQUESTS_MAX: usize = 64;
/// Lists and subscriptions that one client may have open at once.
#[cfg(feature = "clients")]
pub(crate) const CLIENT_STREAMS_MAX: usize = 8;
/// Requests of one client per second; whoever asks more often is read more slowly.
#[cfg(feature = "clients")]
pub(crate) const CLIENT_REQUESTS_PER_SECOND_MAX: u32 = 2_000;
/// How long a request may wait for its turn before it is refused: shorter than a client waits for its welcome.
#[cfg(feature = "clients")]
pub(crate) const CLIENT_WAIT_MAX: Duration = Duration::from_secs(3);
/// How long peers may be asked for rights on behalf of a client.
#[cfg(feature = "clients")]
pub(crate) const CLIENT_DEADLINE_MAX: Duration = Duration::from_secs(30);
/// How long a request may take, from its turn to its answer.
#[cfg(feature = "clients")]
pub(crate) const CLIENT_REQUEST_TIME_MAX: Duration = Duration::from_secs(40);
/// How long a client may stay connected without asking anything.
#[cfg(feature = "clients")]
pub(crate) const CLIENT_IDLE_TIME_MAX: Duration = Duration::from_secs(15);
/// Bytes that a client may send before they are read, of all its streams; and that may be on their way to it.
#[cfg(feature = "clients")]
pub(crate) const CLIENT_WINDOW_BYTES: u32 = 1 << 20;

/// How long a client tries to connect.
#[cfg(feature = "clients")]
pub(crate) const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a client waits for an answer; longer than a node takes.
#[cfg(feature = "clients")]
pub(crate) const ANSWER_TIME_MAX: Duration = Duration::from_secs(50);
/// How often a client asks again after it lost its connection …
#[cfg(feature = "clients")]
pub(crate) const CLIENT_TRIES_MAX: u32 = 5;
/// … and the pause before that, at first; it doubles each time.
#[cfg(feature = "clients")]
pub(crate) const CLIENT_TRY_PAUSE: Duration = Duration::from_millis(200);
/// Entries that a client collects of an answer in pages.
#[cfg(feature = "clients")]
pub(crate) const CLIENT_ENTRIES_MAX: usize = 1 << 20;

// Holds, references and the ledger.

/// Longest time that references are remembered.
pub(crate) const REFERENCE_WINDOW_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Most references that may be remembered.
pub(crate) const REFERENCES_MAX: usize = 100_000_000;
/// How long the ledger keeps movements unless said.
pub(crate) const LEDGER_RETENTION_DEFAULT: Duration = Duration::from_secs(400 * 24 * 60 * 60);
/// … and the longest it may be told to.
pub(crate) const LEDGER_RETENTION_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);
/// Bytes of the ledger that are read at a time.
pub(crate) const LEDGER_PAGE_BYTES: usize = 1 << 20;
/// A wall clock that shows less, the beginning of 2020, has lost its time: nothing is forgotten by it.
pub(crate) const CLOCK_PLAUSIBLE_MS: u64 = 1_577_836_800_000;
/// How often the ledger is looked at for what need not be kept.
pub(crate) const LEDGER_TRIM_EVERY: Duration = Duration::from_secs(60);
/// Lost entries in a row that are passed over when the ledger is trimmed.
pub(crate) const LEDGER_LOST_MAX: usize = 1_000;
/// About what a movement takes in the ledger, with names of a common length: for closing groups.
pub(crate) const MOVEMENT_BYTES: usize = 64;
/// Lost entries of the ledger that are named one by one at open.
pub(crate) const DAMAGE_NAMED_MAX: usize = 1_000;
/// Holds that are listed at a time.
pub(crate) const HOLDS_PAGE: usize = 1_000;
/// Holds that are released in one request when their time has run out.
pub(crate) const EXPIRED_AT_ONCE_MAX: usize = 1_000;
/// How long the clock may be off before a hold's expiry is looked at again: a clock that is set ahead is noticed then.
pub(crate) const EXPIRY_LOOK_EVERY: Duration = Duration::from_secs(1);

/// A limit, or what it is in the models of `tests/concurrency`, which are too small to come near it.
const fn or_modelled(limit: usize, modelled: usize) -> usize {
    if cfg!(all(test, stockmesh_shuttle)) { modelled } else { limit }
}

// The committer.

/// Work that may wait for the committer: what bounds its memory. Callers beyond it wait for their turn.
pub(crate) const COMMIT_QUEUE_MAX: usize = or_modelled(4096, 1);
/// Committed batches that may wait to be pushed; beyond it they are left to reconciliation.
pub(crate) const COMMITS_TO_PUSH_MAX: usize = 256;

/// Pause in the work after which a group that waits for more goes on without it.
pub(crate) const GATHER_PAUSE_MAX: Duration = Duration::from_micros(20);
/// How long a group may wait for more work in all, also if it keeps coming.
pub(crate) const GATHER_TIME_MAX: Duration = Duration::from_micros(300);
/// Pieces of work that one group takes.
pub(crate) const GROUP_WORK_MAX: usize = 4096;
/// Size at which a group is closed, in bytes by an estimate that is never too low.
/// With it, and one more frame, a record's lists stay within what is read.
pub(crate) const GROUP_BYTES_TARGET: usize = 2 << 20;

/// Size at which a shard's part of a record is closed and another begun, by an estimate that is never too low: so that
/// no list of names or products exceeds what is read.
pub(crate) const RECORD_BYTES_TARGET: usize = 1 << 20;

/// Journal size at which folding begins.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 16 << 20;
/// Snapshot bytes that one commit carries besides its own batch, so that no commit waits long for folding.
pub(crate) const FOLD_STEP_BYTES_TARGET: usize = 256 << 10;

/// Longest record of a snapshot: room for a chunk with one product at its largest.
pub(crate) const RECORD_BYTES_MAX: usize = 64 << 20;

/// Former ids that are remembered, the latest: a peer that forges own futures must not fill the settings.
pub(crate) const FORMER_REPLICAS_MAX: usize = 1000;

/// Changes of the replica id that are shown with what caused them, the latest.
pub(crate) const INCARNATIONS_SHOWN_MAX: usize = 64;

// Retiring and leaving.

/// Replicas that were retired, and are remembered.
pub(crate) const RETIRED_MAX: usize = 10_000;
/// How long the members may be waited for when a replica is retired, unless a call says otherwise …
pub(crate) const RETIRE_TIME_DEFAULT: Duration = Duration::from_secs(30);
/// … and the longest it may say; also for leaving.
pub(crate) const RETIRE_TIME_MAX: Duration = Duration::from_secs(60 * 60);
/// How long this node may wait for the members when a peer asks it to retire a replica, in milliseconds.
pub(crate) const RETIRE_FOR_PEERS_MS_MAX: u64 = 60_000;
/// How long units that a retired replica held stay held unless a call says otherwise.
pub(crate) const RETIRED_HOLD_TIME_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);
/// Members that are asked at once when a replica is retired.
pub(crate) const RETIRE_AT_ONCE_MAX: usize = 16;
/// Pause after which it is looked again whether a member can be reached.
pub(crate) const RETIRE_LOOK_EVERY: Duration = Duration::from_millis(200);
/// Places of a product that are taken over, given away or done again in one request.
pub(crate) const PLACES_AT_ONCE_MAX: usize = 500;
/// Heirs of heirs that are taken over at once; what is left then is taken over with the next news.
pub(crate) const HEIRS_IN_A_ROW_MAX: usize = 4;
/// How long news of retired replicas gather before they are looked at: a look is at all products.
pub(crate) const INHERIT_PAUSE: Duration = Duration::from_secs(2);
/// Pause after which it is tried again where something could not be taken over.
pub(crate) const INHERIT_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Requests of peers that this node retire a replica, of all and of one: its link may end, and it ask again.
pub(crate) const RETIRE_REQUESTS_MAX: usize = 16;
pub(crate) const RETIRE_REQUESTS_OF_PEER_MAX: usize = 4;

// Readers, and closing.

/// Committed batches that a reader may lag behind before it is told so.
pub(crate) const LAG_BATCHES_MAX: usize = or_modelled(256, 2);

/// Products read from one shard at a time: what bounds the memory of a query.
pub(crate) const PAGE_PRODUCTS: usize = 32;

/// How long a closing store lets its peers take in what they lack.
pub(crate) const CLOSE_DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a closing node waits for its peers to learn of it.
pub(crate) const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

// Membership.

/// What waits for the task of membership: more datagrams are dropped.
pub(crate) const SIGHTINGS_MAX: usize = 1024;
/// Datagrams that a peer may send in a second, on average. An honest one sends some twenty at the very most.
pub(crate) const DATAGRAMS_PER_SECOND_MAX: u32 = 500;
/// Bytes of datagrams of one link that wait to be read; the oldest are dropped.
pub(crate) const DATAGRAM_BUFFER_BYTES: usize = 64 << 10;
/// Questions for the member list that a peer may ask in a second; more are answered with nothing.
pub(crate) const LISTS_PER_SECOND_MAX: u32 = 2;
/// Members without a link for which datagrams are kept until there is one …
pub(crate) const MEMBERS_AWAITED_MAX: usize = 64;
/// … how many for each …
pub(crate) const DATAGRAMS_AWAITING_MAX: usize = 4;
/// … and for how long.
pub(crate) const DATAGRAMS_AWAITING_TIME: Duration = Duration::from_secs(3);
/// How often member lists are exchanged with a random peer.
pub(crate) const LISTS_EVERY: Duration = Duration::from_secs(60);
/// How soon again if that brought news.
pub(crate) const LISTS_AGAIN: Duration = Duration::from_secs(5);
/// How long one exchange of member lists may take.
pub(crate) const LISTS_TIME_MAX: Duration = Duration::from_secs(30);
/// How often members are written to disk, if something changed.
pub(crate) const MEMBER_ROWS_EVERY: Duration = Duration::from_secs(5);
/// Members that live that are kept on disk; those that are down are kept besides.
pub(crate) const MEMBER_ROWS_MAX: usize = 256;

#[cfg(test)]
mod tests;
