

pub mod storage;
