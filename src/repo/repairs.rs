//! Good copies of damaged objects, which stand beside them where nothing can be deleted: their names, and reading on in
//! one where the object itself fails.
//!
//! May not live here: where good copies come from ([`verify`](crate::verify)).

use std::io::{self, Write};
use std::ops::ControlFlow;

use super::object_name::ObjectName;
use super::prefix::Prefix;
use super::raw_objects::{ListedObject, RawObjects};
use crate::codec::CodecError;
use crate::error::Error;
use crate::limits::MAX_REPAIRS;

impl RawObjects {
    /// The good copies that stand beside an object, the newest first. They are numbered without gaps, so this costs one
    /// request more than there are.
    ///
    /// # Errors
    /// As the store's.
    pub fn repairs(&self, of: &ObjectName) -> Result<Vec<ObjectName>, Error> {
        let mut found = Vec::new();
        for number in 1..=MAX_REPAIRS {
            let name = ObjectName::Repair { number, of: Box::new(of.clone()) };
            if !self.exists(&name)? {
                break;
            }
            found.push(name);
        }
        found.reverse();
        Ok(found)
    }

    /// Visits all good copies of all objects, in the order of their names, until the visitor breaks.
    ///
    /// # Errors
    /// As the store's.
    pub fn visit_repairs(&self, visit: &mut dyn FnMut(&ObjectName, ListedObject) -> ControlFlow<()>) -> Result<(), Error> {
        self.list(Prefix::Repairs, "", &mut |object| match object.name.repaired().cloned() {
            Some(of) => visit(&of, object),
            None => ControlFlow::Continue(()),
        })
    }
}

/// Whether an object is not what was sealed, so that a good copy may be read instead. A key that is not known counts:
/// its id is in the header, which may be damaged.
pub(super) fn is_damage(error: &CodecError) -> bool {
    matches!(error, CodecError::Damaged(_) | CodecError::UnknownKey(_))
}

/// Hands on what is written, but for a beginning that was handed on before, and knows how much that was.
pub(super) struct ReadOn<'a> {
    sink: &'a mut dyn Write,
    /// Bytes that the sink has.
    has: u64,
    /// Of these, how many are to come again.
    again: u64,
}

impl<'a> ReadOn<'a> {
    pub(super) fn new(sink: &'a mut dyn Write) -> Self {
        Self { sink, has: 0, again: 0 }
    }

    /// What follows is written from its beginning.
    pub(super) fn begin_again(&mut self) {
        self.again = self.has;
    }
}

impl Write for ReadOn<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.again > 0 {
            let known = bytes.len().min(usize::try_from(self.again).unwrap_or(usize::MAX));
            self.again -= known as u64;
            return Ok(known);
        }
        let written = self.sink.write(bytes)?;
        self.has += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_sink_has_is_not_written_again() {
        let mut sink = Vec::new();
        let mut read_on = ReadOn::new(&mut sink);
        read_on.write_all(b"abc").unwrap();
        for _ in 0..2 {
            read_on.begin_again();
            read_on.write_all(b"ab").unwrap();
            read_on.write_all(b"").unwrap();
        }
        read_on.begin_again();
        read_on.write_all(b"abcde").unwrap();
        read_on.write_all(b"f").unwrap();
        assert_eq!(sink, b"abcdef");
    }
}
