//! A store that was closed leaves nothing behind: no task that runs on, and no memory.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::Broken;

/// How long the last connections may be drained: three times what a peer may take to confirm (RFC 9000, section 10.2),
/// which on the lines here is seconds.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(60);
/// What may stay: tables that are made once in a process, such as those of the cryptography.
const BYTES_MAX: i64 = 256 << 10;

/// Waits until no task is left, when all stores were closed.
///
/// # Errors
/// If some go on.
pub async fn tasks() -> Result<Duration, Broken> {
    let begun = Instant::now();
    loop {
        let tasks = Handle::current().metrics().num_alive_tasks();
        if tasks == 0 {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > DRAIN_TIME_MAX {
            let what = format!("{tasks} tasks run on {DRAIN_TIME_MAX:?} after all stores were closed");
            return Err(Broken { checker: "nothing left", what });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Looks at what a whole run took of memory and did not give back.
///
/// # Errors
/// If it is more than what is made once.
pub fn memory(bytes: i64) -> Result<(), Broken> {
    if bytes <= BYTES_MAX {
        return Ok(());
    }
    Err(Broken { checker: "nothing left", what: format!("{bytes} bytes of memory were not given back") })
}
