//! Search, as the API answers it: the engine's book through the index, with prices in whole units.

use souk_protocol::{
    AskId, Currency, Verified,
    machine::{
        policy,
        search::{Explain, Options, OrderBy, Pricing, search},
    },
    money::{self, Amount, Counters, Rates},
    offer::Offer,
    query::Query,
    resources::Resources,
    time::Millis,
};

use super::{
    command::{AskSelector, CommandError, ErrorCode},
    rentals::unknown_ask,
    task::Market,
};
use crate::{
    api::types::{
        AskRow, ConditionCount, Explanation, QuoteView, RentRequest, RentalKind, SearchRequest, SearchResults,
    },
    clock::now,
};

/// The disk a rental gets when nobody says how much, in MB, if the slots carry as much.
const DISK_MB: u64 = 10_000;
/// The fewest digits of an ask's id that name it.
const SHORTEST_PREFIX: usize = 4;

impl Market {
    pub(super) fn search(&mut self, request: &SearchRequest) -> Result<SearchResults, CommandError> {
        let bad = |e: &dyn std::fmt::Display| {
            CommandError::new(ErrorCode::BadRequest, e.to_string())
                .hint("souk search --help lists fields and operators")
        };
        let query = Query::parse(&request.query).map_err(|e| bad(&e))?;
        let order = request.order.as_deref().map(OrderBy::parse_list).transpose().map_err(|e| bad(&e))?;
        let storage_gb = request.storage_gb.unwrap_or(DISK_MB / 1000);
        let options = Options {
            order: order.unwrap_or_default(),
            #[allow(clippy::cast_precision_loss)] // disks are far below 2^52 GB
            storage_gb: storage_gb as f64,
            limit: request.limit.map_or(50, |n| n.min(10_000) as usize),
            all: request.all,
            explain: request.explain,
            pricing: match request.rental {
                Some(RentalKind::Bid) => Pricing::Bid,
                Some(RentalKind::OnDemand) | None => Pricing::OnDemand,
            },
            own: Some(self.engine.me()),
            ..Options::at(now())
        };
        let found = search(&self.index, &query, &options);
        let rows: Vec<AskRow> = (1..)
            .zip(&found.rows)
            .filter_map(|(row, ask)| {
                let offer = self.engine.book().offer(&(ask.host, ask.machine))?;
                Some(ask_row(row, offer, ask.slots, storage_gb.saturating_mul(1000), options.pricing))
            })
            .collect();
        self.last_search = rows.iter().map(|r| r.id).collect();
        let mut hidden: Vec<String> =
            found.hidden_by_default.iter().map(|h| format!("{} {} (--all shows them)", h.count, h.reason)).collect();
        if found.other_currency > 0 {
            hidden.push(format!("{} ask for another currency", found.other_currency));
        }
        let total = self.engine.book().offers().map(|o| o.slices().len() as u64).sum();
        Ok(SearchResults {
            rows,
            matched: found.matched as u64,
            total,
            hidden,
            explain: found.explain.map(explanation),
        })
    }

    /// The ask a person means: a row of the last search, an id, or the first digits of one.
    pub(super) fn find_ask(&self, selector: &AskSelector) -> Result<AskId, CommandError> {
        let text = selector.0.trim().trim_start_matches('#').to_ascii_lowercase();
        if let Ok(id) = text.parse::<AskId>() {
            return Ok(id);
        }
        if text.len() < SHORTEST_PREFIX
            && let Ok(row) = text.parse::<usize>()
        {
            let row = row.checked_sub(1).and_then(|row| self.last_search.get(row));
            return row.copied().ok_or_else(|| {
                CommandError::new(ErrorCode::NotFound, format!("the last search has no row {text}")).hint("souk search")
            });
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
        let terms = &offer.terms;
        let overflow = || CommandError::new(ErrorCode::BadRequest, "its price does not fit");
        let listed_hour = terms.slot_hour.0.checked_mul(u64::from(slots)).map(Amount).ok_or_else(overflow)?;
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
        let hour = Counters { storage: Millis::from_hours(1), ..Counters::default() };
        let storage_hour = money::due(&rates, disk_mb, &hour, Amount::ZERO).map_err(|_| overflow())?;
        let term = ends_at.since(at);
        let all = Counters {
            active: term,
            storage: Millis(term.0.saturating_add(souk_protocol::limits::DISK_KEPT.0)),
            ..Counters::default()
        };
        let full = money::due(&rates, disk_mb, &all, Amount::ZERO).map_err(|_| overflow())?;
        let traffic = terms.up_gb.0 > 0 || terms.down_gb.0 > 0;
        Ok(QuoteView {
            ask,
            host: offer.host,
            resources,
            currency: terms.currency.clone(),
            price_hour,
            listed_hour,
            max_price_hour,
            storage_hour,
            up_gb: terms.up_gb,
            down_gb: terms.down_gb,
            ends_at_ms: ends_at,
            ceiling: request.max_spend.map_or(full, |max| max.min(full)),
            traffic_extra: traffic && request.max_spend.is_none(),
        })
    }
}

/// The disk a request means for this ask, in MB.
pub(super) fn disk_of(request: &RentRequest, offer: &Offer, slots: u16) -> u64 {
    let share =
        offer.hardware.disk_mb.saturating_mul(u64::from(slots)) / u64::from(offer.availability.slots_total.max(1));
    request.disk_mb.unwrap_or_else(|| share.clamp(1, DISK_MB))
}

fn ask_row(row: u32, offer: &Verified<Offer>, slots: u16, disk_mb: u64, pricing: Pricing) -> AskRow {
    let (hardware, terms, availability) = (&offer.hardware, &offer.terms, &offer.availability);
    let part = |whole: u64| whole.saturating_mul(u64::from(slots)) / u64::from(availability.slots_total.max(1));
    let times = |rate: Amount| Amount(rate.0.saturating_mul(u64::from(slots)));
    let slot_hour = match pricing {
        Pricing::Bid => terms.min_bid_slot_hour,
        Pricing::OnDemand | Pricing::Reserved => terms.slot_hour,
    };
    let rates = Rates { compute_hour: times(slot_hour), storage_gb_month: terms.storage_gb_month, ..Rates::default() };
    let hour = Counters { active: Millis::from_hours(1), storage: Millis::from_hours(1), ..Counters::default() };
    let gpu = hardware.gpus.first();
    AskRow {
        row,
        id: AskId::of(&offer.host, &offer.machine, slots),
        host: offer.host,
        machine: offer.machine,
        offer: offer.id(),
        slots,
        gpu_name: gpu.map(|g| g.model.clone()),
        gpus: if gpu.is_some() { slots } else { 0 },
        vram_mib: gpu.map_or(0, |g| g.vram_mib),
        declared: gpu.is_some_and(|g| g.declared),
        cuda: gpu.map_or(0, |g| g.max_cuda),
        cpu_name: hardware.cpu.model.clone(),
        cpu_milli: u32::try_from(part(u64::from(hardware.cpu.cores) * 1000)).unwrap_or(u32::MAX),
        ram_mb: part(hardware.ram_mb),
        disk_mb: part(hardware.disk_mb),
        dph: money::due(&rates, disk_mb, &hour, Amount::ZERO).unwrap_or(Amount(u64::MAX)),
        min_bid: times(terms.min_bid_slot_hour),
        storage_gb_month: terms.storage_gb_month,
        up_gb: terms.up_gb,
        down_gb: terms.down_gb,
        currency: terms.currency.clone(),
        up_mbps: hardware.up_mbps,
        down_mbps: hardware.down_mbps,
        reliability_permille: None,
        country: hardware.country.clone(),
        reachability: availability.reachability,
        egress: terms.egress.clone(),
        rentable: availability.slots_free >= slots,
        latest_end_ms: terms.latest_end,
    }
}

fn explanation(explain: Explain) -> Explanation {
    let conditions = explain.conditions.iter();
    let count = conditions.map(|c| ConditionCount { condition: c.condition.clone(), excludes: c.excludes as u64 });
    let near = explain.nearest.iter().map(|miss| {
        let fails: Vec<String> = miss.fails.iter().map(|f| f.condition.clone()).collect();
        format!("{} (fails {})", miss.ask.summary(), fails.join(", "))
    });
    Explanation { conditions: count.collect(), nearest: near.collect() }
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
        policy::Accept::Anyone => crate::api::types::AcceptsView { anyone: true, peers: Vec::new() },
        policy::Accept::Peers(peers) => {
            crate::api::types::AcceptsView { anyone: false, peers: peers.iter().copied().collect() }
        }
    }
}
