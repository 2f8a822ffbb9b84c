//! Evidence between nodes: what of a ledger is shown, and how what others show is read.
//!
//! A shown lease is read without its history: every signature is checked, the receipt's sum is recomputed from the terms it
//! names, closes and their answers must fit each other. What only the whole history can tell (each amendment's own grounds) is
//! covered by the renter's signature under the receipt that names them. Owns no budget and no store.

use souk_protocol::{
    LeaseId, NetworkId, NodeId, Signed, Timestamp, Verified, VerifyError,
    entry::{Body, Entry},
    evidence::{EvidencePage, LEASE_ENDS, LeaseEvidence, PAGE_ENTRIES, PAGE_LEASES},
    limits,
    signed::Document,
};

use crate::{
    lease::{Lease, Receipt, Receipts, Status},
    pair::SettlementKey,
    record::Held,
    reputation::Paid,
    state::{Refusal, check_ack, check_shape},
    view::{QueryError, View},
};

#[cfg(test)]
mod tests;

/// Leases looked through for one page that is only about one pair.
const LOOKED_AT: usize = 256;

/// Why shown evidence is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unproven {
    /// A signature does not hold, or a document breaks its bounds.
    #[error("a document does not verify: {0}")]
    Verify(#[from] VerifyError),
    /// The documents do not fit each other.
    #[error("the documents do not fit each other: {0}")]
    Fit(&'static str),
    /// They break the rules of a lease.
    #[error("the documents do not make a lease: {0}")]
    Rule(#[from] Refusal),
    /// It is about others.
    #[error("it is about others than the node that shows it")]
    OfOthers,
    /// It is from the future.
    #[error("it is dated ahead")]
    Ahead,
}

/// A page that was read: everything in it verified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Read {
    /// Leases of the node that showed it.
    pub leases: Vec<Lease>,
    /// Payments acknowledged by their payees, of which the node is a party.
    pub payments: Vec<Paid>,
    /// Attestations about the node, and by it.
    pub attestations: Vec<Held<Entry>>,
}

/// Reads a page that `from` has shown of itself.
///
/// # Errors
/// [`Unproven`] at the first thing that is wrong: nothing of the page counts then.
pub fn read(page: &EvidencePage, from: &NodeId, network: &NetworkId, now: Timestamp) -> Result<Read, Unproven> {
    let mut read = Read::default();
    for shown in &page.leases {
        let lease = read_lease(shown, network, now)?;
        if lease.peer_of(from).is_none() {
            return Err(Unproven::OfOthers);
        }
        read.leases.push(lease);
    }
    for signed in &page.payments {
        let entry = entry(signed, network, now)?;
        let (Body::SettleAck(ack), Some(payer)) = (&entry.body, entry.peer) else {
            return Err(Unproven::Fit("a payment that its payee has not acknowledged"));
        };
        if entry.author != *from && payer != *from {
            return Err(Unproven::OfOthers);
        }
        read.payments.push(Paid { payer, payee: entry.author, currency: ack.currency.clone(), total: ack.total });
    }
    for signed in &page.attestations {
        let entry = entry(signed, network, now)?;
        if !matches!(entry.body, Body::Attestation(_)) {
            return Err(Unproven::Fit("an attestation that is none"));
        }
        if entry.peer != Some(*from) && entry.author != *from {
            return Err(Unproven::OfOthers);
        }
        read.attestations.push(Held::from(&entry));
    }
    Ok(read)
}

fn entry(signed: &Signed<Entry>, network: &NetworkId, now: Timestamp) -> Result<Verified<Entry>, Unproven> {
    let entry = signed.verify(network)?;
    if entry.time > now + limits::CLOCK_SKEW { Err(Unproven::Ahead) } else { Ok(entry) }
}

fn held<T: Document + Clone>(signed: &Signed<T>, network: &NetworkId) -> Result<Held<T>, Unproven> {
    Ok(Held::from(&signed.verify(network)?))
}

/// Reads one shown lease.
///
/// # Errors
/// [`Unproven`].
pub fn read_lease(shown: &LeaseEvidence, network: &NetworkId, now: Timestamp) -> Result<Lease, Unproven> {
    let open = entry(&shown.open, network, now)?;
    let Body::LeaseOpen { draft } = &open.body else { return Err(Unproven::Fit("no open")) };
    let draft = held(draft, network)?;
    let id = LeaseId::from(draft.id);
    if open.author != draft.value.renter || open.peer != Some(draft.value.host) || open.lease != Some(id) {
        return Err(Unproven::Fit("the open is not of this lease"));
    }
    let mut lease = Lease::opened(draft, Held::from(&open));
    let shaped = |lease: &mut Lease, signed: &Signed<Entry>| -> Result<(), Unproven> {
        let entry = entry(signed, network, now)?;
        if entry.lease != Some(id) {
            return Err(Unproven::Fit("an entry of another lease"));
        }
        let by_host = entry.author == lease.host();
        match &entry.body {
            // What the host alone may put in force, or what the renter has signed a receipt under.
            Body::Amended(amended) if by_host && entry.peer == Some(lease.renter()) => {
                let rises = lease.amended.last().and_then(|e| e.value.body.amended());
                if rises.is_some_and(|last| last.terms.n >= amended.terms.n) {
                    return Err(Unproven::Fit("its amendments are not in order"));
                }
                lease.amended.push(Held::from(&entry));
                return Ok(());
            }
            Body::LeaseAccept { .. } | Body::Close { .. } | Body::CloseAck { .. } | Body::Dispute(_) => {
                check_shape(lease, &entry)?;
            }
            Body::Genesis { .. }
            | Body::LeaseOpen { .. }
            | Body::Void { .. }
            | Body::Placement { .. }
            | Body::Amend { .. }
            | Body::Amended(_)
            | Body::Anchor { .. }
            | Body::Settle(_)
            | Body::SettleAck(_)
            | Body::Attestation(_)
            | Body::Probe(_)
            | Body::Checkpoint(_) => return Err(Unproven::Fit("an entry that says nothing of how it went")),
        }
        let place = match (&entry.body, by_host) {
            (Body::LeaseAccept { .. }, _) => &mut lease.answer,
            (Body::Close { .. }, true) => &mut lease.host_close,
            (Body::Close { .. }, false) => &mut lease.renter_close,
            (Body::CloseAck { .. }, true) => &mut lease.host_close_ack,
            (Body::CloseAck { .. }, false) => &mut lease.renter_close_ack,
            (_, true) => &mut lease.host_dispute,
            (_, false) => &mut lease.renter_dispute,
        };
        *place = Some(Held::from(&entry));
        Ok(())
    };
    shaped(&mut lease, &shown.accept)?;
    if lease.answer.is_none() {
        return Err(Unproven::Fit("its host has not accepted it"));
    }
    for amended in &shown.amended {
        shaped(&mut lease, amended)?;
    }
    if let Some((usage, ack)) = &shown.receipt {
        lease.receipts.agreed = Some(read_receipt(&lease, usage, ack, network, now)?);
    }
    if shown.ends.len() > LEASE_ENDS {
        return Err(Unproven::Fit("it ends too often"));
    }
    for end in &shown.ends {
        shaped(&mut lease, end)?;
    }
    Ok(lease)
}

fn read_receipt(
    lease: &Lease,
    usage: &Signed<souk_protocol::receipt::Usage>,
    ack: &Signed<souk_protocol::receipt::Ack>,
    network: &NetworkId,
    now: Timestamp,
) -> Result<Receipt, Unproven> {
    let (usage, ack) = (held(usage, network)?, held(ack, network)?);
    let of_lease = usage.value.lease == lease.id() && ack.value.lease == lease.id();
    if !of_lease || usage.value.host != lease.host() || ack.value.renter != lease.renter() {
        return Err(Unproven::Fit("a receipt of another lease"));
    }
    if ack.value.usage != usage.id || ack.value.n != usage.value.n {
        return Err(Unproven::Fit("an acknowledgement of another usage"));
    }
    if usage.value.time > now + limits::CLOCK_SKEW {
        return Err(Unproven::Ahead);
    }
    check_ack(&usage.value, &ack.value)?;
    let terms = lease.terms_numbered(usage.value.terms).ok_or(Unproven::Fit("the terms of a receipt are missing"))?;
    let due = terms.due_in(&lease.draft.value, &usage.value.counters, usage.value.state);
    if due.map_err(Refusal::Overflow)? != usage.value.due {
        return Err(Unproven::Fit("a sum that is not what the rates make of its counts"));
    }
    Ok(Receipt { usage, ack })
}

/// What of a lease is shown; none if it never came to be.
#[must_use]
pub fn show_lease(lease: &Lease) -> Option<LeaseEvidence> {
    if matches!(lease.status(), Status::Opened | Status::Void) {
        return None;
    }
    let agreed = lease.receipts.agreed.as_ref();
    let named = agreed.map(|r| r.usage.value.terms);
    let newest = lease.terms().n;
    let number = |e: &Held<Entry>| e.value.body.amended().map(|a| a.terms.n);
    let amended = lease.amended.iter().filter(|e| number(e) == named || number(e) == Some(newest));
    let ends = [
        &lease.host_close,
        &lease.renter_close,
        &lease.host_close_ack,
        &lease.renter_close_ack,
        &lease.host_dispute,
        &lease.renter_dispute,
    ];
    Some(LeaseEvidence {
        open: lease.open.signed.clone(),
        accept: lease.answer.as_ref()?.signed.clone(),
        amended: amended.map(|e| e.signed.clone()).collect(),
        receipt: agreed.map(|r| (r.usage.signed.clone(), r.ack.signed.clone())),
        ends: ends.into_iter().flatten().map(|e| e.signed.clone()).collect(),
    })
}

impl View {
    /// A page of what this node shows of itself: its newest leases below the number `before`, only those with `with` if given.
    ///
    /// # Errors
    /// [`QueryError`] if store or journal fail.
    pub fn show(&self, with: Option<&NodeId>, before: Option<u64>, now: Timestamp) -> Result<EvidencePage, QueryError> {
        let own = self.own();
        let looked_at = if with.is_some() { LOOKED_AT } else { PAGE_LEASES };
        let mut page = EvidencePage::default();
        let found = self.page(before, looked_at)?;
        let mut last = None;
        let mut pairs: Vec<SettlementKey> = Vec::new();
        for lease in &found {
            last = Some(lease.number);
            let Some(peer) = lease.peer_of(&own).filter(|peer| with.is_none_or(|with| with == peer)) else { continue };
            let Some(shown) = show_lease(lease) else { continue };
            let key = SettlementKey { peer, currency: lease.currency().clone(), by_us: lease.renter() == own };
            if !pairs.contains(&key) {
                pairs.push(key);
            }
            page.leases.push(shown);
            if page.leases.len() >= PAGE_LEASES {
                break;
            }
        }
        let whole = page.leases.len() < PAGE_LEASES && found.len() < looked_at;
        page.next = last.filter(|n| !whole && *n > 1);
        for key in &pairs {
            let acked = self.newest_settlement(key)?.and_then(|row| row.ack);
            let acked = match acked {
                Some(acked) => Some(acked),
                // The newest may not be answered yet.
                None => self.settlements(key, 4)?.into_iter().find_map(|row| row.ack),
            };
            if let Some(acked) = acked.filter(|_| page.payments.len() < PAGE_ENTRIES) {
                let author = if key.by_us { key.peer } else { own };
                page.payments.extend(self.entry(&author, acked.seq)?);
            }
        }
        if before.is_none() {
            // What we vouch for ourselves, withdrawn or not: nobody can show an older word of ours as the newest.
            let mut by_us: Vec<u64> = self.attestations_by(&own)?.into_iter().map(|(.., row)| row.seq).collect();
            by_us.sort_unstable_by(|a, b| b.cmp(a));
            for seq in by_us.into_iter().take(PAGE_ENTRIES / 2) {
                page.attestations.extend(self.entry(&own, seq)?);
            }
            let about_us = self.attestations_about(&own)?.into_iter().filter(|(.., row)| row.holds(now));
            for (author, _, row) in about_us.take(PAGE_ENTRIES / 2) {
                page.attestations.extend(self.entry(&author, row.seq)?);
            }
        }
        Ok(page)
    }
}

impl Lease {
    /// A lease of which nothing but its open is known.
    #[must_use]
    pub(crate) fn opened(draft: Held<souk_protocol::lease::LeaseDraft>, open: Held<Entry>) -> Self {
        Self {
            draft,
            open,
            answer: None,
            placement: None,
            amends: Vec::new(),
            amended: Vec::new(),
            host_close: None,
            renter_close: None,
            host_close_ack: None,
            renter_close_ack: None,
            host_dispute: None,
            renter_dispute: None,
            renter_probe: None,
            state: None,
            events: 0,
            number: 0,
            label: None,
            receipts: Receipts::default(),
        }
    }
}
