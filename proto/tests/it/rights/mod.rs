//! Rights, holds and references in whole clusters: a model world over the core's own code, on which anything can
//! happen, and small checkers that each state one rule (`PROTOCOL.md`, rules B1 to B6, E1 to E7, O2 to O7, D6, D7).

mod books;
mod breaks;
mod checks;
mod directed;
mod disk;
mod goods;
mod grants;
mod heirs;
mod holds;
mod judge;
mod node;
mod random;
mod refused;
mod retire;
mod spec;
mod steps;
mod world;
