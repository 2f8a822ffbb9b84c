//! A segment's name and header: which part of the journal a file is.

/// Bytes of a segment's header.
pub(super) const HEADER: usize = 40;
const MAGIC: [u8; 8] = *b"soukjrnl";
const VERSION: u32 = 1;
const SUFFIX: &str = ".journal";

/// The file name of a segment: its number in twelve digits, so that names sort as numbers do.
pub(super) fn name(segment: u64) -> String {
    format!("{segment:012}{SUFFIX}")
}

/// The segment a file name stands for; none for other files.
pub(super) fn number(file: &str) -> Option<u64> {
    let digits = file.strip_suffix(SUFFIX)?;
    (digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// The header of a segment whose first record is the journal's `index`th.
pub(super) fn header(segment: u64, index: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&segment.to_le_bytes());
    bytes[24..32].copy_from_slice(&index.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..32]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// The index of the first record, if `bytes` are the header of `segment`.
pub(super) fn read(bytes: &[u8], segment: u64) -> Option<u64> {
    let index = u64::from_le_bytes(*bytes.get(24..)?.first_chunk()?);
    (bytes == header(segment, index)).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_for_its_segment_only() {
        let bytes = header(7, 99);
        assert_eq!(read(&bytes, 7), Some(99));
        assert_eq!(read(&bytes, 8), None);
        for at in 0..HEADER {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert_eq!(read(&bad, 7), None, "byte {at}");
        }
        assert_eq!(read(&bytes[..30], 7), None);
    }

    #[test]
    fn only_segments_have_a_number() {
        assert_eq!(number(&name(12)), Some(12));
        assert_eq!(number("lock"), None);
        assert_eq!(number("12.journal"), None);
        assert_eq!(number("00000000001x.journal"), None);
    }
}
