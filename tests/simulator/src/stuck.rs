//! Ends the process if simulated time stands still: then tasks wake each other for ever, and no checker is ever asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How often simulated time is looked at, and how often in a row it may be the same, on a slow machine too.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOKS_MAX: u32 = 90;
/// How often a run says how far it is, in simulated time.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Watches one run until it is dropped.
#[derive(Debug)]
pub(crate) struct Watchdog(Arc<Progress>);

#[derive(Debug, Default)]
struct Progress {
    told: AtomicU64,
    is_over: AtomicBool,
}

impl Watchdog {
    pub(crate) fn start(seed: u64) -> Self {
        let progress = Arc::new(Progress::default());
        let watched = Arc::clone(&progress);
        std::thread::spawn(move || {
            let (mut last, mut looks) = (0, 0);
            while !watched.is_over.load(Ordering::Relaxed) {
                std::thread::park_timeout(LOOK_EVERY);
                let told = watched.told.load(Ordering::Relaxed);
                looks = if told == last { looks + 1 } else { 0 };
                last = told;
                if looks > LOOKS_MAX {
                    let at = TELL_EVERY.saturating_mul(u32::try_from(told).unwrap_or(u32::MAX));
                    println!("seed {seed}: BROKEN time passes: {looks} s of the wall clock went by at {at:?}");
                    std::process::exit(1);
                }
            }
        });
        Self(progress)
    }

    /// Tells for ever how far the run is.
    pub(crate) fn teller(&self) -> impl Future<Output = ()> + use<> {
        let progress = Arc::clone(&self.0);
        async move {
            loop {
                progress.told.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(TELL_EVERY).await;
            }
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}
