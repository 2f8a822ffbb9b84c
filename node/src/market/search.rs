//! Search, as the API answers it: the engine's book through the index, with prices in whole units.

use souk_protocol::{
    AskId, Currency, NodeId,
    cost::estimate,
    machine::{policy, search::search},
    money::{Amount, Rates},
    negotiation::RentalType,
    offer::Offer,
    resources::Resources,
    time::Millis,
};

use super::{
    command::{AskSelector, CommandError, ErrorCode},
    rentals::unknown_ask,
    task::Market,
};
use crate::{
    api::types::{QuoteView, RentRequest, SearchRequest, SearchResults},
    clock::now,
};

/// The disk a rental gets when nobody says how much, in MB, if the slots carry as much.
const DISK_MB: u64 = 10_000;
/// Hosts of a search whose evidence is asked for: those that a person looks at.
const LOOKED_AT: usize = 10;
/// The fewest digits of an ask's id that name it.
const SHORTEST_PREFIX: usize = 4;

impl Market {
    pub(super) fn search(&mut self, request: &SearchRequest) -> Result<SearchResults, CommandError> {
        let (query, options) = request.parse(now(), self.host_id(), self.about.currency.clone())?;
        let found = search(&self.index, &query, &options);
        let shown: Vec<NodeId> =
            found.rows.iter().take(LOOKED_AT).filter_map(|row| self.host_of_ask(&row.ask)).collect();
        let results = SearchResults::from(found);
        self.look_at(shown);
        Ok(SearchResults { avoided: self.avoided_hosts(), ..results })
    }

    fn host_of_ask(&self, ask: &AskId) -> Option<NodeId> {
        self.engine.book().find_ask(ask).map(|(offer, _)| offer.host)
    }

    /// The ask a person means: an id, or the first digits of one; row numbers are the API's.
    pub(super) fn find_ask(&self, selector: &AskSelector) -> Result<AskId, CommandError> {
        let text = selector.0.trim().trim_start_matches('#').to_ascii_lowercase();
        if let Ok(id) = text.parse::<AskId>() {
            return Ok(id);
        }
        let asks = self
            .engine
            .book()
            .offers()
            .flat_map(|o| o.slices().into_iter().map(|n| AskId::of(&o.host, &o.machine, n)).collect::<Vec<_>>());
        let is_prefix = text.len() >= SHORTEST_PREFIX;
        let mut matching: Vec<AskId> = asks.filter(|id| is_prefix && id.to_string().starts_with(&text)).collect();
        matching.sort_unstable();
        matching.dedup();
        match matching.as_slice() {
            [one] => Ok(*one),
            [] => {
                let shown: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
                Err(CommandError::new(ErrorCode::NotFound, format!("no ask `{shown}` is on the market (any more)"))
                    .hint("souk search lists what is"))
            }
            many => {
                Err(CommandError::new(ErrorCode::Ambiguous, format!("`{text}` begins the ids of {} asks", many.len()))
                    .hint("give more digits"))
            }
        }
    }

    /// What a rental would cost, by the offer at hand.
    pub(super) fn quote(&self, request: &RentRequest) -> Result<QuoteView, CommandError> {
        let ask = self.find_ask(&request.ask)?;
        let (offer, slots) = self.engine.book().find_ask(&ask).ok_or_else(|| unknown_ask(&ask))?;
        if request.volume {
            return self.quote_volume(request, offer);
        }
        self.attachments(request, &offer.host, &offer.machine)?;
        let terms = &offer.terms;
        let overflow = || CommandError::new(ErrorCode::BadRequest, "its price does not fit");
        let rental = request.rental.map_or(RentalType::OnDemand, Into::into);
        let listed_hour = policy::asked_hour(terms, slots, rental).ok_or_else(overflow)?;
        let max = request.max_price_hour.or(self.about.max_price);
        let price_hour = request.price_hour.unwrap_or(listed_hour).min(max.unwrap_or(Amount(u64::MAX)));
        let max_price_hour = max.unwrap_or(price_hour);
        let disk_mb = disk_of(request, offer, slots);
        let total = offer.availability.slots_total;
        let resources = Resources::share(&offer.hardware, offer.class(), slots, total, disk_mb).ok_or_else(|| {
            let most = offer.hardware.disk_mb.saturating_mul(u64::from(slots)) / u64::from(total.max(1));
            let message = format!("{} GB of disk are asked for; these slots carry {} GB", disk_mb / 1000, most / 1000);
            CommandError::new(ErrorCode::Rejected, message).hint("ask for less with --disk, or search with --storage")
        })?;
        let at = now();
        let longest = terms.latest_end.unwrap_or(at + Millis::from_hours(30 * 24));
        let ends_at = request.term_ms.map_or(longest, |term| at + term);
        let rates = Rates {
            compute_hour: max_price_hour.min(listed_hour.max(price_hour)),
            storage_gb_month: terms.storage_gb_month,
            up_gb: terms.up_gb,
            down_gb: terms.down_gb,
        };
        let cost = estimate(&rates, disk_mb, ends_at.since(at), request.max_spend).map_err(|_| overflow())?;
        if let Some(ceiling) = request.max_spend.filter(|ceiling| *ceiling <= cost.disk_kept) {
            let message = format!(
                "a limit of {ceiling} leaves nothing for compute: keeping the disk for 48 hours after the end costs {}",
                cost.disk_kept
            );
            return Err(CommandError::new(ErrorCode::BadRequest, message)
                .hint("raise --max-spend, or ask for less with --disk"));
        }
        Ok(QuoteView {
            ask,
            host: offer.host,
            avoided: self.avoided(&offer.host),
            resources,
            currency: terms.currency.clone(),
            price_hour,
            listed_hour,
            max_price_hour,
            storage_hour: cost.storage_hour,
            storage_month: cost.storage_month,
            compute: cost.compute,
            storage: cost.storage,
            disk_kept: cost.disk_kept,
            max_spend: request.max_spend,
            ceiling_after_ms: cost.ceiling_after,
            up_gb: terms.up_gb,
            down_gb: terms.down_gb,
            ends_at_ms: ends_at,
            ceiling: cost.at_most,
            traffic_extra: cost.traffic_on_top,
        })
    }
}

/// The disk a request means for this ask, in MB.
pub(super) fn disk_of(request: &RentRequest, offer: &Offer, slots: u16) -> u64 {
    let share =
        offer.hardware.disk_mb.saturating_mul(u64::from(slots)) / u64::from(offer.availability.slots_total.max(1));
    request.disk_mb.unwrap_or_else(|| share.clamp(1, DISK_MB))
}

/// The egress a rental gets when nobody says: the most that the offer grants.
pub(super) fn egress_of(request: &RentRequest, offer: &Offer) -> souk_protocol::resources::Egress {
    use souk_protocol::resources::Egress;
    let widest = if offer.terms.egress.contains(&Egress::Internet) { Egress::Internet } else { Egress::None };
    request.egress.unwrap_or(widest)
}

/// The currency of an offer's prices, for steps that show them.
pub(super) fn currency_of(offer: &Offer) -> Currency {
    offer.terms.currency.clone()
}

/// Who a host takes, in the words of the API.
pub(super) fn accepts(accept: &policy::Accept) -> crate::api::types::AcceptsView {
    match accept {
        policy::Accept::Anyone => crate::api::types::AcceptsView { anyone: true, peers: Vec::new(), cluster: None },
        policy::Accept::Peers(peers)
        | policy::Accept::Attested { peers, .. }
        | policy::Accept::Trusted { peers, .. } => {
            crate::api::types::AcceptsView { anyone: false, peers: peers.iter().copied().collect(), cluster: None }
        }
    }
}
