//! Ids of 16 bytes, as text 32 hexadecimal digits: of keys and of repositories.

use std::fmt;

/// Defines an id: a type of its own, so that one kind of id is never taken for another.
macro_rules! hex_id {
    ($(#[$docs:meta])* $name:ident) => {
        $(#[$docs])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// Reads 32 hexadecimal digits.
            pub fn parse(text: &str) -> Option<Self> {
                let mut id = [0; 16];
                hex::decode_to_slice(text, &mut id).ok()?;
                Some(Self(id))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

hex_id! {
    /// Tells keys apart without telling anything about them.
    KeyId
}

hex_id! {
    /// Tells repositories apart; random, bound into every object.
    RepositoryId
}

impl KeyId {
    /// The id of a key: a one-way function of it. `context` says what kind of key it is.
    pub(super) fn derive(context: &str, key: &[u8; 32]) -> Self {
        let mut id = [0; 16];
        blake3::Hasher::new_derive_key(context).update(key).finalize_xof().fill(&mut id);
        Self(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_as_it_is_read() {
        let text = "00112233445566778899aabbccddeeff";
        assert_eq!(KeyId::parse(text).unwrap().to_string(), text);
        assert_eq!(format!("{:?}", RepositoryId::parse(&text.to_uppercase()).unwrap()), text);
        for other in
            ["", "00112233445566778899aabbccddeef", "00112233445566778899aabbccddeeff00", "g0112233445566778899aabbccddeeff"]
        {
            assert_eq!(KeyId::parse(other), None, "{other}");
        }
    }
}
