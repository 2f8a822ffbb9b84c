//! One lease as the ledger holds it: every document that shaped it and its newest receipts. No rules here.

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Amount, Currency, LeaseId, NodeId, Timestamp,
    entry::{Body, Entry, VoidCode},
    lease::{EndReason, LeaseDraft, LeaseState},
    receipt::{Ack, Usage},
    terms::LeaseTerms,
};

use crate::record::Held;

/// Usages kept while none of them is acknowledged: a renter that lags more answers the newest one.
pub const RECENT_USAGES: usize = 4;

/// Changes and amendments kept of one lease.
pub const RECENT_AMENDMENTS: usize = 32;

/// How far a lease has come, as its signed documents say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Status {
    /// The renter has taken the draft; the host has not answered.
    Opened = 0,
    /// The host said no.
    Void = 1,
    /// The host accepted.
    Active = 2,
    /// One side has closed it.
    Closing = 3,
    /// The other side has agreed to the close.
    Closed = 4,
}

impl Status {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [Self::Opened, Self::Void, Self::Active, Self::Closing, Self::Closed];

    /// The word lists show.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Void => "void",
            Self::Active => "active",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }
}

/// A usage and the renter's answer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// What the host claims.
    pub usage: Held<Usage>,
    /// What the renter agrees to.
    pub ack: Held<Ack>,
}

/// The newest receipts of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Receipts {
    /// The newest usages, oldest first, at most [`RECENT_USAGES`].
    pub recent: Vec<Held<Usage>>,
    /// The newest pair both have signed.
    pub agreed: Option<Receipt>,
}

/// A lease: its documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The terms, signed by the host. Its id is the lease's.
    pub draft: Held<LeaseDraft>,
    /// The renter's open.
    pub open: Held<Entry>,
    /// The host's accept or void.
    pub answer: Option<Held<Entry>>,
    /// The host's last placement.
    pub placement: Option<Held<Entry>>,
    /// The renter's changes that could still be taken: all of the number after the terms in force, the newest last.
    pub amends: Vec<Held<Entry>>,
    /// The host's amendments, oldest first. The last one is in force; those before it are still named by receipts.
    pub amended: Vec<Held<Entry>>,
    /// The host's close.
    pub host_close: Option<Held<Entry>>,
    /// The renter's close.
    pub renter_close: Option<Held<Entry>>,
    /// The host's answer to the renter's close.
    pub host_close_ack: Option<Held<Entry>>,
    /// The renter's answer to the host's close.
    pub renter_close_ack: Option<Held<Entry>>,
    /// The host's newest complaint.
    #[serde(default)]
    pub host_dispute: Option<Held<Entry>>,
    /// The renter's newest complaint.
    #[serde(default)]
    pub renter_dispute: Option<Held<Entry>>,
    /// What the renter's own meter saw of the host, said at the end.
    #[serde(default)]
    pub renter_probe: Option<Held<Entry>>,
    /// The state this node last saw it in, and since when.
    pub state: Option<(LeaseState, Timestamp)>,
    /// The number of its newest event.
    pub events: u32,
    /// Its row number: this ledger's leases from 1, in the order of their opens.
    pub number: u64,
    /// Its name for people.
    pub label: Option<String>,
    /// The newest receipts. Kept in a row of their own.
    #[serde(skip)]
    pub receipts: Receipts,
}

impl Lease {
    /// Its id.
    #[must_use]
    pub fn id(&self) -> LeaseId {
        self.draft.id.into()
    }

    /// The terms in force.
    #[must_use]
    pub fn terms(&self) -> LeaseTerms {
        let newest = self.amended.last().and_then(|e| e.value.body.amended());
        newest.map_or_else(|| LeaseTerms::drafted(&self.draft.value), |amended| amended.terms)
    }

    /// The terms with this number, if they are still held; zero are the draft's.
    #[must_use]
    pub fn terms_numbered(&self, n: u32) -> Option<LeaseTerms> {
        if n == 0 {
            return Some(LeaseTerms::drafted(&self.draft.value));
        }
        self.amended.iter().filter_map(|e| e.value.body.amended()).map(|a| a.terms).find(|terms| terms.n == n)
    }

    /// Who lets.
    #[must_use]
    pub const fn host(&self) -> NodeId {
        self.draft.value.host
    }

    /// Who rents.
    #[must_use]
    pub const fn renter(&self) -> NodeId {
        self.draft.value.renter
    }

    /// The currency of its amounts.
    #[must_use]
    pub const fn currency(&self) -> &Currency {
        &self.draft.value.currency
    }

    /// When the renter opened it.
    #[must_use]
    pub const fn opened_at(&self) -> Timestamp {
        self.open.value.time
    }

    /// The other party, as seen from `node`; none if `node` is neither.
    #[must_use]
    pub fn peer_of(&self, node: &NodeId) -> Option<NodeId> {
        if *node == self.host() {
            Some(self.renter())
        } else if *node == self.renter() {
            Some(self.host())
        } else {
            None
        }
    }

    /// How far it has come.
    #[must_use]
    pub fn status(&self) -> Status {
        if self.host_close_ack.is_some() || self.renter_close_ack.is_some() {
            Status::Closed
        } else if self.host_close.is_some() || self.renter_close.is_some() {
            Status::Closing
        } else {
            match &self.answer {
                None => Status::Opened,
                Some(answer) if matches!(answer.value.body, Body::Void { .. }) => Status::Void,
                Some(_) => Status::Active,
            }
        }
    }

    /// Whether the host has accepted it. A void is none, also where a close came before it.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| matches!(answer.value.body, Body::LeaseAccept { .. }))
    }

    /// Why the host said no, if it did.
    #[must_use]
    pub fn void(&self) -> Option<(VoidCode, &str)> {
        self.answer.as_ref()?.value.body.voided()
    }

    /// Why it is over, if somebody has closed it. The host's word comes first.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        let close = self.host_close.as_ref().or(self.renter_close.as_ref())?;
        close.value.body.closing().map(|(reason, ..)| reason)
    }

    /// The most the renter has signed for.
    #[must_use]
    pub fn agreed(&self) -> Amount {
        let acked = self.receipts.agreed.as_ref().map(|r| r.ack.value.due);
        [acked, due_of(self.renter_close.as_ref()), due_of(self.renter_close_ack.as_ref())]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or(Amount::ZERO)
    }

    /// What the host claims: its last word at the end, before that its newest usage.
    #[must_use]
    pub fn claimed(&self) -> Amount {
        due_of(self.host_close_ack.as_ref())
            .or_else(|| due_of(self.host_close.as_ref()))
            .or_else(|| self.newest_usage().map(|u| u.value.due))
            .unwrap_or(Amount::ZERO)
    }

    /// The newest usage, acknowledged or not.
    #[must_use]
    pub fn newest_usage(&self) -> Option<&Held<Usage>> {
        let agreed = self.receipts.agreed.as_ref().map(|r| &r.usage);
        self.receipts.recent.last().or(agreed)
    }
}

fn due_of(entry: Option<&Held<Entry>>) -> Option<Amount> {
    let body = &entry?.value.body;
    body.closing().map(|(.., due)| due).or_else(|| body.agreement().map(|(_, due)| due))
}

/// What is between this node and a peer in one currency, over all leases. Cumulative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    /// What this node, as host, claims from the peer.
    pub claimed: Amount,
    /// What the peer, as renter, has signed for.
    pub earned: Amount,
    /// What the peer, as host, claims from this node.
    pub charged: Amount,
    /// What this node, as renter, has signed for.
    pub spent: Amount,
    /// What this node has paid to the peer, by its own word.
    #[serde(default)]
    pub paid: Amount,
    /// What of it the peer has acknowledged.
    #[serde(default)]
    pub paid_acked: Amount,
    /// What the peer says to have paid to this node.
    #[serde(default)]
    pub received_claimed: Amount,
    /// What of it this node has acknowledged.
    #[serde(default)]
    pub received: Amount,
}

impl Balance {
    /// What the peer owes this node, by amounts that both have signed: positive if the peer owes, negative if this node does.
    #[must_use]
    pub const fn owed(&self) -> i128 {
        let to_us = self.earned.0 as i128 - self.received.0 as i128;
        let to_them = self.spent.0 as i128 - self.paid_acked.0 as i128;
        to_us - to_them
    }
}
