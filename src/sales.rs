//! Figures of what takes units: how many were done with the rights at hand, how many with help, how many not at all.

use std::time::Duration;

use metrics::{counter, histogram};
use stockmesh_proto::operation::Operation;

/// How many operations of a request take units: sales, holds and transfers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sales(u64);

impl Sales {
    pub(crate) fn of(operations: &[Operation]) -> Self {
        let takes = |operation: &&Operation| {
            matches!(operation, Operation::Sell { .. } | Operation::Hold { .. } | Operation::Transfer { .. })
        };
        Self(u64::try_from(operations.iter().filter(takes).count()).unwrap_or(u64::MAX))
    }

    pub(crate) fn any(self) -> bool {
        self.0 > 0
    }

    pub(crate) fn count_local(self) {
        if self.any() {
            counter!("stockmesh_sales_total", "rights" => "local").increment(self.0);
        }
    }

    /// Counts them as done with rights of others, which took so long to get.
    pub(crate) fn count_helped(self, took: Duration) {
        counter!("stockmesh_sales_total", "rights" => "helped").increment(self.0);
        histogram!("stockmesh_rights_seconds").record(took);
    }
}

/// Counts a refusal; with `enough` there was stock somewhere, as far as this node knew.
pub(crate) fn count_denied(enough: bool) {
    counter!("stockmesh_sales_denied_total").increment(1);
    if enough {
        counter!("stockmesh_sales_denied_though_in_stock_total").increment(1);
    }
}
