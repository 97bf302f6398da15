//! Block references of a record that lies in memory whole, of which nothing else is of interest: most records are such,
//! and the machine of `body.rs`, which can stop at any byte, would take three times as long for them.

use super::event::{BlockRef, RelFile};
use super::page::u32_at;
use super::visitor::Visitor;
use crate::pg::Lsn;

/// Tells of the blocks of a record's body; `None` where it does not have the form that it should have.
pub(super) fn tell_blocks<V: Visitor>(lsn: Lsn, mut body: &[u8], major: u16, visitor: &mut V) -> Option<()> {
    let compressed = if major >= 15 { 0x04 | 0x08 | 0x10 } else { 0x02 };
    // Bytes of images, block data and main data announced so far; they follow the headers.
    let mut data = 0;
    let mut last_rel = None;
    while body.len() > data {
        let id = take::<1>(&mut body)?;
        match id {
            [0..=32] => {
                let [flags, low, high] = take(&mut body)?;
                data += usize::from(u16::from_le_bytes([low, high]));
                if flags & 0x10 != 0 {
                    let [low, high, _, _, info] = take(&mut body)?;
                    data += usize::from(u16::from_le_bytes([low, high]));
                    if info & 1 != 0 && info & compressed != 0 {
                        take::<2>(&mut body)?;
                    }
                }
                let rel = if flags & 0x80 == 0 { rel_of(take(&mut body)?)? } else { last_rel? };
                last_rel = Some(rel);
                let block = u32::from_le_bytes(take(&mut body)?);
                visitor.block(lsn, BlockRef { rel, fork: flags & 0x0F, block });
            }
            // The top-level transaction of a subtransaction (14+) and the replication origin.
            [252] => drop(take::<4>(&mut body)?),
            [253] => drop(take::<2>(&mut body)?),
            [255] => {
                let [len] = take(&mut body)?;
                return (body.len() == data + usize::from(len)).then_some(());
            }
            [254] => {
                let len = u32::from_le_bytes(take(&mut body)?);
                return (body.len() as u64 == data as u64 + u64::from(len)).then_some(());
            }
            _ => return None,
        }
    }
    // A record need not have main data.
    (body.len() == data).then_some(())
}

fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (field, rest) = body.split_first_chunk::<N>()?;
    *body = rest;
    Some(*field)
}

fn rel_of(field: [u8; 12]) -> Option<RelFile> {
    Some(RelFile { tablespace: u32_at(&field, 0)?, database: u32_at(&field, 4)?, relation: u32_at(&field, 8)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::body::Body;
    use super::super::header::RecordHeader;
    use super::*;

    #[derive(Default, Debug, PartialEq)]
    struct Blocks(Vec<BlockRef>);

    impl Visitor for Blocks {
        const BLOCKS: bool = true;

        fn block(&mut self, _: Lsn, block: BlockRef) {
            self.0.push(block);
        }
    }

    /// Bodies that are nearly right.
    fn body() -> impl Strategy<Value = Vec<u8>> {
        let block = (0..34_u8, any::<u8>(), 0..300_u16, any::<[u8; 16]>(), any::<[u8; 7]>());
        let main = prop_oneof![Just(vec![]), Just(vec![255_u8, 3]), Just(vec![254, 4, 0, 0, 0]), Just(vec![253, 1, 2, 255, 0])];
        let tail = prop_oneof![3 => Just(0_i64), 1 => -3..4_i64];
        (prop::collection::vec(block, 0..4), main, any::<bool>(), tail).prop_map(|(blocks, main, top, tail)| {
            let (mut bytes, mut data) = (Vec::new(), 0_i64);
            if top {
                bytes.extend([252, 1, 2, 3, 4]);
            }
            for (id, flags, len, place, image) in blocks {
                bytes.extend([id, flags]);
                bytes.extend(len.to_le_bytes());
                data += i64::from(len);
                if flags & 0x10 != 0 {
                    bytes.extend([image[0], 0, image[2], image[3], image[4] & 0x1F]);
                    data += i64::from(image[0]);
                    if image[4] & 1 != 0 && image[4] & 0x1C != 0 {
                        bytes.extend(&image[5..]);
                    }
                }
                bytes.extend(if flags & 0x80 == 0 { &place[..] } else { &place[..4] });
            }
            data += match main.as_slice() {
                [255, 3] => 3,
                [254, ..] => 4,
                _ => 0,
            };
            bytes.extend(&main);
            bytes.resize((bytes.len() as i64 + data + tail).max(0) as usize, 0x5A);
            bytes
        })
    }

    proptest! {
        /// What the machine that takes any bytes in any pieces finds, and no more.
        #[test]
        fn blocks_are_those_of_the_machine(body in prop_oneof![9 => body(), 1 => prop::collection::vec(any::<u8>(), 0..60)], major in 13..=18_u16) {
            let mut head = [0; 24];
            head[..4].copy_from_slice(&(24 + body.len() as u32).to_le_bytes());
            head[17] = 10;
            let header = RecordHeader::parse(&head).unwrap();
            let mut expected = Blocks::default();
            let mut machine = Body::new::<Blocks>(Lsn(5), &header, major).unwrap();
            let is_right = machine.bytes(&body, &mut expected).is_ok() && machine.finish().is_ok();
            let mut found = Blocks::default();
            prop_assert_eq!(tell_blocks(Lsn(5), &body, major, &mut found).is_some(), is_right);
            prop_assert_eq!(found, expected);
        }
    }
}
