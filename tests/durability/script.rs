//! A scripted workload, and the knowledge of what each of its writes was answered.

use stockmesh::{Fingerprint, Reason, Store, WriteError};

use crate::model::{Change, Model, Write, add, perform};

/// A step: writes that are made at once, to different products, so that their order does not matter.
pub(crate) type Step = Vec<Write>;

/// Writes of every kind: single, counted, priced, batches, and many at once.
pub(crate) fn mixed() -> Vec<Step> {
    let batch: Write = (0..40).map(|number| add(format!("BATCH-{number:02}"), 7)).collect();
    let priced = vec![add("MUG", -2), Change::Price("MUG".into(), 999), Change::Listed("MUG".into(), true)];
    let at_once = |units: i64| (0..6).map(|number| vec![add(format!("AT-ONCE-{number}"), units)]).collect::<Step>();
    let large: Write = (0..300).map(|number| add(format!("LARGE-{}-{number:03}", "x".repeat(100)), 3)).collect();
    vec![
        vec![vec![add("MUG", 100)]],
        vec![vec![add("MUG", -3)]],
        vec![vec![Change::Count("MUG".into(), 95)]],
        vec![vec![Change::Price("MUG".into(), 1250)]],
        vec![batch.clone()],
        at_once(5),
        vec![priced],
        vec![large],
        vec![vec![Change::Listed("CUP".into(), false)]],
        vec![batch.iter().map(|change| negated(change, 2)).collect()],
        at_once(-1),
        vec![vec![Change::Count("CUP".into(), 0)]],
        vec![vec![Change::Count("CUP".into(), 12)]],
    ]
}

fn negated(change: &Change, units: i64) -> Change {
    match change {
        Change::Add(sku, _) => add(sku.clone(), -units),
        other => other.clone(),
    }
}

/// What is known of a store after a script.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// All acknowledged writes, which must be there.
    pub(crate) acknowledged: Model,
    /// The writes of the group that failed: there together or absent together.
    pub(crate) indeterminate: Vec<Write>,
    /// The fingerprint when nothing was under way, after the last step that was acknowledged.
    pub(crate) fingerprint: Fingerprint,
    pub(crate) refused: usize,
}

impl Known {
    pub(crate) fn either(&self) -> [Model; 2] {
        [self.acknowledged.clone(), self.acknowledged.with(&self.indeterminate)]
    }

    /// Runs a step, and notes what each write was answered.
    pub(crate) async fn run(&mut self, store: &Store, step: &Step) {
        let tasks: Vec<_> = step
            .iter()
            .map(|write| {
                let (store, write) = (store.clone(), write.clone());
                tokio::spawn(async move { (perform(&store, &write).await, write) })
            })
            .collect();
        for task in tasks {
            let (answer, write) = task.await.unwrap();
            match answer {
                Ok(()) => self.acknowledged.apply(&write),
                Err(WriteError::Indeterminate { .. }) => self.indeterminate.push(write),
                Err(WriteError::Poisoned { .. }) => self.refused += 1,
                Err(other) => panic!("{other}"),
            }
        }
        if self.indeterminate.is_empty() && self.refused == 0 {
            self.fingerprint = store.status().fingerprint;
        }
    }
}

/// Writes that must be refused and change nothing: a wrong argument, and numbers that no counter holds.
pub(crate) async fn refused_writes(store: &Store) {
    let before = (Model::of(store), store.status().fingerprint);
    let wrong = store.product("MUG").unwrap().adjust(0, Reason::Lost).await;
    assert!(matches!(wrong, Err(WriteError::Invalid(_))), "{wrong:?}");
    let full = "x".repeat(64);
    assert!(store.batch().receive("MUG", 1).unwrap().receive(&full.repeat(3), 1).is_err());
    // The last location is one too many for one product, so the first operation must not happen either (rule O1).
    let mut batch = store.batch().receive("UNTOUCHED", 1).unwrap();
    for number in 0..2049 {
        batch = batch.at(&format!("place-{number}")).unwrap().receive("WIDE", 1).unwrap();
    }
    let refused = batch.commit().await;
    assert!(matches!(refused, Err(WriteError::Refused(_))), "{refused:?}");
    assert_eq!((Model::of(store), store.status().fingerprint), before);
}
