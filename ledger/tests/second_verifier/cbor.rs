//! CBOR that may be wrong: read into a tree, changed, and written back, canonically or not.

use proptest::test_runner::TestRng;

use super::dice::Dice;

/// A value, with whatever is needed to write it back as it was.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Number(u64),
    Negative(u64),
    Bytes(Vec<u8>),
    Text(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// `false`, `true`, `null` and what else there is: the whole first byte.
    Simple(u8),
}

pub const NULL: Value = Value::Simple(0xf6);

impl Value {
    /// Reads canonical bytes.
    pub fn read(bytes: &[u8]) -> Self {
        let mut rest = bytes;
        let value = Self::take(&mut rest);
        assert!(rest.is_empty(), "only whole values are read");
        value
    }

    fn take(rest: &mut &[u8]) -> Self {
        let first = rest[0];
        let minor = first & 31;
        let size = if (24..28).contains(&minor) { 1 << (minor - 24) } else { 0 };
        let argument = match size {
            0 => u64::from(minor),
            _ => rest[1..=size].iter().fold(0, |n, byte| n << 8 | u64::from(*byte)),
        };
        *rest = &rest[1 + size..];
        let count = usize::try_from(argument).unwrap_or(usize::MAX);
        let bytes = |rest: &mut &[u8]| {
            let (head, tail) = rest.split_at(count);
            *rest = tail;
            head.to_vec()
        };
        match first >> 5 {
            0 => Self::Number(argument),
            1 => Self::Negative(argument),
            2 => Self::Bytes(bytes(rest)),
            3 => Self::Text(bytes(rest)),
            4 => Self::List((0..count).map(|_| Self::take(rest)).collect()),
            5 => Self::Map((0..count).map(|_| (Self::take(rest), Self::take(rest))).collect()),
            _ => Self::Simple(first),
        }
    }

    /// Canonical bytes, but that maps are written in the order they have.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out, &mut None);
        out
    }

    /// The same, with the `nth` head in a longer form than it needs.
    pub fn write_longer(&self, nth: usize) -> Vec<u8> {
        let mut out = Vec::new();
        self.put(&mut out, &mut Some(nth));
        out
    }

    fn put(&self, out: &mut Vec<u8>, longer: &mut Option<usize>) {
        let mut head = |major: u8, n: u64| {
            let long = match longer {
                Some(0) => {
                    *longer = None;
                    true
                }
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            };
            let least = match n {
                0..24 => 0,
                24..0x100 => 1,
                0x100..0x1_0000 => 2,
                0x1_0000..0x1_0000_0000 => 4,
                _ => 8,
            };
            let size = if long { (least * 2).clamp(1, 8) } else { least };
            match size {
                0 => out.push(major << 5 | n as u8),
                _ => {
                    out.push(major << 5 | (24 + (size as u8).trailing_zeros() as u8));
                    out.extend_from_slice(&n.to_be_bytes()[8 - size..]);
                }
            }
        };
        match self {
            Self::Number(n) => head(0, *n),
            Self::Negative(n) => head(1, *n),
            Self::Bytes(bytes) => {
                head(2, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Self::Text(bytes) => {
                head(3, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Self::List(items) => {
                head(4, items.len() as u64);
                items.iter().for_each(|item| item.put(out, longer));
            }
            Self::Map(pairs) => {
                head(5, pairs.len() as u64);
                for (key, value) in pairs {
                    key.put(out, longer);
                    value.put(out, longer);
                }
            }
            Self::Simple(byte) => out.push(*byte),
        }
    }

    /// How many values there are in it, itself included; keys are not counted.
    fn size(&self) -> usize {
        1 + match self {
            Self::List(items) => items.iter().map(Self::size).sum(),
            Self::Map(pairs) => pairs.iter().map(|(_, value)| value.size()).sum::<usize>(),
            Self::Number(_) | Self::Negative(_) | Self::Bytes(_) | Self::Text(_) | Self::Simple(_) => 0,
        }
    }

    fn nth(&mut self, mut n: usize) -> &mut Self {
        if n == 0 {
            return self;
        }
        n -= 1;
        let children: Vec<&mut Self> = match self {
            Self::List(items) => items.iter_mut().collect(),
            Self::Map(pairs) => pairs.iter_mut().map(|(_, value)| value).collect(),
            Self::Number(_) | Self::Negative(_) | Self::Bytes(_) | Self::Text(_) | Self::Simple(_) => Vec::new(),
        };
        for child in children {
            let size = child.size();
            if n < size {
                return child.nth(n);
            }
            n -= size;
        }
        unreachable!("n is below the size");
    }

    /// The value of a key of a map.
    pub fn get(&mut self, key: &str) -> Option<&mut Self> {
        let Self::Map(pairs) = self else { return None };
        pairs.iter_mut().find(|(k, _)| *k == Self::Text(key.into())).map(|(_, value)| value)
    }

    /// Puts the pairs of every map into canonical order.
    pub fn sort(&mut self) {
        match self {
            Self::List(items) => items.iter_mut().for_each(Self::sort),
            Self::Map(pairs) => {
                pairs.iter_mut().for_each(|(_, value)| value.sort());
                pairs.sort_by_key(|(key, _)| {
                    let text = if let Self::Text(text) = key { text.clone() } else { key.write() };
                    (text.len(), text)
                });
            }
            Self::Number(_) | Self::Negative(_) | Self::Bytes(_) | Self::Text(_) | Self::Simple(_) => {}
        }
    }

    /// Changes one value somewhere in it. The result is mostly canonical, and mostly wrong.
    pub fn twist(&mut self, rng: &mut TestRng) {
        let size = self.size();
        let spot = self.nth(rng.below(size));
        if rng.one_in(8) {
            *spot = if *spot == NULL { Self::Number(rng.magnitude()) } else { NULL };
            return;
        }
        match spot {
            Self::Number(n) => {
                *n = match rng.below(6) {
                    0 => n.wrapping_add(1),
                    1 => n.wrapping_sub(1),
                    2 => 0,
                    3 => u64::MAX,
                    _ => rng.magnitude(),
                }
            }
            Self::Bytes(bytes) => match rng.below(3) {
                0 => drop(bytes.pop()),
                1 => bytes.push(0),
                _ if bytes.is_empty() => bytes.push(1),
                _ => {
                    let at = rng.below(bytes.len());
                    bytes[at] ^= 1 << rng.below(8);
                }
            },
            Self::Text(text) => match rng.below(7) {
                0 => text.clear(),
                1 => text.push(b'\n'),
                2 => text.extend_from_slice("\u{85}".as_bytes()),
                3 => text.push(0xff),
                4 => text.resize(rng.below(700), b'a'),
                5 => text.extend_from_slice("ä".as_bytes()),
                _ => text.push(b"aZ0-_./:@% "[rng.below(11)]),
            },
            Self::List(items) => match rng.below(3) {
                0 => drop(items.pop()),
                1 => items.extend(items.first().cloned()),
                _ => items.resize(rng.below(300), Self::Number(3)),
            },
            Self::Map(pairs) => {
                let at = rng.below(pairs.len().max(1));
                match rng.below(5) {
                    _ if pairs.is_empty() => pairs.push((Self::Text(b"a".to_vec()), NULL)),
                    0 => drop(pairs.remove(at)),
                    1 => pairs.push((Self::Text(b"unknown_field".to_vec()), Self::Number(1))),
                    2 => pairs.push(pairs[at].clone()),
                    3 => pairs.swap(0, at),
                    _ => pairs[at].0 = Self::Number(1),
                }
            }
            Self::Negative(n) => *n = n.wrapping_add(1),
            Self::Simple(byte) => *byte = [0xf4, 0xf5, 0xf6, 0xf7, 0xe0][rng.below(5)],
        }
    }
}
