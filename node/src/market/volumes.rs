//! Volumes as people name them: which leases are meant, what one costs, and which are attached to a rental.
//!
//! Owns no state: a volume is a lease of the engine's, its name the lease's label.

use souk_protocol::{
    LeaseId, MachineId, Millis, NodeId,
    cost::estimate,
    lease::LeaseState,
    limits,
    machine::renter_lease::RenterLease,
    money::{Amount, Rates},
    offer::Offer,
    resources::Resources,
    workload::Attachment,
};

use super::{
    command::{CommandError, ErrorCode, LeaseSelector},
    task::Market,
};
use crate::{
    api::types::{QuoteView, RentRequest},
    clock::now,
};

impl Market {
    fn rented(&self, id: &LeaseSelector) -> Result<&RenterLease, CommandError> {
        let lease = self.find(id)?;
        let held = self.engine.renter().leases().get(&lease).filter(|l| l.draft().is_volume());
        held.ok_or_else(|| {
            let message = format!("{} is no volume that this node rents", id.0);
            CommandError::new(ErrorCode::NotFound, message).hint("souk volume list shows them")
        })
    }

    /// The volumes a rental on this machine asks for.
    ///
    /// # Errors
    /// If one is not there, or on another machine.
    pub(super) fn attachments(
        &self,
        request: &RentRequest,
        host: &NodeId,
        machine: &MachineId,
    ) -> Result<Vec<Attachment>, CommandError> {
        let attach = |wanted: &crate::api::types::AttachRequest| {
            let held = self.rented(&LeaseSelector(wanted.name.clone()))?;
            if held.draft().host != *host || held.draft().machine != *machine {
                let message = format!("volume {} is on another machine: it can be attached only there", wanted.name);
                return Err(CommandError::new(ErrorCode::BadRequest, message).hint(format!(
                    "souk search machine_id={} lists its asks; souk volume show {} tells more",
                    held.draft().machine,
                    wanted.name
                )));
            }
            if held.state() != LeaseState::Kept {
                let message = format!("volume {} can't be attached: it is {}", wanted.name, held.state());
                return Err(CommandError::new(ErrorCode::WrongState, message));
            }
            let volume: LeaseId = held.id();
            let attachment = Attachment { volume, path: wanted.path.clone(), read_only: wanted.read_only };
            attachment.check().map_err(|why| CommandError::new(ErrorCode::BadRequest, why.0))?;
            Ok(attachment)
        };
        request.volumes.iter().map(attach).collect()
    }

    /// Whether a volume can be made as asked for: with a name of its own, and room on that machine.
    pub(super) fn check_volume(&self, request: &RentRequest, offer: &Offer) -> Result<(), CommandError> {
        let bad = |message: String| Err(CommandError::new(ErrorCode::BadRequest, message));
        let Some(name) = request.label.as_deref().filter(|n| !n.is_empty() && !n.contains([':', '/'])) else {
            return bad("a volume needs a name, without colon or slash".to_owned());
        };
        let named = |lease: &LeaseId| self.meta.get(lease).is_some_and(|m| m.label.as_deref() == Some(name));
        if self.meta.keys().any(|lease| named(lease) && self.is_open(lease)) {
            return bad(format!("there is a lease named {name} already"));
        }
        let (wanted, free) = (request.disk_mb.unwrap_or(0), offer.availability.volume_mb);
        if free == 0 {
            let error =
                CommandError::new(ErrorCode::Rejected, "this host keeps no volumes, or has no more room for them");
            return Err(error.hint("take another machine: souk search shows others"));
        }
        if wanted < limits::VOLUME_LEAST_MB {
            return bad(format!("the smallest volume has {} MB", limits::VOLUME_LEAST_MB));
        }
        if wanted > free {
            let message = format!("{wanted} MB are asked for; this machine has {free} MB left for volumes");
            return Err(CommandError::new(ErrorCode::Rejected, message).hint("ask for less with --size"));
        }
        Ok(())
    }

    /// What a volume would cost.
    pub(super) fn quote_volume(&self, request: &RentRequest, offer: &Offer) -> Result<QuoteView, CommandError> {
        self.check_volume(request, offer)?;
        let terms = &offer.terms;
        let overflow = |_| CommandError::new(ErrorCode::BadRequest, "its price does not fit");
        let disk_mb = request.disk_mb.unwrap_or(0);
        let at = now();
        let longest = terms.latest_end.unwrap_or(at + Millis::from_hours(30 * 24));
        let ends_at = request.term_ms.map_or(longest, |term| at + term);
        let rates = Rates { storage_gb_month: terms.storage_gb_month, ..Rates::default() };
        let cost = estimate(&rates, disk_mb, ends_at.since(at), request.max_spend).map_err(overflow)?;
        Ok(QuoteView {
            ask: offer.volume_ask(),
            host: offer.host,
            avoided: self.avoided(&offer.host),
            resources: Resources::volume(disk_mb),
            currency: terms.currency.clone(),
            price_hour: Amount::ZERO,
            listed_hour: Amount::ZERO,
            max_price_hour: Amount::ZERO,
            storage_hour: cost.storage_hour,
            storage_month: cost.storage_month,
            compute: cost.compute,
            storage: cost.storage,
            disk_kept: cost.disk_kept,
            max_spend: request.max_spend,
            ceiling_after_ms: cost.ceiling_after,
            up_gb: Amount::ZERO,
            down_gb: Amount::ZERO,
            ends_at_ms: ends_at,
            ceiling: cost.at_most,
            traffic_extra: false,
        })
    }
}
