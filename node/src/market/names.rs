//! What people call leases: numbers, labels and commands. Kept at hand for open leases; of others the ledger knows.
//!
//! Owns what is kept and when it is let go of.

use souk_protocol::{
    LeaseId,
    machine::record::{Private, Record},
    workload::Workload,
};

use super::{
    CommandError,
    command::LeaseSelector,
    select::{self, Candidate},
    task::Market,
    views,
};

/// What a record says that lists show.
pub(super) enum Noted {
    Nothing,
    Opened(LeaseId),
    Command(LeaseId, String),
    Label(LeaseId, String),
}

impl Market {
    /// The lease that a person means: an open one of that label, or one that the ledger's indexes name.
    pub(super) fn find(&self, id: &LeaseSelector) -> Result<LeaseId, CommandError> {
        let label = id.0.trim();
        let labelled = |(lease, meta): (&LeaseId, &views::Meta)| {
            (meta.label.as_deref() == Some(label) && self.is_open(lease)).then_some((*lease, meta.number))
        };
        let open: Vec<(LeaseId, u64)> = self.meta.iter().filter_map(labelled).collect();
        let mut named = self.ledger.named(&id.0);
        named.retain(|held| open.iter().all(|(lease, _)| *lease != held.id()));
        let at_hand = open.iter().map(|(lease, number)| Candidate {
            lease: *lease,
            number: *number,
            label: Some(label),
            ended: false,
        });
        let on_record = named.iter().map(|held| Candidate {
            lease: held.id(),
            number: held.number,
            label: held.label.as_deref(),
            ended: !self.is_open(&held.id()),
        });
        select::resolve(&id.0, at_hand.chain(on_record))
    }

    pub(super) fn is_open(&self, lease: &LeaseId) -> bool {
        let hosted = self.engine.host().leases().get(lease).is_some_and(|l| !l.state().is_ended());
        hosted || self.engine.renter().leases().get(lease).is_some_and(|l| !l.state().is_ended())
    }

    /// What a record that is about to be written says of a lease's label or command, or that there is a new one.
    pub(super) fn noted(&self, record: &Record) -> Noted {
        match record {
            Record::Entry(entry) => {
                let limit = souk_protocol::limits::ENTRY_BYTES;
                let read =
                    souk_protocol::encode::from_bytes::<souk_protocol::entry::Entry>(entry.payload(), limit).ok();
                let opened = read.filter(|e| e.body.draft().is_some()).and_then(|e| e.lease);
                opened.filter(|l| !self.meta.contains_key(l)).map_or(Noted::Nothing, Noted::Opened)
            }
            Record::Private(Private::Workload { lease, bytes }) => {
                let line = Workload::from_bytes(bytes).map(|w| views::command_line(&w));
                line.map_or(Noted::Nothing, |line| Noted::Command(*lease, line))
            }
            Record::Private(Private::Label { lease, text }) => Noted::Label(*lease, text.clone()),
            Record::Private(
                Private::Event { .. }
                | Private::OfferSeq(_)
                | Private::Leaving { .. }
                | Private::Watched { .. }
                | Private::Account(_)
                | Private::Head(_)
                | Private::HeadSeen(_)
                | Private::ForkGone(_),
            )
            | Record::Fork(_)
            | Record::Usage(_)
            | Record::Ack(_) => Noted::Nothing,
        }
    }

    /// Keeps it.
    pub(super) fn note(&mut self, noted: Noted) {
        match noted {
            Noted::Nothing => {}
            Noted::Opened(lease) => {
                self.meta.entry(lease).or_default();
                self.unnumbered.insert(lease);
            }
            Noted::Command(lease, line) => self.meta.entry(lease).or_default().command = line,
            Noted::Label(lease, text) => {
                self.meta.entry(lease).or_default().label = Some(text).filter(|t| !t.is_empty());
            }
        }
    }

    /// The ledger has numbered leases that were opened.
    pub(super) fn number_new(&mut self) {
        for lease in std::mem::take(&mut self.unnumbered) {
            match (self.ledger.number(&lease), self.meta.get_mut(&lease)) {
                (Some(number), Some(meta)) => meta.number = number,
                (None, Some(_)) => {
                    self.unnumbered.insert(lease);
                }
                (_, None) => {}
            }
        }
    }

    /// Lets go of what was kept for leases that the engine has let go of: the ledger has it.
    pub(super) fn forget(&mut self) {
        let (hosted, rented) = (self.engine.host().leases(), self.engine.renter().leases());
        self.meta.retain(|lease, _| hosted.contains_key(lease) || rented.contains_key(lease));
        self.reported.retain(|lease, _| hosted.contains_key(lease));
        self.unnumbered.retain(|lease| self.meta.contains_key(lease));
    }
}
