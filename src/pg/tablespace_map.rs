//! `tablespace_map`: where the tablespaces of a backup were (`do_pg_backup_start` in `access/transam/xlog.c`).

/// The links that a restored `pg_tblspc` needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TablespaceMap {
    /// Object id, as decimal digits, and path of each.
    pub entries: Vec<(Vec<u8>, Vec<u8>)>,
}

impl TablespaceMap {
    /// Reads the file: a line `<oid> <path>` each, in which line feeds, carriage returns and backslashes of the path
    /// follow a backslash. `None` when it is not such a file.
    pub fn parse(content: &[u8]) -> Option<Self> {
        let (mut entries, mut line) = (Vec::new(), Vec::new());
        let mut bytes = content.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => line.push(*bytes.next()?),
                b'\n' => {
                    let space = line.iter().position(|byte| *byte == b' ')?;
                    let (oid, path) = line.split_at_checked(space)?;
                    let path = path.get(1..).filter(|path| !path.is_empty())?;
                    if oid.is_empty() || !oid.iter().all(u8::is_ascii_digit) {
                        return None;
                    }
                    entries.push((oid.to_vec(), path.to_vec()));
                    line.clear();
                }
                byte => line.push(*byte),
            }
        }
        line.is_empty().then_some(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_undone_and_nonsense_is_refused() {
        let map = TablespaceMap::parse(b"16399 /mnt/fast disk\n16400 /odd\\\n\\\\x\\\r\n").unwrap();
        let entries: Vec<(&[u8], &[u8])> = map.entries.iter().map(|(oid, path)| (oid.as_slice(), path.as_slice())).collect();
        assert_eq!(entries, [(&b"16399"[..], &b"/mnt/fast disk"[..]), (b"16400", b"/odd\n\\x\r")]);
        assert_eq!(TablespaceMap::parse(b""), Some(TablespaceMap::default()));
        for bad in ["16399 /mnt", "16399\n", "x /mnt\n", " /mnt\n", "16399 \n", "16399 /mnt\\"] {
            assert_eq!(TablespaceMap::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
