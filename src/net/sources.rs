//! Listens to sources of candidates, for as long as the node lives.

use tokio::time::Instant;
use tracing::debug;

use super::discovery::Discovery;
use super::shared::Shared;
use super::targets::pause_after;
use crate::limits::SOURCE_PAUSE_MIN;

/// Notes what a source tells. However it behaves, it is not asked in a busy loop.
pub(super) async fn listen_to(number: usize, mut source: Box<dyn Discovery>, shared: Shared) {
    let name = source.name();
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let pause = match source.next().await {
            Ok(candidates) => {
                failures = 0;
                shared.targets.heard(number, &candidates);
                SOURCE_PAUSE_MIN
            }
            Err(error) => {
                debug!(source = name, %error, "a source of candidates failed");
                failures += 1;
                shared.targets.source_failed(number, &error.to_string());
                pause_after(failures).max(SOURCE_PAUSE_MIN)
            }
        };
        tokio::time::sleep_until(begun + pause).await;
    }
}
