//! Search against what an ask shows: a naive evaluator over markets drawn from a seed, and examples worked out by hand.
#![allow(clippy::unwrap_used)]

mod documentation;
mod examples;
#[path = "../../examples/search_rates/market.rs"]
mod market;
mod naive;
mod properties;

use market::NOW;
use souk_protocol::{
    DocumentId,
    machine::search::{AskIndex, Options, PeerFacts, Results, search},
    offer::Offer,
    query::Query,
};

fn index_of(offers: &[(DocumentId, Offer)]) -> AskIndex {
    let mut index = AskIndex::new();
    for (id, offer) in offers {
        index.insert(*id, offer);
        index.set_facts(offer.host, facts_of(offer));
    }
    index
}

/// Some hosts are known, some are strangers; which, depends on the host only.
fn facts_of(offer: &Offer) -> PeerFacts {
    let byte = offer.host.0[0];
    if byte < 100 {
        return PeerFacts::default();
    }
    PeerFacts {
        reliability: f64::from(byte) / 255.0,
        trust: f64::from(offer.host.0[1]) / 255.0,
        verified: byte > 200,
        static_ip: byte.is_multiple_of(2),
        ..PeerFacts::default()
    }
}

fn everything() -> Options {
    Options { all: true, limit: usize::MAX, ..Options::at(NOW) }
}

fn run(index: &AskIndex, query: &str, options: &Options) -> Results {
    search(index, &Query::parse(query).unwrap(), options)
}
