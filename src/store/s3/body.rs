//! The body of an object, read as it arrives.

use std::io::Read;

use aws_sdk_s3::primitives::ByteStream;
use bytes::{Buf, Bytes};

use super::client::Engine;
use super::errors::Failure;
use crate::store::ErrorKind;

/// Reads a body of known length; its end is reported only when all of it was delivered.
pub(super) struct Body<'a> {
    pub(super) engine: &'a Engine,
    pub(super) stream: ByteStream,
    /// What has arrived and was not read yet.
    pub(super) chunk: Bytes,
    /// Bytes that have yet to arrive.
    pub(super) missing: u64,
    pub(super) action: String,
    pub(super) location: &'a str,
}

impl Body<'_> {
    fn next_chunk(&mut self) -> Result<Bytes, Failure> {
        let missing = self.missing;
        let stream = &mut self.stream;
        let chunk = self.engine.wait(|_| async {
            match stream.next().await {
                Some(Ok(chunk)) => Ok(chunk),
                Some(Err(error)) => Err(Failure::unanswered(&error)),
                None => Err(Failure::new(ErrorKind::Unreachable, format!("the body ended {missing} bytes too early"))),
            }
        })?;
        match missing.checked_sub(chunk.len() as u64) {
            Some(left) => {
                self.missing = left;
                Ok(chunk)
            }
            None => Err(Failure::new(ErrorKind::BadAnswer, "the body is longer than was announced")),
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        while self.chunk.is_empty() && self.missing > 0 && !buf.is_empty() {
            self.chunk = self.next_chunk().map_err(|f| f.while_doing(&self.action, self.location).into_io())?;
        }
        let len = buf.len().min(self.chunk.len());
        if let Some(target) = buf.get_mut(..len) {
            self.chunk.copy_to_slice(target);
        }
        Ok(len)
    }
}
