//! What renter and host say to each other before there is a lease.

use serde::{Deserialize, Serialize};

use crate::{
    id::{AskId, Digest, DocumentId, MachineId, NodeId, Nonce},
    limits,
    money::{Amount, Currency},
    ports::{self, PortRequest},
    resources::Egress,
    signed::{Document, Invalid},
    time::{Millis, Timestamp},
};

/// How slots are rented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RentalType {
    /// At a fixed price, until the contract's end, not displaced by others.
    OnDemand,
    /// At a bid, changeable at any time: runs while no higher bid and no fixed price has its slots.
    Interruptible,
    /// At a discount for a term; who leaves before its end owes the discount it had.
    Reserved,
}

impl RentalType {
    /// Whether its slots are its own until the contract's end.
    #[must_use]
    pub const fn is_firm(self) -> bool {
        matches!(self, Self::OnDemand | Self::Reserved)
    }

    /// Its name, as commands and lists have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Interruptible => "bid",
            Self::Reserved => "reserved",
        }
    }
}

/// What is written for an image where nothing runs.
pub const NO_IMAGE: &str = "scratch";
/// SHA-256 of no bytes.
const NO_BYTES: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The image a lease runs: as the renter wrote it, and the digest both sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePin {
    /// The reference, `docker.io/library/debian:12` or shorter.
    pub reference: String,
    /// `sha256:…` of the manifest, or of the image's configuration where it came from no registry.
    pub digest: String,
}

impl ImagePin {
    /// The image of what runs nothing: Docker's name for the empty image, and the digest of no bytes.
    #[must_use]
    pub fn none() -> Self {
        Self { reference: NO_IMAGE.to_owned(), digest: format!("sha256:{NO_BYTES}") }
    }

    /// Checks both texts.
    ///
    /// # Errors
    /// Says which is not well-formed.
    pub fn check(&self) -> Result<(), Invalid> {
        check_reference(&self.reference)?;
        check_digest(&self.digest)
    }
}

/// How the reference of an image begins that the renter sends itself, with its digest behind it: `push://my/image:1@sha256:…`. No
/// registry's image is named so.
pub const SENT: &str = "push://";

/// Whether the renter sends this image itself.
#[must_use]
pub fn is_sent(reference: &str) -> bool {
    reference.starts_with(SENT)
}

fn check_reference(reference: &str) -> Result<(), Invalid> {
    Invalid::text(reference, limits::IMAGE_REFERENCE_BYTES, "the image reference")?;
    let plain = !reference.is_empty() && reference.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b));
    Invalid::unless(plain, "the image reference is empty or has characters that none has")
}

fn check_digest(digest: &str) -> Result<(), Invalid> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let ok = hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    Invalid::unless(ok, "the image digest is not sha256 and 64 hexadecimal digits")
}

/// A renter's bid for an ask. Not signed: it binds nobody, and the stream it comes on is its author's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proposal {
    /// The ask: which slots.
    pub ask: AskId,
    /// The offer the renter saw.
    pub offer: DocumentId,
    /// Makes the lease's id unique; the same in all rounds of a negotiation.
    pub nonce: Nonce,
    /// Rounds before this one.
    pub round: u8,
    /// How the slots are rented.
    pub rental: RentalType,
    /// For all slots together, per hour.
    pub price_hour: Amount,
    /// How long the contract shall run; none for as long as the host grants.
    pub term: Option<Millis>,
    /// By how much the host may extend the contract by itself, at the same price or a lower one.
    pub extend: Option<Millis>,
    /// Disk in MB.
    pub disk_mb: u64,
    /// What the guest may reach.
    pub egress: Egress,
    /// Ports that shall be reached from outside.
    pub ports: Vec<PortRequest>,
    /// The image as the renter wrote it.
    pub image: String,
    /// The digest the renter insists on, if it knows one.
    pub image_digest: Option<String>,
    /// Digest of the workload.
    pub workload: Digest,
    /// What the lease may cost at most.
    pub max_spend: Option<Amount>,
    /// Time between two receipts; none for the host's own.
    pub tick: Option<Millis>,
}

impl Proposal {
    /// Checks what is wrong whatever the offer.
    ///
    /// # Errors
    /// Says what.
    pub fn check(&self) -> Result<(), Invalid> {
        check_reference(&self.image)?;
        ports::check_requests(&self.ports)?;
        self.image_digest.as_deref().map_or(Ok(()), check_digest)?;
        Invalid::unless(self.round < limits::ROUNDS, "too many rounds")?;
        Invalid::unless(self.disk_mb >= 1, "no disk asked for")?;
        Invalid::unless(self.extend.is_none_or(|t| t <= limits::TERM), "the extension allowed is over a year")?;
        let reserved = self.rental != RentalType::Reserved || self.term.is_some_and(|t| t >= limits::RESERVED_TERM);
        Invalid::unless(reserved, "a reservation needs a term of an hour or more")?;
        let tick_ok = self.tick.is_none_or(|t| (limits::TICK.0..=limits::TICK.1).contains(&t));
        Invalid::unless(tick_ok, "the tick is not between 1 s and 1 h")?;
        Invalid::unless(
            self.term.is_none_or(|t| t.0 >= 1000 && t <= limits::TERM),
            "the term is not between 1 s and a year",
        )
    }
}

/// A host's answer to a price it does not take: the price it would. Signed, so that a host that does not stand by it can be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counter {
    /// The signer.
    pub host: NodeId,
    /// To whom.
    pub renter: NodeId,
    /// The machine.
    pub machine: MachineId,
    /// The ask.
    pub ask: AskId,
    /// The offer this is measured against.
    pub offer: DocumentId,
    /// Of the proposal it answers.
    pub nonce: Nonce,
    /// Round of the proposal it answers.
    pub round: u8,
    /// For all slots together, per hour.
    pub price_hour: Amount,
    /// The on-demand price of the same slots by the offer named.
    pub listed_hour: Amount,
    /// The currency.
    pub currency: Currency,
    /// Until when the price holds.
    pub valid_until: Timestamp,
}

impl Document for Counter {
    const CONTEXT: &'static str = "souk 2026-11 counter v1";
    const NAME: &'static str = "counter-offer";
    const MAX_BYTES: usize = limits::COUNTER_BYTES;

    fn author(&self) -> NodeId {
        self.host
    }

    fn check(&self) -> Result<(), Invalid> {
        self.currency.check()
    }
}

/// Why a host will not rent, as code; the sentence beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectCode {
    /// The host does not rent to this peer.
    NotAccepted,
    /// The node's owner wants nothing to do with this peer.
    Blocked,
    /// The ask or offer is not known here (any more).
    Stale,
    /// All slots are rented.
    Taken,
    /// Not enough disk is left.
    NoDisk,
    /// The price is below what the host takes, and it will not move.
    Price,
    /// The public ports asked for can't be had.
    Ports,
    /// The image is unknown, too large, or its registry not allowed.
    Image,
    /// The renter owes too much.
    Unpaid,
    /// A term, egress, tick or ceiling that the host does not grant.
    Terms,
    /// Too many proposals, rounds or open drafts.
    Limit,
    /// The host is not renting now (starting, stopping, engine down).
    Unavailable,
    /// The one who asks, or the one it is about, is known to have signed two chains.
    Forked,
    /// The asker is not in the private cluster that the host is in.
    NotMember,
    /// The asker has used up what its private cluster gives it on this host.
    Quota,
    /// The request makes no sense.
    Malformed,
}

/// A refusal. Nothing was changed by the request it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{sentence}")]
pub struct Reject {
    /// For programs.
    pub code: RejectCode,
    /// For people.
    pub sentence: String,
    /// Whether asking again can't help.
    pub is_final: bool,
}

impl Reject {
    /// A refusal that asking again can't change.
    #[must_use]
    pub fn lasting(code: RejectCode, sentence: impl Into<String>) -> Self {
        Self { code, sentence: cut(sentence.into()), is_final: true }
    }

    /// A refusal of the moment.
    #[must_use]
    pub fn passing(code: RejectCode, sentence: impl Into<String>) -> Self {
        Self { code, sentence: cut(sentence.into()), is_final: false }
    }
}

fn cut(mut sentence: String) -> String {
    if sentence.len() > limits::SENTENCE_BYTES {
        let end = (0..=limits::SENTENCE_BYTES).rev().find(|i| sentence.is_char_boundary(*i)).unwrap_or(0);
        sentence.truncate(end);
    }
    sentence
}
