//! Memory of objects that were stored, for the next ones: to fill fresh pages costs more than to write to them.
//!
//! Lives here: [`SpareBuffers`]. May not live here: what the bytes are. Depends on nothing else.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Buffers that nobody uses, up to a number of them. Clones share them.
#[derive(Debug, Clone)]
pub struct SpareBuffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    most: usize,
}

impl SpareBuffers {
    /// Keeps at most this many buffers; others are freed when their object is gone.
    pub fn keeping(most: usize) -> Self {
        Self { free: Arc::default(), most }
    }

    /// An empty buffer with room for this many bytes. Pages of a new one are only taken when they are filled.
    pub(super) fn take(&self, room_bytes: usize) -> Vec<u8> {
        let mut buffer = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.reserve_exact(room_bytes);
        buffer
    }

    /// What the buffer holds from `start` on, without a copy. Its memory is kept here for another object as soon as
    /// nobody uses this one any more.
    pub(super) fn object(&self, buffer: Vec<u8>, start: usize) -> Bytes {
        Bytes::from_owner(InUse { buffer, start, spare: self.clone() })
    }

    fn give_back(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < self.most {
            free.push(buffer);
        }
    }
}

/// An object whose memory goes back when it is dropped.
struct InUse {
    buffer: Vec<u8>,
    start: usize,
    spare: SpareBuffers,
}

impl AsRef<[u8]> for InUse {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.spare.give_back(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MIB;

    fn kept(spare: &SpareBuffers) -> usize {
        spare.free.lock().unwrap().len()
    }

    #[test]
    fn memory_is_used_again_unless_it_is_in_use() {
        let spare = SpareBuffers::keeping(3);
        let mut first = spare.take(MIB);
        first.resize(1000, 7);
        let address = first.as_ptr();
        let object = spare.object(first, 200);
        assert_eq!(*object, [7; 800]);
        assert_eq!(object.as_ptr(), address.wrapping_add(200), "it was copied");
        let other = object.slice(700..);
        drop(object);
        assert_eq!(kept(&spare), 0, "somebody has it in use");
        drop(other);
        let again = spare.clone().take(MIB);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
        assert_eq!(kept(&spare), 0, "it was given twice");
    }

    #[test]
    fn no_more_is_kept_than_wanted() {
        let spare = SpareBuffers::keeping(3);
        let objects: Vec<Bytes> = (0..7).map(|_| spare.object(vec![0; 10], 0)).collect();
        drop(objects);
        assert_eq!(kept(&spare), 3, "memory grows without bound");
    }
}
