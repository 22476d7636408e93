//! The models: each a small system of replicas, messages and operations, over the core's own code.

pub(crate) mod chains;
pub(crate) mod grants;
pub(crate) mod heirs;
pub(crate) mod holds;
pub(crate) mod merge;
pub(crate) mod push;
pub(crate) mod reconcile;
pub(crate) mod retire;
