//! Randomness: the one place that draws it.

#[cfg(feature = "testing")]
pub(crate) use crate::simulation::{random, random_range};
#[cfg(not(feature = "testing"))]
pub(crate) use rand::{random, random_range};
