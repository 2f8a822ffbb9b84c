//! SFTP's packets, version 3: cut from a stream, read field by field, and put together.
//!
//! Owns the bounds: no packet is longer than [`PACKET`], and no field is read past its packet's end.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// Bytes of one packet, as OpenSSH has it.
pub const PACKET: usize = 256 * 1024;

/// What an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    Ok = 0,
    End = 1,
    NoSuchFile = 2,
    Denied = 3,
    Failure = 4,
    BadMessage = 5,
    Unsupported = 8,
}

/// The next packet; none at the stream's end.
pub fn read_packet(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; 4];
    match from.read(&mut header[..1])? {
        0 => return Ok(None),
        _ => from.read_exact(&mut header[1..])?,
    }
    let length = usize::try_from(u32::from_be_bytes(header)).unwrap_or(usize::MAX);
    if length == 0 || length > PACKET {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("an SFTP packet of {length} bytes")));
    }
    let mut packet = vec![0; length];
    from.read_exact(&mut packet)?;
    Ok(Some(packet))
}

/// The packet ended before its fields did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short;

/// Fields of a packet, in order.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Short)?;
        self.0 = rest;
        Ok(taken)
    }

    pub fn byte(&mut self) -> Result<u8, Short> {
        Ok(self.take(1)?[0])
    }

    pub fn u32(&mut self) -> Result<u32, Short> {
        self.take(4)?.try_into().map(u32::from_be_bytes).map_err(|_| Short)
    }

    pub fn u64(&mut self) -> Result<u64, Short> {
        self.take(8)?.try_into().map(u64::from_be_bytes).map_err(|_| Short)
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Short> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| Short)?)
    }

    pub fn path(&mut self) -> Result<OsString, Short> {
        let bytes = self.bytes()?;
        // An empty path means where we are.
        Ok(if bytes.is_empty() { OsString::from(".") } else { OsString::from_vec(bytes.to_vec()) })
    }

    pub fn attributes(&mut self) -> Result<Attributes, Short> {
        let flags = self.u32()?;
        let mut read = Attributes::default();
        if flags & Attributes::SIZE != 0 {
            read.size = Some(self.u64()?);
        }
        if flags & Attributes::OWNER != 0 {
            read.owner = Some((self.u32()?, self.u32()?));
        }
        if flags & Attributes::MODE != 0 {
            read.mode = Some(self.u32()?);
        }
        if flags & Attributes::TIMES != 0 {
            read.times = Some((self.u32()?, self.u32()?));
        }
        Ok(read)
    }
}

/// What is known of a file, or wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    pub size: Option<u64>,
    pub owner: Option<(u32, u32)>,
    pub mode: Option<u32>,
    /// Read and changed, in seconds since the Unix epoch.
    pub times: Option<(u32, u32)>,
}

impl Attributes {
    const SIZE: u32 = 1;
    const OWNER: u32 = 2;
    const MODE: u32 = 4;
    const TIMES: u32 = 8;
}

/// An answer being put together.
#[derive(Debug)]
pub struct Answer(Vec<u8>);

impl Answer {
    /// To the request of this number.
    pub fn new(kind: u8, request: u32) -> Self {
        Self::bare(kind).u32(request)
    }

    /// To no request.
    pub fn bare(kind: u8) -> Self {
        Self(vec![0, 0, 0, 0, kind])
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub fn bytes(self, value: &[u8]) -> Self {
        let mut with = self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        with.0.extend_from_slice(value);
        with
    }

    pub fn text(self, value: &OsStr) -> Self {
        self.bytes(value.as_bytes())
    }

    pub fn attributes(self, a: &Attributes) -> Self {
        let flag = |there: bool, flag: u32| if there { flag } else { 0 };
        let flags = flag(a.size.is_some(), Attributes::SIZE)
            | flag(a.owner.is_some(), Attributes::OWNER)
            | flag(a.mode.is_some(), Attributes::MODE)
            | flag(a.times.is_some(), Attributes::TIMES);
        let mut with = self.u32(flags);
        if let Some(size) = a.size {
            with = with.u64(size);
        }
        for (first, second) in [a.owner].into_iter().flatten() {
            with = with.u32(first).u32(second);
        }
        if let Some(mode) = a.mode {
            with = with.u32(mode);
        }
        for (first, second) in [a.times].into_iter().flatten() {
            with = with.u32(first).u32(second);
        }
        with
    }

    /// What stands in another answer, after its kind.
    pub fn raw(mut self, other: &Self) -> Self {
        self.0.extend_from_slice(other.0.get(5..).unwrap_or_default());
        self
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// With its length in front.
    pub fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, Attributes, Fields, Short, read_packet};

    #[test]
    fn what_is_written_is_read() {
        let whole = Attributes { size: Some(5), owner: Some((1, 2)), mode: Some(0o644), times: Some((3, 4)) };
        let bytes = Answer::new(105, 9).attributes(&whole).bytes(b"x").finish();
        let packet = read_packet(&mut bytes.as_slice()).ok().flatten().unwrap_or_default();
        let mut fields = Fields(&packet);
        assert_eq!((fields.byte(), fields.u32()), (Ok(105), Ok(9)));
        assert_eq!(fields.attributes(), Ok(whole));
        assert_eq!(fields.bytes(), Ok(&b"x"[..]));
        assert_eq!(fields.byte(), Err(Short));
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        assert!(read_packet(&mut [0xff, 0xff, 0xff, 0xff, 1].as_slice()).is_err());
        assert!(read_packet(&mut [0, 0, 0, 0].as_slice()).is_err());
        assert!(read_packet(&mut [0, 0, 0, 9, 1].as_slice()).is_err());
        assert_eq!(Fields(&[0xff, 0xff, 0xff, 0xff, 1]).bytes(), Err(Short));
    }
}
