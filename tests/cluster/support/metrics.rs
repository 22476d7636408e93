//! Counters of the whole process, kept in total: a snapshot of the recorder sets them back.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use parking_lot::Mutex;

struct Totals {
    snapshotter: Snapshotter,
    totals: Mutex<BTreeMap<String, u64>>,
}

static TOTALS: OnceLock<Totals> = OnceLock::new();

fn totals() -> &'static Totals {
    TOTALS.get_or_init(|| {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        recorder.install().unwrap();
        Totals { snapshotter, totals: Mutex::default() }
    })
}

/// Starts to record; what was counted before is lost. Tests that read counters call it first.
pub(crate) fn record() {
    totals();
}

/// What a counter says now. All nodes of all tests of the process share it, so only its growth means something.
/// `name{value}` is the part of it that has a label with this value.
pub(crate) fn counter(name: &str) -> u64 {
    let Totals { snapshotter, totals } = totals();
    let mut totals = totals.lock();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        if let DebugValue::Counter(count) = value {
            let name = key.key().name();
            *totals.entry(name.to_owned()).or_default() += count;
            for label in key.key().labels() {
                *totals.entry(format!("{name}{{{}}}", label.value())).or_default() += count;
            }
        }
    }
    totals.get(name).copied().unwrap_or_default()
}
