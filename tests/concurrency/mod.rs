//! Models of the table, the committer and the subscriptions: a few threads of the production code, over thousands of
//! schedules that shuttle chooses, at random and by PCT (Burckhardt et al. 2010, "A Randomized Scheduler with Probabilistic
//! Guarantees of Finding Bugs"). `tests/concurrency/models` runs them.
//!
//! What is checked, against a disk that knows what a loss of power would leave: readers see writes whole; a vector, its
//! delta and its fingerprint are of one moment; what was acknowledged, sent, pushed or told to a subscription is durable;
//! nobody waits for ever.
//!
//! What stays outside:
//! - The inside of tokio's channels: each use of one is one step here. tokio checks them with loom.
//! - Orderings weaker than `SeqCst`: the journal's figures in the status are the only ones.
//! - parking_lot keeps new readers waiting behind a writer that waits; here they are let in. So a thread that takes a
//!   lock for reading twice is looked for by itself.
//! - Panics of the committing thread, the network, and the simulator's committer without a thread.

mod closing;
mod failing;
mod gathering;
mod leaving;
mod subscribing;
mod support;
mod table;
