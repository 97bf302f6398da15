//! Checksums of data pages (`storage/checksum_impl.h`), and what they say about a page that was read from a running
//! server.

use super::lsn::Lsn;

/// `BLCKSZ`, of every build that Walvis reads.
pub const PAGE_BYTES: usize = 8192;
/// Pages of a full segment file (`RELSEG_SIZE`): 1 GiB.
pub const PAGES_PER_SEGMENT: u64 = 131_072;

/// The algorithm runs this many sums side by side.
const SUMS: usize = 32;
const PRIME: u32 = 16_777_619;
const START: [u32; SUMS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// A page.
pub type Page = [u8; PAGE_BYTES];

/// The checksum that a page has to carry as block number `block` of its relation (counted across segment files).
pub fn page_checksum(page: &Page, block: u32) -> u16 {
    let mut sums = START;
    let (rows, _) = page.as_chunks::<{ SUMS * 4 }>();
    let mut rows = rows.iter();
    if let Some(first) = rows.next() {
        // The checksum itself counts as zero.
        let mut first = *first;
        first[8] = 0;
        first[9] = 0;
        add_row(&mut sums, &first);
    }
    for row in rows {
        add_row(&mut sums, row);
    }
    for _ in 0..2 {
        add_row(&mut sums, &[0; SUMS * 4]);
    }
    let mixed = sums.iter().fold(0, |mixed, sum| mixed ^ sum) ^ block;
    // 1 to 65,535: 0 stands for "none".
    (mixed % 65_535 + 1) as u16
}

/// No branches and no dependencies between lanes: the compiler makes vector instructions of it.
#[inline(always)]
fn add_row(sums: &mut [u32; SUMS], row: &[u8; SUMS * 4]) {
    let (values, _) = row.as_chunks::<4>();
    for (sum, value) in sums.iter_mut().zip(values) {
        let mixed = *sum ^ u32::from_le_bytes(*value);
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

/// What a page that was read while the server may write to it turns out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageState {
    /// All zeros: allocated, never filled. It has no checksum.
    New,
    /// Its checksum fits.
    Valid {
        /// Its last change.
        lsn: Lsn,
    },
    /// Its checksum does not fit, but it was changed after the backup began, so replay writes it anew whatever was
    /// read.
    Newer {
        /// Its last change, as far as these bytes can be trusted.
        lsn: Lsn,
    },
    /// Its checksum does not fit: it was read while it was written, or it is damaged. Reading it again tells.
    Mismatch {
        /// What it carries.
        found: u16,
        /// What it should carry.
        expected: u16,
    },
    /// Marked as never filled (`pd_upper` is 0), but not all zeros: the server refuses such a page.
    NewWithContent,
}

/// The last change of a page (`pd_lsn`), as far as its bytes can be trusted; the first eight are enough.
pub fn lsn_of(page: &[u8]) -> Lsn {
    let u32_at = |at: usize| page.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes));
    // High half first.
    Lsn(u64::from(u32_at(0)) << 32 | u64::from(u32_at(4)))
}

/// Looks at a page. `start` is where the backup began: what is newer is replayed.
pub fn check_page(page: &Page, block: u32, start: Lsn) -> PageState {
    let u16_at = |at: usize| page.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u16::from_le_bytes(*bytes));
    let lsn = lsn_of(page);
    // pd_upper
    if u16_at(14) == 0 {
        return match () {
            () if is_zero(page) => PageState::New,
            () if lsn >= start => PageState::Newer { lsn },
            () => PageState::NewWithContent,
        };
    }
    // pd_checksum
    let (found, expected) = (u16_at(8), page_checksum(page, block));
    match () {
        () if found == expected => PageState::Valid { lsn },
        () if lsn >= start => PageState::Newer { lsn },
        () => PageState::Mismatch { found, expected },
    }
}

/// Whether all bytes are zeros. Fast for any length.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    rest.iter().all(|byte| *byte == 0) && words.iter().all(|word| word.iter().fold(0, |any, byte| any | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As `checksum_impl.h` reads, without a thought for speed.
    fn by_the_book(page: &Page, block: u32) -> u16 {
        let mut page = *page;
        (page[8], page[9]) = (0, 0);
        let comp = |sum: u32, value: u32| {
            let tmp = sum ^ value;
            tmp.wrapping_mul(PRIME) ^ (tmp >> 17)
        };
        let mut sums = START;
        for i in 0..PAGE_BYTES / (4 * SUMS) {
            for (j, sum) in sums.iter_mut().enumerate() {
                let at = (i * SUMS + j) * 4;
                *sum = comp(*sum, u32::from_le_bytes(page[at..at + 4].try_into().unwrap()));
            }
        }
        for _ in 0..2 {
            for sum in &mut sums {
                *sum = comp(*sum, 0);
            }
        }
        let result = sums.iter().fold(0, |a, b| a ^ b) ^ block;
        (result % 65_535 + 1) as u16
    }

    fn page(seed: u8, lsn: u64) -> Page {
        let mut page = [0; PAGE_BYTES];
        for (i, byte) in page.iter_mut().enumerate() {
            *byte = (i as u8).wrapping_mul(31).wrapping_add(seed);
        }
        page[0..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        page[14..16].copy_from_slice(&4000_u16.to_le_bytes());
        page
    }

    fn signed(mut page: Page, block: u32) -> Page {
        let sum = page_checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn it_is_the_servers_algorithm(bytes in proptest::collection::vec(any::<u8>(), PAGE_BYTES), block: u32) {
            let page: Page = bytes.try_into().unwrap();
            prop_assert_eq!(page_checksum(&page, block), by_the_book(&page, block));
        }

        #[test]
        fn one_changed_byte_or_another_place_is_noticed(seed: u8, at in 0..PAGE_BYTES, bit in 0..8_u32, block: u32) {
            let good = signed(page(seed, 100), block);
            prop_assert_eq!(check_page(&good, block, Lsn(200)), PageState::Valid { lsn: Lsn(100) });
            let mut bad = good;
            bad[at] ^= 1 << bit;
            // A change of the LSN alone may make it look newer; then replay writes it anew.
            let state = check_page(&bad, block, Lsn(200));
            let noticed = matches!(state, PageState::Mismatch { .. } | PageState::Newer { .. });
            prop_assert!(noticed, "{:?}", state);
            let elsewhere_fits = matches!(check_page(&good, block ^ 1, Lsn(200)), PageState::Valid { .. });
            prop_assert!(!elsewhere_fits);
        }
    }

    #[test]
    fn new_pages_and_newer_ones_are_told_apart() {
        assert_eq!(check_page(&[0; PAGE_BYTES], 7, Lsn(1)), PageState::New);
        let mut odd = [0; PAGE_BYTES];
        odd[8000] = 1;
        assert_eq!(check_page(&odd, 7, Lsn(1)), PageState::NewWithContent);
        let unsigned = page(1, 500);
        assert_eq!(check_page(&unsigned, 7, Lsn(500)), PageState::Newer { lsn: Lsn(500) });
        assert!(matches!(check_page(&unsigned, 7, Lsn(501)), PageState::Mismatch { .. }));
        for at in [0, 63, 64, 100] {
            let mut bytes = [0; 101];
            assert!(is_zero(&bytes));
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
        }
        assert!(is_zero(&[]));
    }
}
