//! Entries: the rules of the chain, and what each kind does to its lease.

use souk_protocol::{
    DocumentId, LeaseId, Timestamp,
    checkpoint::Checkpoint,
    entry::{Body, Entry},
    lease::LeaseDraft,
    limits,
    signed::Signed,
    terms::Amended,
};

use super::{Applied, Cached, FoldError, Refusal, State};
use crate::{
    chain::{EntryRow, ForkRow, Head},
    journal::Position,
    keys,
    lease::{Lease, RECENT_AMENDMENTS, Status},
    record::Held,
};

impl State {
    pub(super) fn entry(&mut self, at: Position, entry: Held<Entry>) -> Result<Applied, FoldError> {
        let value = &entry.value;
        let ours = value.author == self.own;
        if !ours && value.peer != Some(self.own) {
            return Err(Refusal::NotOurs.into());
        }
        let head = self.head(&value.author)?;
        let returns = ours && head.is_some_and(|h| value.seq <= h.seq) && self.is_restored()?;
        if let Some(applied) = self.check_neighbours(&entry, ours, returns)? {
            return Ok(applied);
        }
        // One of a gap, that comes back from the one it was for: its neighbours, as far as they are here, fit.
        if !returns {
            if ours && self.sparse && head.as_ref().is_some_and(|head| value.seq <= head.seq) {
                return Err(Refusal::Chain("it comes after a later one of our chain").into());
            }
            check_link(value, head.as_ref(), ours && !self.sparse)?;
        } else if head.is_some_and(|h| h.seq == value.seq && h.id != entry.id) {
            return Err(Refusal::WouldFork("this number is taken").into());
        }
        let row = EntryRow { id: entry.id, prev: value.prev, at };
        let new_head = Head { seq: value.seq, id: entry.id, time: value.time };
        let author = value.author;
        match (&value.body, value.lease) {
            (Body::Genesis { network }, _) => {
                if *network != self.network {
                    return Err(Refusal::Chain("it begins a chain of another network").into());
                }
            }
            (Body::LeaseOpen { draft }, Some(lease)) => {
                let draft = draft.clone();
                self.open(lease, draft, entry)?;
            }
            (Body::Settle(_) | Body::SettleAck(_), _) => self.settlement(entry)?,
            (Body::Attestation(_), _) => self.attestation(&entry)?,
            (Body::Dispute(_), Some(lease)) if self.retired.contains_key(&lease) => self.complain(&lease, value)?,
            (_, Some(lease)) => self.shape(lease, entry)?,
            // The chain row is all there is to it.
            (Body::Probe(_), None) => {}
            (Body::Checkpoint(checkpoint), None) => {
                let checkpoint = checkpoint.clone();
                self.checkpoint(&entry.value, checkpoint)?;
            }
            (_, None) => return Err(Refusal::Lease("it names none").into()),
        }
        self.put(keys::entry(&author, new_head.seq), &row);
        if head.is_none_or(|head| head.seq < new_head.seq) {
            self.put(keys::head(&author), &new_head);
        }
        Ok(Applied::New)
    }

    /// Compares an entry with those held that must fit it: of the same number, the one before, the one after.
    fn check_neighbours(
        &mut self,
        entry: &Held<Entry>,
        ours: bool,
        returns: bool,
    ) -> Result<Option<Applied>, FoldError> {
        let (author, seq) = (entry.value.author, entry.value.seq);
        let after = |row: EntryRow| ForkRow::After(row.at, entry.signed.clone());
        let fork = match self.entry_row(&author, seq)? {
            Some(row) if row.id == entry.id => return Ok(Some(Applied::Known)),
            Some(row) => Some((after(row), "this number is taken")),
            None => None,
        };
        let fork = match (fork, seq.checked_sub(1)) {
            (None, Some(before)) => self
                .entry_row(&author, before)?
                .filter(|row| entry.value.prev != Some(row.id))
                .map(|row| (after(row), "it names another entry before it")),
            (fork, _) => fork,
        };
        let fork = match (fork, seq.checked_add(1)) {
            (None, Some(next)) if !ours || returns => {
                self.entry_row(&author, next)?.filter(|row| row.prev != Some(entry.id)).map(|row| {
                    let row = ForkRow::Before(entry.signed.clone(), row.at);
                    (row, "the next entry names another before it")
                })
            }
            (fork, _) => fork,
        };
        match fork {
            None => Ok(None),
            Some((_, why)) if ours => Err(Refusal::WouldFork(why).into()),
            Some((row, _)) => self.keep_fork(&author, &row).map(Some),
        }
    }

    /// That it says the truth about what it stands for is checked by whoever reads the chain without the rest; here, that it
    /// names no other entry than ours of that number.
    fn checkpoint(&mut self, entry: &Entry, checkpoint: Checkpoint) -> Result<(), FoldError> {
        if entry.author != self.own {
            return Err(Refusal::NotOurs.into());
        }
        // Without a row, the entry was dropped behind a later checkpoint than this one.
        if self.entry_row(&entry.author, checkpoint.seq)?.is_some_and(|row| row.id != checkpoint.id) {
            return Err(Refusal::Chain("it stands for an entry that is not there").into());
        }
        self.put(keys::CHECKPOINT.to_vec(), &(entry.seq, checkpoint));
        Ok(())
    }

    fn open(&mut self, id: LeaseId, draft: Signed<LeaseDraft>, open: Held<Entry>) -> Result<(), FoldError> {
        let draft = self.read(draft)?;
        if LeaseId::from(draft.id) != id {
            return Err(Refusal::Lease("it carries the draft of another lease").into());
        }
        let terms = &draft.value;
        if open.value.author != terms.renter || open.value.peer != Some(terms.host) {
            return Err(Refusal::NotItsAuthors.into());
        }
        if self.retired.contains_key(&id) || self.lease(&id)?.is_some() {
            return Err(Refusal::Lease("it is open already").into());
        }
        let number = self.row::<u64>(keys::LEASE_COUNT, "count")?.unwrap_or(0).saturating_add(1);
        let lease = Lease { number, ..Lease::opened(draft, open) };
        let opened = lease.opened_at();
        for index in [keys::by_host(&lease.host()), keys::by_renter(&lease.renter()), keys::by_time()] {
            let row = keys::indexed(&index, opened, &id);
            self.staged.insert(row, Some(Vec::new()));
        }
        self.put(keys::LEASE_COUNT.to_vec(), &number);
        self.staged.insert(keys::numbered(number), Some(id.0.to_vec()));
        if lease.renter() == self.own {
            self.staged.insert(keys::of_nonce(&lease.draft.value.nonce), Some(id.0.to_vec()));
        }
        self.move_status(&id, opened, None, Status::Opened);
        let cached = Cached { lease, lease_changed: true, receipts_changed: false };
        self.leases.insert(id, cached);
        Ok(())
    }

    /// A complaint about a lease of which only the parties are remembered.
    fn complain(&self, id: &LeaseId, entry: &Entry) -> Result<(), Refusal> {
        let by_party = self.retired.get(id).is_some_and(|parties| {
            let peer = entry.peer.filter(|peer| parties.contains(peer));
            parties.contains(&entry.author) && peer.is_some_and(|peer| peer != entry.author)
        });
        if by_party { Ok(()) } else { Err(Refusal::NotItsAuthors) }
    }

    /// Everything after the open.
    fn shape(&mut self, id: LeaseId, entry: Held<Entry>) -> Result<(), FoldError> {
        let sparse = self.sparse;
        let Some(lease) = self.lease(&id)? else {
            return Err(Refusal::UnknownLease(id).into());
        };
        match check_shape(lease, &entry.value) {
            // The acknowledgement that an anchor fixes may be left out, and a newer one be behind it.
            Err(Refusal::Lease(UNAGREED)) if sparse => {}
            checked => checked?,
        }
        let by_host = entry.value.author == lease.host();
        let claims = by_host && entry.value.author == self.own;
        if let Some(due) = final_claim(&entry.value.body).filter(|_| claims) {
            self.earn_at_close(&id, due, entry.value.time)?;
        }
        self.change(&id, false, |lease| match (&entry.value.body, by_host) {
            (Body::LeaseAccept { .. } | Body::Void { .. }, _) => lease.answer = Some(entry),
            (Body::Placement { .. }, _) => lease.placement = Some(entry),
            (Body::Amend { .. }, _) => {
                if lease.amends.len() >= RECENT_AMENDMENTS {
                    lease.amends.remove(0);
                }
                lease.amends.push(entry);
            }
            (Body::Amended(_), _) => {
                if lease.amended.len() >= RECENT_AMENDMENTS {
                    lease.amended.remove(0);
                }
                lease.amends.clear();
                lease.amended.push(entry);
            }
            (Body::Close { .. }, true) => lease.host_close = Some(entry),
            (Body::Close { .. }, false) => lease.renter_close = Some(entry),
            (Body::CloseAck { .. }, true) => lease.host_close_ack = Some(entry),
            (Body::CloseAck { .. }, false) => lease.renter_close_ack = Some(entry),
            (Body::Dispute(_), true) => lease.host_dispute = Some(entry),
            (Body::Dispute(_), false) => lease.renter_dispute = Some(entry),
            (Body::Probe(_), _) => lease.renter_probe = Some(entry),
            // The chain row is all there is to an anchor: what it fixes is in the receipts.
            (Body::Anchor { .. } | Body::Genesis { .. } | Body::LeaseOpen { .. }, _) => {}
            // These are about no lease, and never come here.
            (Body::Settle(_) | Body::SettleAck(_) | Body::Attestation(_) | Body::Checkpoint(_), _) => {}
        })?;
        Ok(())
    }
}

const UNAGREED: &str = "it fixes more than is agreed to";

/// The rules of a chain, against the newest entry held of it.
fn check_link(entry: &Entry, head: Option<&Head>, ours: bool) -> Result<(), Refusal> {
    let Some(head) = head else {
        let fits = !ours || entry.seq == 0;
        return if fits { Ok(()) } else { Err(Refusal::Chain("our chain has not begun")) };
    };
    if ours {
        if Some(entry.seq) != head.seq.checked_add(1) {
            return Err(Refusal::Chain("it is not the next of our chain"));
        }
        if entry.prev != Some(head.id) {
            return Err(Refusal::Chain("it does not name our newest entry"));
        }
    }
    if entry.seq > head.seq && entry.time < head.time {
        return Err(Refusal::Chain("it is dated before the entry before it"));
    }
    Ok(())
}

/// Whether `entry` may be said about `lease` now, by its author.
pub(crate) fn check_shape(lease: &Lease, entry: &Entry) -> Result<(), Refusal> {
    if lease.peer_of(&entry.author) != entry.peer || entry.peer.is_none() {
        return Err(Refusal::NotItsAuthors);
    }
    let by_host = entry.author == lease.host();
    let hosts_only = |holds: bool, why| {
        if !by_host {
            Err(Refusal::NotItsAuthors)
        } else if holds {
            Ok(())
        } else {
            Err(Refusal::Lease(why))
        }
    };
    let accepted = lease.is_accepted();
    match &entry.body {
        Body::LeaseAccept { open } | Body::Void { open, .. } => {
            hosts_only(*open == lease.open.id, "it answers another open")?;
            hosts_only(lease.answer.is_none(), "it is answered already")
        }
        Body::Placement { start, .. } => {
            hosts_only(accepted, "it is not accepted")?;
            let last = lease.placement.as_ref().map_or(0, |p| start_of(&p.value));
            hosts_only(*start > last, "this start is placed already")
        }
        Body::Amend { n, .. } => {
            if by_host {
                Err(Refusal::NotItsAuthors)
            } else if !accepted || lease.host_close.is_some() {
                Err(Refusal::Lease("it is not accepted, or closed"))
            } else if *n != lease.terms().n.saturating_add(1) {
                Err(Refusal::Lease("the change's number is not the next one"))
            } else {
                Ok(())
            }
        }
        Body::Amended(amended) => {
            hosts_only(accepted && lease.host_close.is_none(), "it is not accepted, or closed")?;
            check_amended(lease, amended, entry.time)
        }
        Body::Anchor { due, .. } => {
            hosts_only(accepted, "it is not accepted")?;
            hosts_only(*due <= lease.agreed(), UNAGREED)
        }
        Body::Close { .. } => {
            let mine = if by_host { &lease.host_close } else { &lease.renter_close };
            if lease.void().is_some() {
                Err(Refusal::Lease("it is void"))
            } else if mine.is_some() {
                Err(Refusal::Lease("its author has closed it already"))
            } else {
                Ok(())
            }
        }
        Body::CloseAck { close, .. } => {
            let (theirs, mine) = if by_host {
                (&lease.renter_close, &lease.host_close_ack)
            } else {
                (&lease.host_close, &lease.renter_close_ack)
            };
            if !is(theirs.as_ref(), close) {
                Err(Refusal::Lease("it answers an unknown close"))
            } else if mine.is_some() {
                Err(Refusal::Lease("the close is answered already"))
            } else {
                Ok(())
            }
        }
        Body::Dispute(_) => Ok(()),
        Body::Genesis { .. } | Body::LeaseOpen { .. } => Err(Refusal::Lease("it is open already")),
        Body::Probe(_) => {
            let over = lease.host_close.is_some() || lease.renter_close.is_some();
            if by_host {
                Err(Refusal::NotItsAuthors)
            } else if lease.draft.value.is_volume() || lease.placement.is_none() {
                Err(Refusal::Lease("nothing of it ever started"))
            } else if !accepted || !over {
                Err(Refusal::Lease("it is not over"))
            } else if lease.renter_probe.is_some() {
                Err(Refusal::Lease("its renter has said already what it saw"))
            } else {
                Ok(())
            }
        }
        Body::Settle(_) | Body::SettleAck(_) | Body::Attestation(_) | Body::Checkpoint(_) => {
            Err(Refusal::Lease("it is about none"))
        }
    }
}

/// What a host claims for the whole lease at its end.
fn final_claim(body: &Body) -> Option<souk_protocol::Amount> {
    body.closing().map(|(.., due)| due).or_else(|| body.agreement().map(|(_, due)| due))
}

/// Whether terms follow from those in force: by a change the renter has signed, or by what the host may do alone.
fn check_amended(lease: &Lease, amended: &Amended, at: Timestamp) -> Result<(), Refusal> {
    let change = match amended.amend {
        Some(id) => {
            let asked = lease.amends.iter().find(|e| e.id == id).and_then(|e| e.value.body.amend());
            let (_, change, valid_until) = asked.ok_or(Refusal::Lease("it answers an unknown change"))?;
            if at > valid_until + limits::CLOCK_SKEW {
                return Err(Refusal::Lease("it takes a change whose time was past"));
            }
            Some(change)
        }
        None => None,
    };
    if lease.newest_usage().is_some_and(|u| !amended.terms.counted.covers(&u.value.counters)) {
        return Err(Refusal::Lease("its terms count less than the newest usage"));
    }
    if amended.terms.follows(&lease.terms(), &lease.draft.value, change.as_ref(), at) {
        Ok(())
    } else {
        Err(Refusal::Lease("its terms do not follow from those in force"))
    }
}

fn is(entry: Option<&Held<Entry>>, id: &DocumentId) -> bool {
    entry.is_some_and(|entry| entry.id == *id)
}

fn start_of(placement: &Entry) -> u32 {
    match placement.body {
        Body::Placement { start, .. } => start,
        Body::Genesis { .. }
        | Body::LeaseOpen { .. }
        | Body::LeaseAccept { .. }
        | Body::Void { .. }
        | Body::Amend { .. }
        | Body::Amended(_)
        | Body::Anchor { .. }
        | Body::Close { .. }
        | Body::CloseAck { .. }
        | Body::Settle(_)
        | Body::SettleAck(_)
        | Body::Dispute(_)
        | Body::Attestation(_)
        | Body::Probe(_)
        | Body::Checkpoint(_) => 0,
    }
}
