//! A disk whose syncs wait at a gate.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use stockmesh::storage::{Disk, FaultyDisk};

/// Open or closed, and who waits there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: u32,
    /// So many of those that wait may pass though it is closed.
    let_through: u32,
}

impl Gate {
    pub(crate) fn close(&self) {
        self.0.0.lock().unwrap().closed = true;
    }

    pub(crate) fn open(&self) {
        self.0.0.lock().unwrap().closed = false;
        self.0.1.notify_all();
    }

    /// Whether a sync waits at the gate now.
    pub(crate) fn is_reached(&self) -> bool {
        self.0.0.lock().unwrap().waiting > 0
    }

    /// Lets through what waits there, until `holds` does: a commit of something else, such as of members that are known.
    pub(crate) fn is_reached_by(&self, holds: impl Fn() -> bool) -> bool {
        let mut state = self.0.0.lock().unwrap();
        if state.waiting == 0 || state.let_through > 0 {
            return false;
        }
        // What is in the table was applied before its sync came to the gate, and nothing is applied while one waits here.
        if holds() {
            return true;
        }
        state.let_through = 1;
        self.0.1.notify_all();
        false
    }

    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.waiting += 1;
        while state.closed && state.let_through == 0 {
            state = self.0.1.wait(state).unwrap();
        }
        state.let_through = state.let_through.saturating_sub(1);
        state.waiting -= 1;
    }
}

/// A disk that syncs only while its gate is open.
#[derive(Debug)]
pub(crate) struct GatedDisk {
    pub(crate) disk: FaultyDisk,
    pub(crate) gate: Gate,
}

impl Disk for GatedDisk {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        self.disk.set_len(length_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.gate.pass();
        self.disk.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.disk.write(offset, data)
    }
}
