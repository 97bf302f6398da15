//! The harness: real servers, real protocols.

pub mod postgres;
pub mod s3;
