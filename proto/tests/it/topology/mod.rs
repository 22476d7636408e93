//! Who is linked with whom in clusters of a thousand members, and how updates spread there: with the production's own
//! choices. The figures are printed; `cargo test -p stockmesh-proto --test it topology -- --nocapture` shows them.

mod choice;
mod graph;
mod growth;
mod spread;
