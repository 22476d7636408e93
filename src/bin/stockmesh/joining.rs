//! Shows how a node catches up with its peers: a bar on a terminal, else lines in the log.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use stockmesh::{JoinProgress, Joining};

use crate::progress::bar;

/// Least time between two lines in the log.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Shows it until the node has caught up; nothing if there is nothing to catch up with.
pub(crate) async fn show(joining: Joining) {
    if std::io::stderr().is_terminal() {
        show_bar(joining).await;
    } else {
        tell(joining).await;
    }
}

async fn show_bar(mut joining: Joining) {
    let mut shown = None;
    while let Some(progress) = joining.next().await {
        if !progress.catching_up {
            break;
        }
        let shown = shown.get_or_insert_with(|| bar(0));
        shown.set_length(u64::from(progress.shards_total));
        shown.set_position(u64::from(progress.shards_done));
        shown.set_message(describe(&progress));
    }
    if let Some(shown) = shown {
        shown.finish_and_clear();
    }
}

async fn tell(mut joining: Joining) {
    let mut told: Option<Instant> = None;
    while let Some(progress) = joining.next().await {
        let is_due = told.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        if progress.catching_up && is_due {
            told = Some(Instant::now());
            tracing::info!("{}", line(&progress));
        }
    }
}

/// The bar's message.
fn describe(progress: &JoinProgress) -> String {
    let JoinProgress { products, bytes, peers, .. } = progress;
    let peers = peers.len();
    format!("catching up: {products} products, {} MB, from {peers} peers", bytes / 1_000_000)
}

fn line(progress: &JoinProgress) -> String {
    format!("{}; {} of {} shards", describe(progress), progress.shards_done, progress.shards_total)
}
