//! A question to the owner's program as JSON, and what its answer means.
//!
//! Amounts are decimal text, times milliseconds, as everywhere in the local API.

use serde::Serialize;
use souk_protocol::{
    Amount,
    machine::{
        host::owner::unanswered,
        pricing::{About, OwnerAnswer, Question},
    },
    negotiation::{Reject, RejectCode, RentalType},
    resources::Egress,
};

use super::program::{Ended, ProgramError, line};
use crate::{
    api::types::{ModelView, decimal},
    config::OnFailure,
};

/// What the program reads.
#[derive(Debug, Serialize)]
struct Asked<'a> {
    question: &'static str,
    renter: String,
    ask: String,
    rental: RentalType,
    round: u8,
    /// What is bid for all slots together, per hour.
    #[serde(with = "decimal")]
    bid_hour: Amount,
    slots: u16,
    slots_total: u16,
    slots_free: u16,
    /// The listed price of one slot for an hour.
    #[serde(with = "decimal")]
    slot_hour: Amount,
    #[serde(with = "decimal")]
    min_bid: Amount,
    currency: &'a str,
    image: &'a str,
    image_digest: Option<&'a str>,
    disk_mb: u64,
    egress: Egress,
    term_ms: Option<u64>,
    #[serde(with = "decimal::option")]
    max_spend: Option<Amount>,
    agreed: Option<Agreed>,
    leases: usize,
    market: Option<&'a ModelView>,
}

#[derive(Debug, Serialize)]
struct Agreed {
    #[serde(with = "decimal")]
    price_hour: Amount,
    gpus: u16,
    cpu_milli: u32,
    ram_mb: u64,
    disk_mb: u64,
    ends_at_ms: u64,
}

/// The question as JSON: the proposal, the machine's leases, and what is seen of the market for its model.
#[must_use]
pub fn json(question: &Question, leases: usize, market: Option<&ModelView>) -> Vec<u8> {
    let p = &question.proposal;
    let asked = Asked {
        question: match question.about {
            About::Price => "price",
            About::Accept => "accept",
        },
        renter: question.renter.to_string(),
        ask: p.ask.to_string(),
        rental: p.rental,
        round: p.round,
        bid_hour: p.price_hour,
        slots: question.slots,
        slots_total: question.slots_total,
        slots_free: question.slots_free,
        slot_hour: question.slot_hour,
        min_bid: question.min_bid_slot_hour,
        currency: &question.currency.0,
        image: &p.image,
        image_digest: p.image_digest.as_deref(),
        disk_mb: p.disk_mb,
        egress: p.egress,
        term_ms: p.term.map(|t| t.0),
        max_spend: p.max_spend,
        agreed: question.agreed.as_ref().map(|a| Agreed {
            price_hour: a.price_hour,
            gpus: a.resources.gpus(),
            cpu_milli: a.resources.cpu_milli,
            ram_mb: a.resources.ram_mb,
            disk_mb: a.resources.disk_mb,
            ends_at_ms: a.ends_at.0,
        }),
        leases,
        market,
    };
    let mut json = serde_json::to_vec(&asked).unwrap_or_default();
    json.push(b'\n');
    json
}

/// What the program's end means, and a sentence on what went wrong if it gave no answer.
#[must_use]
pub fn answer(
    about: About,
    ended: Result<Ended, ProgramError>,
    on_failure: OnFailure,
) -> (OwnerAnswer, Option<String>) {
    match about {
        About::Price => match price(ended) {
            Ok(price) => (OwnerAnswer::Price(Some(price)), None),
            Err(why) => (OwnerAnswer::Price(None), Some(why)),
        },
        About::Accept => match accepted(ended) {
            Ok(accepted) => (OwnerAnswer::Accept(accepted), None),
            Err(why) => {
                let result = match on_failure {
                    OnFailure::Accept => Ok(()),
                    OnFailure::Refuse => Err(unanswered()),
                };
                (OwnerAnswer::Accept(result), Some(why))
            }
        },
    }
}

fn price(ended: Result<Ended, ProgramError>) -> Result<Amount, String> {
    let ended = ended.map_err(|e| e.to_string())?;
    if ended.code != Some(0) {
        return Err(failed(&ended));
    }
    let text = std::str::from_utf8(&ended.output).ok().filter(|_| !ended.cut).map(str::trim).unwrap_or_default();
    text.parse().map_err(|_| {
        let shown = line(&ended.output).chars().take(40).collect::<String>();
        format!("it printed `{shown}`, not the price of one slot for an hour, like 0.35")
    })
}

fn accepted(ended: Result<Ended, ProgramError>) -> Result<Result<(), Reject>, String> {
    let ended = ended.map_err(|e| e.to_string())?;
    match ended.code {
        Some(0) => Ok(Ok(())),
        // The shell's words for a program that is not there, or can't be run.
        None | Some(126 | 127) => Err(failed(&ended)),
        Some(_) => {
            let said = line(&ended.output);
            let sentence =
                if said.is_empty() { "this host's owner does not take this rental".to_owned() } else { said };
            Ok(Err(Reject::lasting(RejectCode::NotAccepted, sentence)))
        }
    }
}

fn failed(ended: &Ended) -> String {
    let how = ended.code.map_or_else(|| "a signal ended it".to_owned(), |code| format!("it ended with code {code}"));
    if ended.complaint.is_empty() { how } else { format!("{how}: {}", ended.complaint) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ended(code: i32, output: &str) -> Result<Ended, ProgramError> {
        Ok(Ended { code: Some(code), output: output.as_bytes().to_vec(), cut: false, complaint: String::new() })
    }

    fn priced(result: Result<Ended, ProgramError>) -> Option<Amount> {
        let (answer, failure) = answer(About::Price, result, OnFailure::Refuse);
        let OwnerAnswer::Price(price) = answer else { panic!("no price") };
        assert_eq!(price.is_none(), failure.is_some());
        price
    }

    #[test]
    fn a_price_is_a_price_and_everything_else_is_none() {
        assert_eq!(priced(ended(0, "0.35\n")), Some(Amount(350_000_000)));
        assert_eq!(priced(ended(0, "0")), Some(Amount::ZERO), "a gift");
        for garbage in ["", "cheap", "-1", "0.35\n0.40\n", "1e3", "999999999999999999999", "\u{0}", "NaN"] {
            assert_eq!(priced(ended(0, garbage)), None, "{garbage:?}");
        }
        assert_eq!(priced(ended(1, "0.35")), None);
        assert_eq!(priced(Err(ProgramError::Busy)), None);
        let cut = Ended { cut: true, ..ended(0, "1").unwrap() };
        assert_eq!(priced(Ok(cut)), None);
    }

    #[test]
    fn a_refusal_has_the_programs_own_words() {
        let refused = |result, on_failure| match answer(About::Accept, result, on_failure) {
            (OwnerAnswer::Accept(result), failure) => (result.err().map(|r| r.sentence), failure.is_some()),
            (OwnerAnswer::Price(_), _) => panic!("a price"),
        };
        assert_eq!(refused(ended(0, "whatever"), OnFailure::Refuse), (None, false));
        assert_eq!(
            refused(ended(1, "no \u{1b}[31mminers\nmore"), OnFailure::Refuse),
            (Some("no [31mminers".to_owned()), false)
        );
        assert!(refused(ended(9, ""), OnFailure::Accept).0.is_some(), "a refusal is no failure");
        for failure in [ended(127, "x"), Err(ProgramError::Busy)] {
            assert!(refused(failure, OnFailure::Refuse).0.unwrap().contains("try again"));
        }
        assert_eq!(refused(ended(126, "x"), OnFailure::Accept), (None, true));
    }
}
