//! From what a person types to the lease it means: a row number, a label, or the first digits of an id.

use souk_protocol::LeaseId;

use super::{CommandError, ErrorCode};

/// The fewest digits of an id that name it.
pub const SHORTEST_PREFIX: usize = 4;

/// One lease, as far as a name needs it.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    /// The lease.
    pub lease: LeaseId,
    /// Its row number.
    pub number: u64,
    /// Its label.
    pub label: Option<&'a str>,
    /// Whether it is over: an open lease goes before those that are.
    pub ended: bool,
}

/// The row number that a text may be: `7` or `#7`.
#[must_use]
pub fn number(text: &str) -> Option<u64> {
    text.trim().trim_start_matches('#').parse().ok()
}

/// The first digits of an id that a text may be.
#[must_use]
pub fn digits(text: &str) -> Option<String> {
    let digits = text.trim().to_ascii_lowercase();
    let fits = digits.len() >= SHORTEST_PREFIX && digits.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then_some(digits)
}

/// Finds the one lease that `text` names. A label goes before a number, a number before a prefix; among leases of one label
/// those that are not over go first.
///
/// # Errors
/// `not_found` or `ambiguous`, naming what was typed and what it could mean.
pub fn resolve<'a>(text: &str, candidates: impl IntoIterator<Item = Candidate<'a>>) -> Result<LeaseId, CommandError> {
    let (number, prefix) = (number(text), digits(text));
    let text = text.trim();

    let (mut open, mut over, mut by_number, mut by_id) = (vec![], vec![], None, vec![]);
    for candidate in candidates {
        if candidate.label == Some(text) {
            let list = if candidate.ended { &mut over } else { &mut open };
            list.push(candidate.lease);
        }
        if number == Some(candidate.number) {
            by_number = Some(candidate.lease);
        }
        if prefix.as_ref().is_some_and(|prefix| candidate.lease.to_string().starts_with(prefix)) {
            by_id.push(candidate.lease);
        }
    }
    if !open.is_empty() {
        return only(text, "label", &open);
    }
    if let Some(lease) = by_number {
        return Ok(lease);
    }
    if !over.is_empty() {
        return only(text, "label", &over);
    }
    if !by_id.is_empty() {
        return only(text, "id", &by_id);
    }
    let shown: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
    Err(CommandError::new(ErrorCode::NotFound, format!("no lease has the number, label or id `{shown}`"))
        .hint("souk ps -a lists all of them"))
}

fn only(text: &str, what: &str, leases: &[LeaseId]) -> Result<LeaseId, CommandError> {
    if let [lease] = leases {
        return Ok(*lease);
    }
    let names: Vec<String> = leases.iter().take(3).map(LeaseId::short).collect();
    Err(CommandError::new(
        ErrorCode::Ambiguous,
        format!(
            "`{text}` is the {what} of {} leases: {}{}",
            leases.len(),
            names.join(", "),
            if leases.len() > 3 { ", …" } else { "" }
        ),
    )
    .hint("name one by its number or by more digits of its id"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn candidate(number: u64, first: u8, label: Option<&str>, ended: bool) -> Candidate<'_> {
        let mut id = [0; 32];
        id[0] = first;
        id[31] = u8::try_from(number).unwrap();
        Candidate { lease: LeaseId(id), number, label, ended }
    }

    #[test]
    fn a_lease_is_found_by_number_label_and_prefix() {
        let all = [
            candidate(1, 0xab, Some("train"), true),
            candidate(2, 0xab, Some("train"), false),
            candidate(3, 0xcd, None, false),
        ];
        let find = |text: &str| resolve(text, all).map(|l| l.0[31]);
        assert_eq!(find("1").unwrap(), 1);
        assert_eq!(find("#3").unwrap(), 3);
        assert_eq!(find("train").unwrap(), 2, "the open one");
        assert_eq!(find("CD00").unwrap(), 3);
        assert_eq!(find("ab00").unwrap_err().code, ErrorCode::Ambiguous);
        assert_eq!(find("cd").unwrap_err().code, ErrorCode::NotFound, "too short");
        assert_eq!(find("nope").unwrap_err().code, ErrorCode::NotFound);
        assert_eq!(find("").unwrap_err().code, ErrorCode::NotFound);
    }
}
