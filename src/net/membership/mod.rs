//! Finding out who belongs to the cluster, and who of them lives (section 14 of the protocol).
//!
//! Modules in reading order: `settings` (what the embedder says), `address` (where this node is reached), `rows` (what is
//! kept on disk), `exchange` (member lists over streams), `post` (datagrams for members without a link), `effects` (what
//! comes of what the core says), and `task`, which owns the core's state machine and awaits nothing but what it is told.

mod address;
mod effects;
mod exchange;
mod post;
mod rows;
mod settings;
mod task;

pub(super) use exchange::{answer_list, take_datagrams, tell_leaving};
pub(crate) use settings::MembershipSettings;
pub(super) use task::find_out_who_lives;
