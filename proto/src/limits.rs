//! Every limit on what comes from outside: from a user, a file or a peer.
//!
//! A limit is part of the protocol where a peer can notice it (`PROTOCOL.md`, section 2), so it changes only with
//! the major version of the protocol.

/// Longest SKU, in bytes of UTF-8.
pub const SKU_BYTES_MAX: usize = 128;
/// Longest location name, in bytes of UTF-8.
pub const LOCATION_BYTES_MAX: usize = 64;
/// Longest cluster id, in bytes of UTF-8.
pub const CLUSTER_ID_BYTES_MAX: usize = 64;

/// Longest reference of a request, in bytes of UTF-8.
pub const REFERENCE_BYTES_MAX: usize = 128;

/// Largest quantity of one operation, in units. With it, 18 million operations of the largest size fit a counter.
pub const QUANTITY_MAX: u64 = 1_000_000_000_000;
/// Most decimals of a price.
pub const PRICE_SCALE_MAX: u32 = 9;
/// Largest price in its smallest written unit (the number without its decimal point).
pub const PRICE_UNITS_MAX: u64 = 1_000_000_000_000_000_000;

/// Fewest shards of a cluster.
pub const SHARDS_MIN: u32 = 1;
/// Most shards of a cluster; with it, the summary of all shards still fits a handful of frames.
pub const SHARDS_MAX: u32 = 4096;
/// Shards of a cluster when nothing else is said: about one per 4,000 products of a catalogue of a million.
pub const SHARDS_DEFAULT: u32 = 256;
/// Leaves under one group of the fingerprint tree.
pub const FINGERPRINT_GROUP_SHARDS: u32 = 16;

/// Most replicas one version vector may name: every incarnation that ever wrote to the shard.
pub const REPLICAS_MAX: usize = 4096;
/// Most stock slots (location, replica) that are read of one product.
pub const STOCK_SLOTS_MAX: usize = 65_536;
/// Most grant slots (location, from, to) that are read of one product.
pub const GRANT_SLOTS_MAX: usize = 65_536;
/// Most inheritance slots (location, from, to) that are read of one product.
pub const INHERITANCE_SLOTS_MAX: usize = 65_536;
/// Stock slots of one product beyond which a replica opens no new one. Far below what is taken from peers, since
/// replicas that are cut off from each other open theirs at the same time.
pub const STOCK_SLOTS_OPENED_MAX: usize = 2048;
/// Grant slots of one product beyond which a replica opens no new one, for the same reason.
pub const GRANT_SLOTS_OPENED_MAX: usize = 2048;
/// Inheritance slots of one product beyond which a replica opens no new one, for the same reason.
pub const INHERITANCE_SLOTS_OPENED_MAX: usize = 2048;
/// Most bytes of one product with all its slots, by an estimate that is never too low: with it a product fits a frame
/// and every record on disk. Slots that would bring a product beyond it are turned away.
pub const PRODUCT_BYTES_MAX: usize = 896 << 10;

/// Most bytes of one frame after its length prefix.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// Most bytes of the hello and of its refusal, which are read before the peer is trusted with anything, and of a question
/// for rights, which nobody has asked for.
pub const HELLO_BYTES_MAX: usize = 1024;
/// Most bytes of an opening: it is read before it is known what a stream is for. That of the most shards is far below.
pub const OPEN_BYTES_MAX: usize = 16 << 10;
/// Most bytes of one message of the application.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Most bytes of the frame that carries it.
pub const TELL_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 16;
/// Size at which a sender closes a chunk of a shard's delta, in bytes by an estimate that is never too low.
pub const CHUNK_BYTES_TARGET: usize = 128 << 10;
/// Most products of one chunk, of one shard's part of a push, or of one record on disk.
pub const CHUNK_PRODUCTS_MAX: usize = 65_536;
/// Most shard summaries of one frame.
pub const SUMMARIES_PER_FRAME_MAX: usize = 1024;
/// Size at which a sender closes a frame of summaries, in estimated bytes.
pub const SUMMARY_BYTES_TARGET: usize = 128 << 10;
/// Most version-vector entries one reconciliation keeps of its peer: what bounds its memory.
/// Enough for 256 shards of 2,048 replicas, counted twice: once as summarised and once as sent.
pub const SESSION_VERSION_ENTRIES_MAX: usize = 1_048_576;
/// Most shards of one pull.
pub const PULL_SHARDS_MAX: usize = 256;
/// Deepest nesting of MessagePack arrays and maps.
pub const WIRE_DEPTH_MAX: usize = 32;
/// Most elements a list reserves memory for before the elements have arrived.
pub const WIRE_RESERVE_MAX: usize = 256;

/// Most shards one push may touch.
pub const PUSH_SHARDS_MAX: usize = 4096;
/// Most replicas a push lists as already told; beyond it a forwarder may send a copy too many, never one too few.
pub const PUSH_TOLD_MAX: usize = 64;
/// Peers told at once of a committed batch; with more links than that a random choice is told, and forwards.
pub const PUSH_FAN_OUT_DEFAULT: usize = 16;
/// Size at which a push is closed and another begun, and above which one shard's part of a batch is not pushed but
/// left to reconciliation, in bytes by an estimate that is never too low.
pub const PUSH_BYTES_MAX: usize = 512 << 10;

/// Fewest links that a node may be told to keep …
pub const LINKS_MIN: usize = 2;
/// … and most: beyond it, it takes no further one.
pub const LINKS_MAX: usize = 1024;
/// Links that a node keeps when nothing else is said. An idle one costs about 39 KiB at each side.
pub const LINKS_DEFAULT: usize = 64;
/// Members that a node links with of its own choice however many link with it.
pub const OWN_LINKS_MIN: usize = 4;
/// One of so many links leads to another location, if there are others …
pub const FAR_LINKS_SHARE: usize = 4;
/// … and so does one of so many reconciliations.
pub const FAR_RECONCILIATIONS_SHARE: u64 = 4;

/// Members that a retirement may leave out: as many as a cluster can lose at once, and still be worth saving.
pub const RETIRE_WITHOUT_MAX: usize = 1024;
/// Heirs of one replica that gave way to another one: more nodes than anybody asks in the same moment to retire the same.
pub const RIVALS_MAX: usize = 16;

/// Drift bound: how far a register's stamp may run ahead of the reader's clock, in milliseconds.
pub const DRIFT_MS_MAX: u64 = 60_000;

/// Most operations of one batch.
pub const BATCH_OPERATIONS_MAX: usize = 10_000;
/// Longest time that a hold may last, in milliseconds: 30 days.
pub const HOLD_TTL_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1000;
/// Most holds of one replica that are not resolved yet.
pub const HOLDS_ACTIVE_MAX: usize = 262_144;
/// Resolved holds that are remembered, the latest, so that a repeated call gets the same answer.
pub const HOLDS_RESOLVED_MAX: usize = 262_144;
/// How long a resolved hold is remembered at least, unless there are too many, in milliseconds: 7 days.
pub const HOLDS_RESOLVED_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// How long a reference is remembered when nothing else is said, in milliseconds: 7 days.
pub const REFERENCE_WINDOW_MS_DEFAULT: u64 = 7 * 24 * 60 * 60 * 1000;
/// References that are remembered when nothing else is said, the latest.
pub const REFERENCES_MAX_DEFAULT: usize = 1_000_000;
/// Requests of one group commit in the ledger.
pub const LEDGER_REQUESTS_MAX: usize = 65_536;
/// Movements of one request: a transfer has two, and so has a hold of which a part is sold.
pub const LEDGER_MOVEMENTS_MAX: usize = 2 * BATCH_OPERATIONS_MAX;

/// Half-life of the rate of sales, in milliseconds: long enough to smooth a queue at the till, short enough to follow
/// the hour of the day.
pub const DEMAND_HALF_LIFE_MS: u64 = 60_000;
/// For how long a grant provides for the asker's demand, in milliseconds. Longer means fewer requests, and more rights
/// where they may turn out not to be needed.
pub const GRANT_HORIZON_MS: u64 = 600_000;

/// Most members of a cluster that a node keeps, itself aside (rule N8).
pub const MEMBERS_MAX: usize = 10_000;
/// Most labels of a member.
pub const LABELS_MAX: usize = 8;
/// Longest key, and longest value, of a label, in bytes of UTF-8.
pub const LABEL_BYTES_MAX: usize = 32;
/// Longest name and version of a member's software, in bytes of UTF-8.
pub const SOFTWARE_BYTES_MAX: usize = 64;
/// Largest generation of a member.
pub const GENERATION_MAX: u64 = (1 << 48) - 1;
/// Furthest that others' word may bring a member's generation ahead at once.
pub const GENERATION_STEP_MAX: u64 = 65_536;
/// Most bytes of a datagram of membership.
pub const MEMBERSHIP_DATAGRAM_BYTES_MAX: usize = 1100;
/// Most members of one frame of a member list.
pub const MEMBERS_PER_FRAME_MAX: usize = 512;
/// How long a member stays listed after it went down or left, in seconds: a day.
pub const MEMBER_DOWN_LISTED_S: u32 = 24 * 60 * 60;

/// Most peers asked for rights at once.
pub const ASKED_AT_ONCE_MAX: usize = 8;
/// First pause before a peer that gave nothing is asked again, in milliseconds. It doubles with each failure.
pub const BACK_OFF_MS_MIN: u64 = 100;
/// Longest pause before a peer that gave nothing is asked again, in milliseconds.
pub const BACK_OFF_MS_MAX: u64 = 10_000;
/// Most (peer, product, location) whose pauses are kept: what bounds the memory of the back-off.
pub const BACK_OFF_ENTRIES_MAX: usize = 65_536;

/// Shards of one pull at the most, as a replica cuts them: few enough that several peers share the work.
pub const PULL_PORTION_SHARDS_MAX: usize = 64;
/// Peers that are pulled from at once: what bounds the memory of pulls.
pub const PULL_PEERS_MAX: usize = 8;
/// How long a peer may be silent in a pull while an idle one could do its work, in milliseconds, at first …
pub const PULL_SILENCE_MS_MIN: u64 = 2_000;
/// … and at the most: it doubles each time.
pub const PULL_SILENCE_MS_MAX: u64 = 30_000;
/// Pause before a peer is asked again whose pull broke off, in milliseconds. It doubles with each failure in a row.
pub const PULL_PAUSE_MS_MIN: u64 = 50;
/// The longest such pause, in milliseconds.
pub const PULL_PAUSE_MS_MAX: u64 = 5_000;

// Clients: programs that ask a node over the network (`PROTOCOL.md`, section 19).

/// Most bytes of a client's request: kind byte and body.
pub const CLIENT_REQUEST_BYTES_MAX: usize = 16 << 10;
/// Most bytes of an answer to a client: kind byte and body.
pub const CLIENT_ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX;
/// Most products that one request names.
pub const CLIENT_SKUS_MAX: usize = 64;
/// Most locations of one product in an answer; how many there are is told beside them.
pub const CLIENT_LOCATIONS_MAX: usize = 1024;
/// Most peers in a status; how many there are is told beside them.
pub const CLIENT_PEERS_MAX: usize = 1024;
/// Most refused links, former ids or labels of a member in an answer.
pub const CLIENT_NOTES_MAX: usize = 64;
/// Most products, members or holds of one page.
pub const CLIENT_PAGE_MAX: usize = 512;
/// Longest text for people in a client's frames, in bytes of UTF-8; what is longer is shortened by its writer.
pub const CLIENT_TEXT_BYTES_MAX: usize = 256;
/// Longest text of an error in an answer to a client.
pub const CLIENT_ERROR_BYTES_MAX: usize = 4096;
/// Size at which a node closes a page and begins another, in bytes by an estimate that is never too low.
pub const CLIENT_PAGE_BYTES_TARGET: usize = 128 << 10;
