//! Signed documents: [`Signed<T>`] as it came, [`Verified<T>`] once checked.
//!
//! A document's author signs `blake3::derive_key(T::CONTEXT, network ‖ payload)`, where `payload` is its canonical CBOR; that
//! digest is the document's id. The payload's bytes are carried and stored verbatim and never re-encoded to verify. A
//! [`Verified<T>`] comes from [`Signed::verify`] or from signing with the author's own key, and from nowhere else; the ledger
//! and the engine take nothing else.

use std::{fmt, marker::PhantomData, ops::Deref, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned};

use crate::{
    encode::{self, DecodeError},
    id::{DocumentId, NetworkId, NodeId},
    key::{BadKey, Keypair, PublicKey},
};

/// Something one node says and signs.
pub trait Document: Serialize + DeserializeOwned {
    /// Separates kinds of signatures: `souk 2026-11 <kind> v1`.
    const CONTEXT: &'static str;
    /// The kind's name, as error messages say it.
    const NAME: &'static str;
    /// The longest payload, in bytes.
    const MAX_BYTES: usize;

    /// Whose signature it needs.
    fn author(&self) -> NodeId;

    /// Checks what no later event can make right: bounds of texts, lists and numbers.
    ///
    /// # Errors
    /// The sentence that says what is out of bounds.
    fn check(&self) -> Result<(), Invalid>;

    /// Verifies the documents of others that this one rests on and carries.
    ///
    /// # Errors
    /// [`VerifyError`], what is wrong with one of them.
    fn check_carried(&self, _network: &NetworkId) -> Result<(), VerifyError> {
        Ok(())
    }
}

/// What is wrong with a document whatever the time and place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    /// Fails with `what` unless `holds`.
    ///
    /// # Errors
    /// `what`, if it does not hold.
    pub fn unless(holds: bool, what: &str) -> Result<(), Self> {
        if holds { Ok(()) } else { Err(Self(what.to_owned())) }
    }

    /// Fails if a text is longer than `max` bytes or has control characters.
    ///
    /// # Errors
    /// Names the field.
    pub fn text(value: &str, max: usize, field: &str) -> Result<(), Self> {
        if value.len() > max {
            return Err(Self(format!("{field} is {} bytes long, at most {max} are allowed", value.len())));
        }
        if value.chars().any(char::is_control) {
            return Err(Self(format!("{field} has control characters")));
        }
        Ok(())
    }
}

/// Why a signed document was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The payload does not decode.
    #[error("{0}: {1}")]
    Decode(&'static str, #[source] DecodeError),
    /// The payload decodes, but breaks a bound.
    #[error("{0}: {1}")]
    Invalid(&'static str, #[source] Invalid),
    /// The author's key can't be used.
    #[error("{0}: {1}")]
    Key(&'static str, #[source] BadKey),
    /// The signature is not the author's over this payload in this network.
    #[error("{0}: the signature is not its author's in this network")]
    Signature(&'static str),
}

/// The bytes of a signed document, cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Envelope {
    payload: Arc<[u8]>,
    signature: [u8; 64],
}

impl Envelope {
    fn mark(&self) -> [u8; 16] {
        std::array::from_fn(|i| self.signature[i])
    }
}

/// A document as received: bytes and a signature that nobody has checked.
pub struct Signed<T> {
    envelope: Envelope,
    kind: PhantomData<fn() -> T>,
}

impl<T> Clone for Signed<T> {
    fn clone(&self) -> Self {
        Self { envelope: self.envelope.clone(), kind: PhantomData }
    }
}

impl<T> PartialEq for Signed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.envelope == other.envelope
    }
}

impl<T> Eq for Signed<T> {}

impl<T> fmt::Debug for Signed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} bytes)", self.envelope.payload.len())
    }
}

/// The digest that the author of `payload` signs.
#[must_use]
pub fn digest(context: &str, network: &NetworkId, payload: &[u8]) -> DocumentId {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    hasher.update(&network.0).update(payload);
    DocumentId(*hasher.finalize().as_bytes())
}

impl<T> Signed<T> {
    /// The first half of the signature's first half: finds one among many, and proves nothing.
    pub(crate) fn mark(&self) -> [u8; 16] {
        self.envelope.mark()
    }
}

impl<T: Document> Signed<T> {
    /// The id this document has if it verifies in `network`.
    #[must_use]
    pub fn id(&self, network: &NetworkId) -> DocumentId {
        digest(T::CONTEXT, network, &self.envelope.payload)
    }

    /// The payload's bytes as received.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.envelope.payload
    }

    /// Checks length, form, bounds and signature.
    ///
    /// # Errors
    /// [`VerifyError`], which of these failed.
    pub fn verify(&self, network: &NetworkId) -> Result<Verified<T>, VerifyError> {
        self.verify_with(network, PublicKey::of)
    }

    /// As [`Signed::verify`], with the author's key from `key`, which may remember decompressed ones.
    ///
    /// # Errors
    /// [`VerifyError`], which of the checks failed.
    pub fn verify_with(
        &self,
        network: &NetworkId,
        key: impl FnOnce(&NodeId) -> Result<PublicKey, BadKey>,
    ) -> Result<Verified<T>, VerifyError> {
        self.verify_identified(network, self.id(network), key, |_| false)
    }

    /// As [`Signed::verify_with`], for one whose [`Signed::id`] in its network was computed already, by a reader that may know
    /// the documents it carries: they are verified unless `known` says that the very same bytes have been.
    pub(crate) fn verify_identified(
        &self,
        network: &NetworkId,
        id: DocumentId,
        key: impl FnOnce(&NodeId) -> Result<PublicKey, BadKey>,
        known: impl FnOnce(&T) -> bool,
    ) -> Result<Verified<T>, VerifyError> {
        let value: T =
            encode::from_bytes(&self.envelope.payload, T::MAX_BYTES).map_err(|e| VerifyError::Decode(T::NAME, e))?;
        value.check().map_err(|e| VerifyError::Invalid(T::NAME, e))?;
        let key = key(&value.author()).map_err(|e| VerifyError::Key(T::NAME, e))?;
        if !key.verifies(&id.0, &self.envelope.signature) {
            return Err(VerifyError::Signature(T::NAME));
        }
        if !known(&value) {
            value.check_carried(network)?;
        }
        Ok(Verified { value: Arc::new(value), id, envelope: self.envelope.clone() })
    }
}

/// A document whose form, bounds and signature have been checked.
pub struct Verified<T> {
    value: Arc<T>,
    id: DocumentId,
    envelope: Envelope,
}

impl<T> Clone for Verified<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), id: self.id, envelope: self.envelope.clone() }
    }
}

impl<T> PartialEq for Verified<T> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.envelope == other.envelope
    }
}

impl<T> Eq for Verified<T> {}

impl<T: fmt::Debug> fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({}, {:?})", self.id.short(), self.value)
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Document> Verified<T> {
    /// Signs a document as its author.
    ///
    /// # Errors
    /// [`VerifyError::Invalid`] if the value breaks its own bounds, [`VerifyError::Signature`] if `key` is not its author's.
    pub fn sign(value: T, key: &Keypair, network: &NetworkId) -> Result<Self, VerifyError> {
        value.check().map_err(|e| VerifyError::Invalid(T::NAME, e))?;
        if value.author() != key.node_id() {
            return Err(VerifyError::Signature(T::NAME));
        }
        value.check_carried(network)?;
        let payload: Arc<[u8]> = encode::to_bytes(&value).into();
        if payload.len() > T::MAX_BYTES {
            let too_long = DecodeError::TooLong { len: payload.len(), max: T::MAX_BYTES };
            return Err(VerifyError::Decode(T::NAME, too_long));
        }
        let id = digest(T::CONTEXT, network, &payload);
        let signature = key.sign(&id.0);
        Ok(Self { value: Arc::new(value), id, envelope: Envelope { payload, signature } })
    }

    /// The digest that was signed.
    #[must_use]
    pub const fn id(&self) -> DocumentId {
        self.id
    }

    /// Whether these are the very bytes of this document, signature included.
    pub(crate) fn is(&self, signed: &Signed<T>) -> bool {
        self.envelope == signed.envelope
    }

    /// As [`Signed::mark`].
    pub(crate) fn mark(&self) -> [u8; 16] {
        self.envelope.mark()
    }

    /// The document as it is sent and stored.
    #[must_use]
    pub fn to_signed(&self) -> Signed<T> {
        Signed { envelope: self.envelope.clone(), kind: PhantomData }
    }

    /// The payload's bytes as signed.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.envelope.payload
    }
}

impl<T> Serialize for Signed<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            return (hex::encode(&self.envelope.payload), hex::encode(self.envelope.signature)).serialize(s);
        }
        let parts =
            (serde_bytes::Bytes::new(&self.envelope.payload), serde_bytes::Bytes::new(&self.envelope.signature));
        parts.serialize(s)
    }
}

impl<'de, T> Deserialize<'de> for Signed<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let (payload, signature): (Vec<u8>, [u8; 64]) = if d.is_human_readable() {
            let (payload, signature) = <(String, String)>::deserialize(d)?;
            let mut bytes = [0; 64];
            hex::decode_to_slice(signature, &mut bytes).map_err(D::Error::custom)?;
            (hex::decode(payload).map_err(D::Error::custom)?, bytes)
        } else {
            let (payload, signature) = <(serde_bytes::ByteBuf, serde_bytes::ByteArray<64>)>::deserialize(d)?;
            (payload.into_vec(), signature.into_array())
        };
        Ok(Self { envelope: Envelope { payload: payload.into(), signature }, kind: PhantomData })
    }
}
