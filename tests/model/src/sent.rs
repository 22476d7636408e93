//! Messages that were sent. None is ever taken out: so each may come late, twice, in any order, or never.

use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A set of messages, in an order of its own.
#[derive(Clone, Debug)]
pub(crate) struct Sent<M>(Vec<(u64, Arc<M>)>);

impl<M> Default for Sent<M> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<M: Debug> Sent<M> {
    pub(crate) fn add(&mut self, message: M) {
        let mut hasher = DefaultHasher::new();
        format!("{message:?}").hash(&mut hasher);
        let digest = hasher.finish();
        if let Err(place) = self.0.binary_search_by_key(&digest, |(known, _)| *known) {
            self.0.insert(place, (digest, Arc::new(message)));
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn get(&self, number: usize) -> Arc<M> {
        self.0[number].1.clone()
    }

    pub(crate) fn into_iter(self) -> impl Iterator<Item = Arc<M>> {
        self.0.into_iter().map(|(_, message)| message)
    }
}

impl<M> Hash for Sent<M> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.len().hash(state);
        self.0.iter().for_each(|(digest, _)| digest.hash(state));
    }
}

impl<M> PartialEq for Sent<M> {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().map(|(digest, _)| digest).eq(other.0.iter().map(|(digest, _)| digest))
    }
}
