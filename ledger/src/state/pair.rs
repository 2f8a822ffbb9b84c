//! Payments and attestations: entries about a peer and no lease.
//!
//! Amounts are cumulative, so a peer's settlement that never came costs nothing: the next one says it all. Our own follow each
//! other without gaps.

use souk_protocol::{
    NodeId,
    entry::{Body, Entry},
    settlement::{Settle, SettleAck},
};

use super::{FoldError, Refusal, State, decode};
use crate::{
    keys,
    lease::Balance,
    pair::{Arrived, Attested, Settlement},
    record::Held,
    store::KvError,
};

impl State {
    pub(super) fn settlement(&mut self, entry: Held<Entry>) -> Result<(), FoldError> {
        let by_us = entry.value.author == self.own;
        let Some(peer) = (if by_us { entry.value.peer } else { Some(entry.value.author) }) else {
            return Err(Refusal::NotItsAuthors.into());
        };
        match &entry.value.body {
            Body::Settle(settle) => self.settle(&peer, by_us, &entry, settle),
            Body::SettleAck(ack) => self.settle_ack(&peer, by_us, &entry, ack),
            Body::Genesis { .. }
            | Body::LeaseOpen { .. }
            | Body::LeaseAccept { .. }
            | Body::Void { .. }
            | Body::Placement { .. }
            | Body::Amend { .. }
            | Body::Amended(_)
            | Body::Anchor { .. }
            | Body::Close { .. }
            | Body::CloseAck { .. }
            | Body::Dispute(_)
            | Body::Attestation(_)
            | Body::Probe(_)
            | Body::Checkpoint(_) => Ok(()),
        }
    }

    fn settle(&mut self, peer: &NodeId, by_us: bool, entry: &Held<Entry>, settle: &Settle) -> Result<(), FoldError> {
        let prefix = keys::settlements(peer, &settle.currency, by_us);
        let newest = self.newest_settlement(&prefix)?;
        check_settle(newest.as_ref(), settle, by_us)?;
        let row = Settlement {
            id: entry.id,
            seq: entry.value.seq,
            n: settle.n,
            time: entry.value.time,
            amount: settle.amount,
            total: settle.total,
            method: settle.method.clone(),
            reference: settle.reference.clone(),
            ack: None,
        };
        self.put(keys::settlement(peer, &settle.currency, by_us, settle.n), &row);
        self.put(keys::newest_settlement(&prefix), &row);
        let key = keys::balance(peer, &settle.currency);
        let mut balance: Balance = self.row(&key, "balance")?.unwrap_or_default();
        *(if by_us { &mut balance.paid } else { &mut balance.received_claimed }) = settle.total;
        self.put(key, &balance);
        Ok(())
    }

    /// `by_us`: the acknowledgement is ours, so the settlement is the peer's.
    fn settle_ack(
        &mut self,
        peer: &NodeId,
        by_us: bool,
        entry: &Held<Entry>,
        ack: &SettleAck,
    ) -> Result<(), FoldError> {
        let row_key = keys::settlement(peer, &ack.currency, !by_us, ack.n);
        let row: Option<Settlement> = self.row(&row_key, "settlement")?;
        let Some(mut row) = row.filter(|row| row.id == ack.settle) else {
            return Err(Refusal::Payment("it answers an unknown payment").into());
        };
        let key = keys::balance(peer, &ack.currency);
        let mut balance: Balance = self.row(&key, "balance")?.unwrap_or_default();
        let arrived = if by_us { &mut balance.received } else { &mut balance.paid_acked };
        if ack.total > row.total {
            return Err(Refusal::Payment("it acknowledges more than was paid").into());
        }
        if ack.total < *arrived {
            return Err(Refusal::Payment("it acknowledges less than before").into());
        }
        *arrived = ack.total;
        row.ack = Some(Arrived { id: entry.id, seq: entry.value.seq, time: entry.value.time, total: ack.total });
        self.put(row_key, &row);
        self.put(key, &balance);
        Ok(())
    }

    pub(super) fn attestation(&mut self, entry: &Held<Entry>) -> Result<(), FoldError> {
        let (Body::Attestation(said), Some(subject)) = (&entry.value.body, entry.value.peer) else {
            return Err(Refusal::NotItsAuthors.into());
        };
        let key = keys::attestation(&entry.value.author, &subject, &said.claim);
        let held: Option<Attested> = self.row(&key, "attestation")?;
        // An older entry that arrives late changes nothing.
        if held.is_none_or(|held| held.seq < entry.value.seq) {
            let row = Attested {
                id: entry.id,
                seq: entry.value.seq,
                time: entry.value.time,
                until: said.until,
                withdrawn: said.withdrawn,
            };
            self.put(key, &row);
        }
        Ok(())
    }

    fn newest_settlement(&self, prefix: &[u8]) -> Result<Option<Settlement>, KvError> {
        self.bytes(&keys::newest_settlement(prefix))?.map(|bytes| decode(&bytes, "settlement")).transpose()
    }
}

fn check_settle(newest: Option<&Settlement>, settle: &Settle, by_us: bool) -> Result<(), Refusal> {
    let (n, total) = newest.map_or((0, souk_protocol::Amount::ZERO), |newest| (newest.n, newest.total));
    if settle.n <= n {
        return Err(Refusal::Payment("its number is taken"));
    }
    let least = total.checked_add(settle.amount).ok_or(Refusal::Payment("the payments' sum overflows"))?;
    let next = n.checked_add(1) == Some(settle.n);
    if by_us && !next {
        return Err(Refusal::Payment("it is not the next payment"));
    }
    if settle.total < least || (next && settle.total != least) {
        return Err(Refusal::Payment("its sum does not follow from the payment before it"));
    }
    Ok(())
}
