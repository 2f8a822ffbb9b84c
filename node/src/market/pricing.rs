//! Prices as the market task sees to them: the listed price that follows the market, questions to the owner's programs, and what
//! the offers seen say.
//!
//! Owns when the market is looked at, and what the owner's programs last failed with. The rules are `souk_protocol`'s.

use std::time::Duration;

use souk_protocol::{
    Amount, NodeId, Timestamp,
    machine::{
        io::{Input, Token},
        pricing::{self, About, MarketRule, OwnerAnswer, Question},
        statistics::{self, quantile, slot_price, unit_price},
    },
    offer::Offer,
    resources::SlotClass,
};
use tokio::time::Instant;

use super::{
    command::{CommandError, ErrorCode},
    task::{Internal, Market},
};
use crate::{
    api::types::{FailureView, HostView, MarketRequest, MarketView, ModelView, PriceRequest, SeenView},
    clock::now,
    config::Strategy,
    host::{program::Programs, question},
};

/// How long the picture of the market that programs get is kept: with a full book it takes some milliseconds to draw.
const PICTURE_LIFE: Duration = Duration::from_secs(20);
/// Between two lines in the log on the same program's failures.
const TOLD_EVERY: u64 = 10_000;

/// What the task knows of prices.
#[derive(Debug, Default)]
pub(super) struct Prices {
    programs: Programs,
    looked: Option<Instant>,
    picture: Option<(Instant, Option<ModelView>)>,
    pub(super) seen: Option<SeenView>,
    pub(super) price_failure: Option<FailureView>,
    pub(super) accept_failure: Option<FailureView>,
}

/// Whose vote an offer's price is part of.
fn voter(offer: &Offer) -> NodeId {
    offer.host
}

impl Market {
    /// Puts a question to the owner's program; the answer comes back as `Internal::Owner`.
    pub(super) fn ask_owner(&mut self, token: Token, question: &Question) {
        let Some(host) = &self.host else { return };
        let settings = &host.config().host;
        let command = match question.about {
            About::Price => settings.pricing.command.clone(),
            About::Accept => settings.accept.command.clone(),
        };
        let (on_failure, about) = (settings.accept.command_fails, question.about);
        let leases = self.engine.host().leases().len();
        let picture = self.picture();
        let input = question::json(question, leases, picture.as_ref());
        let (internal, programs) = (self.internal.clone(), self.prices.programs.clone());
        tokio::spawn(async move {
            let (answer, failure) = match command {
                Some(command) => question::answer(about, programs.run(&command, input).await, on_failure),
                // The setting is gone since the engine was told of it.
                None => (
                    match about {
                        About::Price => OwnerAnswer::Price(None),
                        About::Accept => OwnerAnswer::Accept(Ok(())),
                    },
                    None,
                ),
            };
            internal.send(Internal::Owner { token, about, answer, failure }).await.ok();
        });
    }

    pub(super) fn owner_answered(&mut self, token: Token, about: About, answer: OwnerAnswer, failure: Option<String>) {
        if let Some(sentence) = failure {
            let (place, what) = match about {
                About::Price => {
                    (&mut self.prices.price_failure, "the price program gave no price, so the listed one holds")
                }
                About::Accept => (&mut self.prices.accept_failure, "the program that checks renters gave no answer"),
            };
            let at = now();
            let before = place.take();
            let told = before.as_ref().is_some_and(|b| b.sentence == sentence && at.since(b.at_ms).0 < TOLD_EVERY);
            if !told {
                tracing::warn!("{what}: {sentence}");
            }
            let times = before.as_ref().map_or(0, |b| b.times) + 1;
            let at_ms = before.filter(|_| told).map_or(at, |b| b.at_ms);
            *place = Some(FailureView { at_ms, sentence, times });
        }
        self.input(Input::Owner { token, answer });
    }

    /// What other hosts ask for machines like ours.
    fn picture(&mut self) -> Option<ModelView> {
        if let Some((at, picture)) = &self.prices.picture
            && at.elapsed() < PICTURE_LIFE
        {
            return picture.clone();
        }
        let class = self.engine.host().offer().map(|o| o.class());
        let picture = class.and_then(|class| {
            let others = self.comparable(&class);
            let found = statistics::statistics(others, &self.host_currency(), voter);
            found.models.into_iter().next().map(ModelView::from)
        });
        self.prices.picture = Some((Instant::now(), picture.clone()));
        picture
    }

    fn host_currency(&self) -> souk_protocol::Currency {
        let ours = self.host.as_ref().map(|h| h.config().host.prices.currency.clone());
        ours.unwrap_or_else(|| self.about.currency.clone())
    }

    /// Offers of others for slots of a class.
    fn comparable<'a>(&'a self, class: &'a SlotClass) -> impl Iterator<Item = &'a Offer> {
        let (me, at) = (self.engine.me(), now());
        let offers = self.engine.book().offers().map(|offer| &**offer);
        offers.filter(move |o| voter(o) != me && o.valid_until > at && o.class() == *class)
    }

    /// Looks at the market, if the listed price follows it and it is time to.
    pub(super) fn follow_market(&mut self) {
        let Some(host) = &self.host else { return };
        let settings = &host.config().host;
        if settings.pricing.strategy != Strategy::Market {
            self.prices.looked = None;
            self.prices.seen = None;
            return;
        }
        let every = settings.pricing.every.to_std();
        if self.prices.looked.is_some_and(|at| at.elapsed() < every) {
            return;
        }
        let (Some(offer), Some(current), Some((lowest, highest))) =
            (self.engine.host().offer(), host.slot_hour(), settings.pricing.min.zip(settings.pricing.max))
        else {
            return;
        };
        self.prices.looked = Some(Instant::now());
        let rule = MarketRule { lowest, highest, hosts: usize::from(settings.pricing.hosts) };
        let (class, slots, threads) = (offer.class(), offer.availability.slots_total, offer.hardware.cpu.cores);
        let currency = self.host_currency();
        let comparable = self.comparable(&class).filter(|o| o.terms.currency == currency);
        // In the size of our own slots, so that machines without GPUs can be compared.
        let ours = |o: &Offer| slot_price(unit_price(o)?, &class, slots, threads);
        let votes = statistics::votes(comparable.filter_map(|o| Some((voter(o), ours(o)?))));
        let median = quantile(&votes, 1, 2);
        self.prices.seen = Some(SeenView { at_ms: now(), hosts: votes.len() as u64, median });
        let price = pricing::follow(current, &rule, &votes);
        if price == current {
            return;
        }
        tracing::info!(from = %current, to = %price, hosts = votes.len(), "the listed price follows the market");
        if let Err(error) = self.change_host(|host| host.follow(price)) {
            tracing::warn!("the listed price can't follow the market: {error}");
        }
    }

    /// Changes the host's prices, at once and for good.
    pub(super) fn price(&mut self, request: &PriceRequest) -> Result<HostView, CommandError> {
        self.change_host(|host| host.price(request))?;
        // New settings, new look.
        self.prices.looked = None;
        self.prices.picture = None;
        self.follow_market();
        self.host_view()
    }

    /// What is on offer, of a model or of all.
    pub(super) fn market_view(&self, request: &MarketRequest) -> Result<MarketView, CommandError> {
        let at: Timestamp = now();
        let offers = self.engine.book().offers().map(|offer| &**offer).filter(|o| o.valid_until > at);
        let found = statistics::statistics(offers, &self.about.currency, voter);
        let currency = self.about.currency.clone();
        let Some(gpu) = request.gpu.as_deref().map(plain).filter(|g| !g.is_empty()) else {
            return Ok(MarketView::of(found, currency, |_| true));
        };
        if gpu == "cpu" {
            return Ok(MarketView::of(found, currency, |class| *class == SlotClass::Cpu));
        }
        let name = |class: &SlotClass| match class {
            SlotClass::Gpu(model) => Some(plain(model)),
            SlotClass::Cpu => None,
        };
        let names: Vec<String> = found.models.iter().filter_map(|m| name(&m.class)).collect();
        let exact = names.contains(&gpu);
        let view = MarketView::of(found, currency, |class| {
            name(class).is_some_and(|name| if exact { name == gpu } else { name.contains(&gpu) })
        });
        if view.models.is_empty() {
            let shown: String = gpu.chars().filter(|c| !c.is_control()).take(40).collect();
            let error = CommandError::new(ErrorCode::NotFound, format!("no GPU `{shown}` is on offer"));
            let near = names.iter().min_by_key(|n| strsim::damerau_levenshtein(n, &gpu));
            return Err(error.hint(match near {
                Some(near) => format!("souk market lists what is; the nearest is {near}"),
                None => "no GPU at all is on offer now: souk market".to_owned(),
            }));
        }
        Ok(view)
    }
}

/// A model's name as it is compared: `RTX_4090` is `rtx 4090`.
fn plain(name: &str) -> String {
    name.trim().chars().take(64).map(|c| if c == '_' { ' ' } else { c }).collect::<String>().to_lowercase()
}

/// A price for one slot and hour that a machine can't be offered at: what the largest lease of it costs does not fit.
pub(crate) fn check_sums(
    rates: &souk_protocol::Rates,
    slots: usize,
    disk_mb: u64,
    term: souk_protocol::Millis,
) -> Result<(), CommandError> {
    /// A PB each way.
    const TRAFFIC: u64 = 1_000_000_000_000_000;
    let too_much = || {
        let message = "at these prices what a lease of the whole machine can cost does not fit any more";
        CommandError::new(ErrorCode::BadRequest, message).hint("name lower prices: amounts go up to some 18 billion")
    };
    let hour = rates.compute_hour.0.checked_mul(slots as u64).map(Amount).ok_or_else(too_much)?;
    let counters = souk_protocol::money::Counters {
        active: term,
        storage: souk_protocol::Millis(term.0.saturating_add(souk_protocol::limits::DISK_KEPT.0)),
        rx_bytes: TRAFFIC,
        tx_bytes: TRAFFIC,
        ..souk_protocol::money::Counters::default()
    };
    let all = souk_protocol::Rates { compute_hour: hour, ..*rates };
    souk_protocol::money::due(&all, disk_mb, &counters, Amount::ZERO).map(|_| ()).map_err(|_| too_much())
}
