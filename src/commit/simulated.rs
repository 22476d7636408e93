//! The committer as a task: in a simulation, where one thread plays all nodes and time passes only while all wait.

use std::sync::Arc;

use super::Work;
use super::gathering::Gathering;
use super::worker::{EndGuard, Worker, Written};
use crate::sync::mpsc;

impl Worker {
    /// The same as on a thread of its own. Each sync takes the simulated time that the disks said.
    pub(super) async fn serve_as_task(mut self, mut queue: mpsc::Receiver<Work>) {
        let _guard = EndGuard(Arc::clone(&self.progress));
        let mut closing = false;
        while !closing {
            // Nobody writes while this task runs, so there is nothing to wait for by looking at the clock.
            self.gathering = Gathering::default();
            let folding = self.fold.is_under_way() && !self.failed;
            let first = if folding { queue.try_recv().ok() } else { queue.recv().await };
            // Time that other nodes' disks took while they were opened or closed is not this one's.
            let _ = crate::simulation::take_disk_time();
            let (written, answers) = match first {
                Some(first) => {
                    let (gathered, answers, is_last) = self.gather(first, &mut queue);
                    closing = is_last;
                    (self.write(gathered), answers)
                }
                None if folding && !queue.is_closed() => (self.fold_on(), Vec::new()),
                None => break,
            };
            self.sync_and_tell(written, answers).await;
        }
        queue.close();
        while let Some(work) = queue.recv().await {
            self.refuse(work);
        }
        self.end();
    }

    /// What was written can be read here, and nobody was told, while the disks sync.
    async fn sync_and_tell(&mut self, written: Written, answers: Vec<super::answer::Answer>) {
        let time = crate::simulation::take_disk_time();
        if time.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(time).await;
        }
        self.tell(written, answers);
    }
}
