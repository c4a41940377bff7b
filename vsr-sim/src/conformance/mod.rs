//! Contracts of the traits as tests that any implementation can run.

pub mod storage;
