//! A reader that tells how many bytes come through it.

use std::io::{self, Read};

/// Counts bytes as they are read.
pub(super) struct Metered<'m, R> {
    pub(super) inner: R,
    pub(super) read: &'m (dyn Fn(usize) + Sync),
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        (self.read)(n);
        Ok(n)
    }
}
