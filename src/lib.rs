//! An embedded, replicated inventory store: stock counts and prices that converge over QUIC.

pub mod storage;
