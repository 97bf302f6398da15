//! Bytes that the server or the file system calls a name, as text that loses nothing.
//!
//! Paths and names are bytes to PostgreSQL, in whatever encoding somebody chose. What is valid UTF-8 is shown as it is; any other byte,
//! a control character and the backslash itself as `\xNN` or `\\`, so different bytes never look the same.

/// The text.
pub fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                control if control.is_control() => {
                    let mut utf8 = [0; 4];
                    control.encode_utf8(&mut utf8).bytes().for_each(|byte| push_hex(&mut text, byte));
                }
                other => text.push(other),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_hex(&mut text, *byte));
    }
    text
}

fn push_hex(text: &mut String, byte: u8) {
    text.push_str(&format!("\\x{byte:02x}"));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::escaped;

    #[test]
    fn what_can_be_read_is_left_alone() {
        assert_eq!(escaped("/srv/größe 1".as_bytes()), "/srv/größe 1");
        assert_eq!(escaped(b"/srv/caf\xE9\n\\"), "/srv/caf\\xe9\\x0a\\\\");
        assert_eq!(escaped("\u{85}".as_bytes()), "\\xc2\\x85");
    }

    proptest! {
        #[test]
        fn different_bytes_are_different_texts(a in prop::collection::vec(any::<u8>(), 0..12), b in prop::collection::vec(any::<u8>(), 0..12)) {
            prop_assert_eq!(a == b, escaped(&a) == escaped(&b));
        }
    }
}
