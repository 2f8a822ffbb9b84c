//! Archives read as they come: a header at a time, and a check that a layer unpacks to no more than its own bytes.
//!
//! An engine writes what an archive says. What says more than it holds (sparse files) is refused, and so is what programs read
//! differently. Then nothing that is unpacked is larger than what was sent and counted.

use thiserror::Error;

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;
/// Most entries of a layer: each costs the engine's disk an inode.
const MAX_ENTRIES: u64 = 4_000_000;
/// Bytes of extended attributes of one entry.
const MAX_EXTENDED: u64 = 1 << 20;
/// Bytes of a long name.
const MAX_NAME: u64 = 64 * 1024;

/// What is wrong with an archive.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum TarError {
    /// A header's checksum is wrong.
    #[error("a header's checksum is wrong")]
    Checksum,
    /// A number is none.
    #[error("a size is no number")]
    Number,
    /// A kind of entry that layers don't have.
    #[error("it has an entry of a kind that no image needs")]
    Kind,
    /// A file that is larger than what is there of it.
    #[error("it has a sparse file")]
    Sparse,
    /// Extended attributes that can't be read, or are too long.
    #[error("it has malformed attributes")]
    Extended,
    /// Too many entries.
    #[error("it has too many entries")]
    Entries,
    /// Bytes after the end.
    #[error("something follows its end")]
    Trailing,
    /// It ends within an entry.
    #[error("it ends too early")]
    Short,
}

/// An entry's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) kind: u8,
    /// Bytes of content that follow, without padding.
    pub(super) size: u64,
}

impl Header {
    /// Reads a header; none for a block of zeros.
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Option<Self>, TarError> {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let told = octal(&block[148..156])?;
        let sum = |signed: bool| {
            block.iter().enumerate().fold(0_i64, |sum, (at, byte)| {
                let byte = if (148..156).contains(&at) { b' ' } else { *byte };
                sum + if signed { i64::from(byte.cast_signed()) } else { i64::from(byte) }
            })
        };
        let told = i64::try_from(told).map_err(|_| TarError::Checksum)?;
        if told != sum(false) && told != sum(true) {
            return Err(TarError::Checksum);
        }
        let kind = block[156];
        let size = number(&block[124..136])?;
        // Links, devices and folders have no content, whatever their header says.
        let size = if (b'1'..=b'6').contains(&kind) { 0 } else { size };
        let until_nul = |field: &[u8]| field.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        let mut name = until_nul(&block[..100]);
        if &block[257..262] == b"ustar" && block[345] != 0 && &block[257..265] != b"ustar  \0" {
            let mut long = until_nul(&block[345..500]);
            long.push(b'/');
            long.extend(name);
            name = long;
        }
        Ok(Some(Self { name, kind, size }))
    }

    /// A header for a plain file of this name (at most 100 bytes) and size.
    pub(super) fn file(name: &str, size: u64) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let put = |block: &mut [u8; BLOCK], at: usize, text: &[u8]| {
            for (to, from) in block.iter_mut().skip(at).zip(text) {
                *to = *from;
            }
        };
        put(&mut block, 0, &name.as_bytes()[..name.len().min(100)]);
        put(&mut block, 100, b"0000644\0");
        put(&mut block, 108, b"0000000\0");
        put(&mut block, 116, b"0000000\0");
        if size < 1 << 33 {
            put(&mut block, 124, format!("{size:011o}\0").as_bytes());
        } else {
            block[124] = 0x80;
            put(&mut block, 128, &size.to_be_bytes());
        }
        put(&mut block, 136, b"00000000000\0");
        put(&mut block, 148, b"        ");
        block[156] = b'0';
        put(&mut block, 257, b"ustar\x0000");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut block, 148, format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

/// Bytes up to the next block.
pub(super) const fn padding(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn octal(field: &[u8]) -> Result<u64, TarError> {
    let digits = field.iter().copied().skip_while(|byte| *byte == b' ' || *byte == 0);
    let mut value = 0_u64;
    let mut ended = false;
    for byte in digits {
        match byte {
            b' ' | 0 => ended = true,
            b'0'..=b'7' if !ended => {
                value = value.checked_mul(8).and_then(|v| v.checked_add(u64::from(byte - b'0'))).ok_or(TarError::Number)?;
            }
            _ => return Err(TarError::Number),
        }
    }
    Ok(value)
}

fn number(field: &[u8]) -> Result<u64, TarError> {
    let Some((first, rest)) = field.split_first() else { return Err(TarError::Number) };
    if first & 0x80 == 0 {
        return octal(field);
    }
    // Large numbers are binary; a negative one is no size.
    if *first != 0x80 {
        return Err(TarError::Number);
    }
    rest.iter().try_fold(0_u64, |value, byte| {
        value.checked_mul(256).and_then(|v| v.checked_add(u64::from(*byte))).ok_or(TarError::Number)
    })
}

#[derive(Debug)]
enum State {
    Header,
    Content { left: u64, kept: Option<(u8, Vec<u8>)>, padding: u64 },
    End,
}

/// Checks a layer as its bytes come.
#[derive(Debug)]
pub struct LayerCheck {
    state: State,
    block: Vec<u8>,
    entries: u64,
    /// The size of the next entry, where its attributes say it.
    size: Option<u64>,
}

impl Default for LayerCheck {
    fn default() -> Self {
        Self { state: State::Header, block: Vec::with_capacity(BLOCK), entries: 0, size: None }
    }
}

impl LayerCheck {
    /// Takes further bytes.
    ///
    /// # Errors
    /// What no layer has.
    pub fn take(&mut self, mut bytes: &[u8]) -> Result<(), TarError> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Header => {
                    let part = bytes.len().min(BLOCK - self.block.len());
                    let (now, later) = bytes.split_at(part);
                    self.block.extend_from_slice(now);
                    bytes = later;
                    if self.block.len() == BLOCK {
                        let block: [u8; BLOCK] = self.block.as_slice().try_into().map_err(|_| TarError::Short)?;
                        self.block.clear();
                        self.begin(&block)?;
                    }
                }
                State::Content { left, kept, padding } => {
                    let part = bytes.len().min(usize::try_from(*left + *padding).unwrap_or(usize::MAX));
                    let (now, later) = bytes.split_at(part);
                    let content = now.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    if let Some((_, kept)) = kept {
                        kept.extend_from_slice(&now[..content]);
                    }
                    *left -= content as u64;
                    *padding -= (now.len() - content) as u64;
                    bytes = later;
                    if *left == 0 && *padding == 0 {
                        let kept = kept.take();
                        self.state = State::Header;
                        self.end(kept)?;
                    }
                }
                State::End => {
                    if bytes.iter().any(|byte| *byte != 0) {
                        return Err(TarError::Trailing);
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// All bytes have come.
    ///
    /// # Errors
    /// If an entry is not whole.
    pub fn finish(&self) -> Result<(), TarError> {
        match &self.state {
            State::Header if self.block.is_empty() && self.size.is_none() => Ok(()),
            State::End => Ok(()),
            State::Header | State::Content { .. } => Err(TarError::Short),
        }
    }

    fn begin(&mut self, block: &[u8; BLOCK]) -> Result<(), TarError> {
        let Some(header) = Header::parse(block)? else {
            self.state = State::End;
            return Ok(());
        };
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(TarError::Entries);
        }
        let describes = matches!(header.kind, b'x' | b'g' | b'L' | b'K');
        let most = match header.kind {
            b'x' | b'g' => MAX_EXTENDED,
            b'L' | b'K' => MAX_NAME,
            b'S' => return Err(TarError::Sparse),
            0 | b'0'..=b'7' => u64::MAX,
            _ => return Err(TarError::Kind),
        };
        let told = if describes { None } else { self.size.take() };
        let plain = matches!(header.kind, 0 | b'0' | b'7');
        let size = if plain { told.unwrap_or(header.size) } else { header.size };
        if size > most || size.checked_add(BLOCK as u64).is_none() {
            return Err(if describes { TarError::Extended } else { TarError::Number });
        }
        if size > 0 {
            let kept = matches!(header.kind, b'x' | b'g').then(|| (header.kind, Vec::new()));
            self.state = State::Content { left: size, kept, padding: padding(size) };
        }
        Ok(())
    }

    fn end(&mut self, kept: Option<(u8, Vec<u8>)>) -> Result<(), TarError> {
        let Some((kind, records)) = kept else { return Ok(()) };
        // Wherever a program may read it: no word of it.
        if records.windows(10).any(|word| word == b"GNU.sparse") {
            return Err(TarError::Sparse);
        }
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let blank = rest.iter().position(|byte| *byte == b' ').ok_or(TarError::Extended)?;
            let length: usize =
                std::str::from_utf8(&rest[..blank]).ok().and_then(|text| text.parse().ok()).ok_or(TarError::Extended)?;
            if length <= blank + 1 || length > rest.len() || rest[length - 1] != b'\n' {
                return Err(TarError::Extended);
            }
            let record = &rest[blank + 1..length - 1];
            if let Some(value) = record.strip_prefix(b"size=") {
                // For all entries at once it would make no sense.
                let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                self.size = Some(size.filter(|_| kind == b'x').ok_or(TarError::Extended)?);
            }
            rest = &rest[length..];
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(kind: u8, name: &str, content: &[u8]) -> Vec<u8> {
        let mut block = Header::file(name, content.len() as u64);
        block[156] = kind;
        seal(&mut block);
        let mut bytes = block.to_vec();
        bytes.extend(content);
        bytes.resize(bytes.len() + usize::try_from(padding(content.len() as u64)).unwrap(), 0);
        bytes
    }

    fn seal(block: &mut [u8; BLOCK]) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    fn check(parts: &[Vec<u8>], step: usize) -> Result<(), TarError> {
        let mut check = LayerCheck::default();
        for piece in parts.concat().chunks(step) {
            check.take(piece)?;
        }
        check.finish()
    }

    fn record(key: &str, value: &str) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let length = (1..).find(|digits| (body + digits).to_string().len() == *digits).map(|digits| body + digits);
        format!("{} {key}={value}\n", length.unwrap()).into_bytes()
    }

    #[test]
    fn ordinary_layers_pass_and_tricks_do_not() {
        let end = || vec![0; 2 * BLOCK];
        let good = [entry(b'5', "a/", b""), entry(b'0', "a/b", b"content"), entry(b'2', "l", b""), end()];
        for step in [1, 7, 512, 100_000] {
            assert_eq!(check(&good, step), Ok(()));
            assert_eq!(check(&[entry(b'x', "p", &record("size", "3")), entry(b'0', "f", b"abc"), end()], step), Ok(()));
        }
        assert_eq!(check(&good[..3], 512), Ok(()), "an end without zeros is one");
        assert_eq!(check(&[entry(b'S', "s", b"x"), end()], 512), Err(TarError::Sparse));
        for key in ["GNU.sparse.realsize", "GNU.sparse.map", "x.GNU.sparse"] {
            let sparse = [entry(b'x', "p", &record(key, "99999999999")), entry(b'0', "f", b""), end()];
            assert_eq!(check(&sparse, 512), Err(TarError::Sparse));
        }
        assert_eq!(check(&[entry(b'V', "v", b""), end()], 512), Err(TarError::Kind));
        assert_eq!(check(&[entry(b'x', "p", b"999 a=b\n"), end()], 512), Err(TarError::Extended));
        assert_eq!(check(&[entry(b'g', "p", &record("size", "3")), end()], 512), Err(TarError::Extended));
        assert_eq!(check(&[end(), b"more".to_vec()], 512), Err(TarError::Trailing));
        assert_eq!(check(&[good.concat()[..600].to_vec()], 512), Err(TarError::Short));
        let mut bad = entry(b'0', "f", b"");
        bad[0] ^= 1;
        assert_eq!(check(&[bad], 512), Err(TarError::Checksum));
        // A size beyond all bounds, told in binary.
        let mut block = Header::file("f", u64::MAX);
        seal(&mut block);
        assert_eq!(check(&[block.to_vec()], 512), Err(TarError::Number));
        // More than was sent: an entry that claims more bytes than follow.
        let mut block = Header::file("f", 1 << 40);
        seal(&mut block);
        assert_eq!(check(&[block.to_vec(), vec![0; 512]], 512), Err(TarError::Short));
    }
}
