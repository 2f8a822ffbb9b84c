//! Canonical bytes: deterministic CBOR, read strictly.
//!
//! Everything that is signed, sent or stored goes through here. There is one encoding of each value (DAG-CBOR: sorted keys,
//! shortest lengths, no indefinite items), and a reader accepts no other: it decodes, encodes again, and compares.

use serde::{Serialize, de::DeserializeOwned};

/// Why bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than this kind of value may be.
    #[error("{len} bytes, but at most {max} are allowed")]
    TooLong {
        /// Bytes received.
        len: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// Not CBOR, or not of the expected shape.
    #[error("malformed: {0}")]
    Malformed(String),
    /// A second encoding of a value that has a canonical one.
    #[error("not in canonical form")]
    NotCanonical,
}

/// Encodes a value canonically.
///
/// # Panics
/// Never for the types of this crate: all of them are representable (no floats, no non-string map keys).
#[must_use]
pub fn to_bytes<T: Serialize>(value: &T) -> Vec<u8> {
    to_bytes_of(value, 0)
}

/// As [`to_bytes`], for a value whose length is known.
fn to_bytes_of<T: Serialize>(value: &T, length: usize) -> Vec<u8> {
    use serde_ipld_dagcbor::ser::{BufWriter, Serializer};
    let mut serializer = Serializer::new(BufWriter::new(Vec::with_capacity(length)));
    // A failure would need a type that CBOR can't hold; an empty result then fails every decode instead of crashing a node.
    let done = value.serialize(&mut serializer);
    done.map(|()| serializer.into_inner().into_inner()).unwrap_or_default()
}

/// Decodes a value from exactly these bytes.
///
/// # Errors
/// [`DecodeError`] if the bytes are longer than `max`, malformed, followed by more, or not in canonical form.
pub fn from_bytes<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, DecodeError> {
    if bytes.len() > max {
        return Err(DecodeError::TooLong { len: bytes.len(), max });
    }
    let value: T = serde_ipld_dagcbor::from_slice(bytes).map_err(|e| DecodeError::Malformed(short(&e.to_string())))?;
    if to_bytes_of(&value, bytes.len()) == bytes { Ok(value) } else { Err(DecodeError::NotCanonical) }
}

/// The decoder's words, without the wrapping of its debug form.
fn short(text: &str) -> String {
    let inner = text.strip_prefix("Msg(\"").and_then(|t| t.strip_suffix("\")")).unwrap_or(text);
    inner.replace("\\\"", "\"").chars().take(120).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn second_encodings_and_trailing_bytes_are_refused() {
        let good = to_bytes(&(1u8, "a"));
        assert_eq!(from_bytes::<(u8, String)>(&good, 16).unwrap(), (1, "a".to_owned()));
        let mut trailing = good.clone();
        trailing.push(0);
        assert!(from_bytes::<(u8, String)>(&trailing, 16).is_err());
        // 1 as a two-byte integer.
        let long = [&[0x82, 0x18, 0x01][..], &good[2..]].concat();
        assert!(from_bytes::<(u8, String)>(&long, 16).is_err());
        assert!(matches!(from_bytes::<(u8, String)>(&good, 2), Err(DecodeError::TooLong { .. })));
    }
}
