//! Rights change hands between nodes (rules B3 to B5): `obtain` asks peers for them where a sale needs them, `answer` gives
//! them away, and `rebalance` moves them ahead of demand.

mod answer;
mod obtain;
mod rebalance;

pub(super) use answer::answer;
pub(super) use obtain::obtain;
pub(super) use rebalance::rebalance_for_ever;
