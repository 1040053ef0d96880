//! W&B's record file: a log in LevelDB's format, with a header of its own and another checksum.
//!
//! The file is a sequence of blocks of 32 KiB. A record has a head (`crc: u32, length: u16, kind: u8`); one that does not fit
//! into its block is split.
//!
//! Sources: github.com/google/leveldb, `doc/log_format.md`; wandb 0.16, `wandb/sdk/internal/datastore.py` (MIT).

const BLOCK: usize = 32_768;
const HEAD: usize = 7;

/// `:W&B`, the magic number 0xBEE1, version 0.
const BEGIN: [u8; HEAD] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];

/// Whether a part is a whole record, or which part of one it is.
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// The bytes of a log, of which the length so far decides where the next block begins.
#[derive(Debug)]
pub(super) struct Log {
    length: u64,
}

impl Log {
    /// A new log, and its first bytes.
    pub(super) fn begin() -> (Self, Vec<u8>) {
        let length = BEGIN.len() as u64;
        (Self { length }, BEGIN.to_vec())
    }

    /// The bytes of a further record.
    pub(super) fn record(&mut self, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(data.len() + HEAD);
        let mut rest = data;
        let mut begun = false;
        loop {
            let mut room = self.room(bytes.len());
            if room < HEAD {
                bytes.resize(bytes.len() + room, 0);
                room = BLOCK;
            }
            let (part, after) = rest.split_at(rest.len().min(room - HEAD));
            let kind = match (begun, after.is_empty()) {
                (false, true) => FULL,
                (false, false) => FIRST,
                (true, false) => MIDDLE,
                (true, true) => LAST,
            };
            bytes.extend(crc(kind, part).to_le_bytes());
            bytes.extend((part.len() as u16).to_le_bytes());
            bytes.push(kind);
            bytes.extend(part);
            (rest, begun) = (after, true);
            if rest.is_empty() {
                break;
            }
        }
        self.length += bytes.len() as u64;
        bytes
    }

    /// Bytes that are left in the block after `more` further ones.
    fn room(&self, more: usize) -> usize {
        BLOCK - (self.length as usize + more) % BLOCK
    }
}

/// The checksum of a part: that of zlib over its kind and its bytes.
fn crc(kind: u8, part: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(part);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The records of a log, read as wandb's `datastore.py` reads them.
    fn read(log: &[u8]) -> Vec<Vec<u8>> {
        let mut at = BEGIN.len();
        assert_eq!(log[..at], BEGIN);
        let mut records: Vec<Vec<u8>> = Vec::new();
        while at < log.len() {
            let left = BLOCK - at % BLOCK;
            if left < HEAD {
                assert!(log[at..at + left].iter().all(|byte| *byte == 0));
                at += left;
                continue;
            }
            let length = usize::from(u16::from_le_bytes([log[at + 4], log[at + 5]]));
            let (kind, data) = (log[at + 6], &log[at + HEAD..at + HEAD + length]);
            assert_eq!(log[at..at + 4], crc(kind, data).to_le_bytes());
            assert!(HEAD + length <= left, "a part within a block");
            match kind {
                FULL | FIRST => records.push(data.to_vec()),
                _ => records.last_mut().unwrap().extend(data),
            }
            at += HEAD + length;
        }
        records
    }

    #[test]
    fn a_record_is_that_of_the_wandb_package() {
        // zlib.crc32(b"\x01abc") in Python
        let (mut log, begin) = Log::begin();
        assert_eq!(begin, b":W&B\xe1\xbe\x00");
        assert_eq!(log.record(b"abc"), b"\xa9\x20\x9d\x53\x03\x00\x01abc");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn records_read_back_across_blocks(
            lengths in prop::collection::vec(prop_oneof![0_usize..90, 32_740_usize..32_775, 0_usize..100_000], 1..8)
        ) {
            let (mut log, mut bytes) = Log::begin();
            let records: Vec<Vec<u8>> = lengths.iter().map(|length| vec![*length as u8; *length]).collect();
            for record in &records {
                bytes.extend(log.record(record));
            }
            prop_assert_eq!(read(&bytes), records);
        }
    }
}
