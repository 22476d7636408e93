//! Work that reads a disk or much memory: the one place that sends it to a thread of its own.

use tokio::task::JoinError;

/// Runs work where it may block. A simulator has one thread only, and runs it there.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, JoinError> {
    #[cfg(feature = "testing")]
    if crate::simulation::is_running() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await
}
