//! Numbers of variable length: little-endian in groups of 7 bits (LEB128), of the shortest form alone; signed ones are
//! zigzagged.
//!
//! Lives here: what the formats of catalog, manifest, packs and WAL summaries write numbers with. Depends on nothing.

/// A signed number as an unsigned one, small where its absolute value is.
pub fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// The way back from [`zigzag`].
pub fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Adds the shortest form of a number.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes the shortest form of a number from the front; `None` when there is none, which leaves `bytes` anywhere.
pub fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7F);
        // The tenth byte has room for one bit; a last byte of 0 would be a longer form than needed.
        if (shift == 63 && bits > 1) || (shift > 0 && *byte == 0) {
            return None;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_and_have_one_form() {
        for shift in 0..64 {
            for value in [1_u64 << shift, (1_u64 << shift) - 1, u64::MAX >> shift] {
                let mut bytes = Vec::new();
                put_varint(&mut bytes, value);
                bytes.push(7);
                let mut rest = bytes.as_slice();
                assert_eq!(take_varint(&mut rest), Some(value));
                assert_eq!(rest, [7]);
                assert_eq!(zigzag(unzigzag(value)), value);
            }
        }
        assert_eq!((zigzag(0), zigzag(-1), zigzag(1), zigzag(i64::MIN)), (0, 1, 2, u64::MAX));
    }

    #[test]
    fn longer_forms_and_what_is_no_number_are_refused() {
        let take = |mut bytes: &[u8]| take_varint(&mut bytes);
        assert_eq!(take(&[0x85, 0x00]), None);
        assert_eq!((take(&[]), take(&[0x80]), take(&[0xFF; 9])), (None, None, None));
        let largest = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
        assert_eq!(take(&largest), Some(u64::MAX));
        assert_eq!(take(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02]), None);
        assert_eq!(take(&[0xFF; 11]), None);
    }
}
