//! Rentals that run the image's Jupyter: what goes to the host for it, and how its renter gets in.
//!
//! The token is the workload's, made anew for each rental: the ledger keeps it sealed with the workload, and nothing else holds it.

use souk_protocol::{LeaseId, workload::Workload};

use super::{
    command::{CommandError, ErrorCode, LeaseSelector},
    task::Market,
};
use crate::{
    api::types::{JupyterView, RentRequest},
    clock::random,
};

/// The helper's verb that finds the image's Jupyter and becomes it.
const COMMAND: [&str; 2] = [souk_runtime::HELPER_IN_INSTANCE, "jupyter"];
/// Holds the token. Jupyter reads it by itself.
pub(super) const TOKEN: &str = "JUPYTER_TOKEN";
/// Names another port than Jupyter's own.
const PORT: &str = "JUPYTER_PORT";
const DEFAULT_PORT: u16 = 8888;
/// Characters of a token that a person has chosen.
const TOKEN_CHARACTERS: std::ops::RangeInclusive<usize> = 16..=128;

/// Makes a request for Jupyter one for the command that starts it. Others stay as they are.
pub(super) fn prepare(request: &mut RentRequest) -> Result<(), CommandError> {
    let bad = |sentence: &str| CommandError::new(ErrorCode::BadRequest, sentence);
    if !request.jupyter {
        return Ok(());
    }
    if request.command.is_some() || request.entrypoint.is_some() {
        return Err(bad("a rental with Jupyter has no command or entrypoint of its own; Jupyter is what it runs")
            .hint(
                "leave one of them away, or start the command in Jupyter's terminal, with souk exec or with souk ssh",
            ));
    }
    let given = |name: &str| request.env.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value);
    if given(PORT).is_some_and(|port| port.parse::<u16>().ok().is_none_or(|port| port == 0)) {
        return Err(bad("JUPYTER_PORT is no port"));
    }
    match given(TOKEN) {
        Some(token) if is_token(token) => {}
        Some(_) => {
            return Err(bad("JUPYTER_TOKEN is to be 16 to 128 letters, digits, dashes or underscores")
                .hint("leave it away, and a random one is made"));
        }
        None => {
            let secret: [u8; 32] = random().map_err(|e| CommandError::new(ErrorCode::Internal, e.to_string()))?;
            request.env.0.push((TOKEN.to_owned(), hex::encode(secret)));
        }
    }
    request.command = Some(COMMAND.map(str::to_owned).to_vec());
    request.entrypoint = Some(Vec::new());
    Ok(())
}

fn is_token(text: &str) -> bool {
    TOKEN_CHARACTERS.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

/// Whether a workload is the image's Jupyter.
pub(crate) fn is_asked(workload: &Workload) -> bool {
    workload.command.as_deref().is_some_and(|command| command == COMMAND)
        && workload.entrypoint.as_ref().is_some_and(Vec::is_empty)
}

fn variable<'a>(workload: &'a Workload, name: &str) -> Option<&'a String> {
    workload.env.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
}

impl Market {
    /// The token and the port of a rented Jupyter.
    pub(super) fn jupyter_access(&self, id: &LeaseSelector) -> Result<JupyterView, CommandError> {
        let lease = self.find(id)?;
        self.rented_by_us(lease)?;
        let row = self.ledger.row(&lease);
        let workload = row.and_then(|row| Workload::from_bytes(&row.workload).ok()).filter(is_asked);
        let workload = workload.ok_or_else(|| {
            CommandError::new(ErrorCode::WrongState, "it was rented without --jupyter, so there is no page to open")
                .hint(format!("souk forward {} PORT reaches what it serves itself", lease.short()))
        })?;
        let token = variable(&workload, TOKEN).cloned().unwrap_or_default();
        let port = variable(&workload, PORT).and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_PORT);
        let label = self.meta.get(&lease).and_then(|meta| meta.label.clone());
        Ok(JupyterView { lease, label, token, port })
    }

    /// That this node rents it, and the lease is not over.
    fn rented_by_us(&self, lease: LeaseId) -> Result<(), CommandError> {
        if self.engine.renter().leases().get(&lease).is_some_and(|held| !held.state().is_ended()) {
            return Ok(());
        }
        let message = if self.engine.host().leases().contains_key(&lease) {
            "this machine is rented out by that lease; what runs in it is its renter's alone"
        } else {
            "the lease is over, and its instance is gone"
        };
        Err(CommandError::new(ErrorCode::WrongState, message))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn request(extra: serde_json::Value) -> RentRequest {
        let mut whole = serde_json::json!({ "ask": "1", "image": "debian:12", "jupyter": true });
        whole.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(whole).unwrap()
    }

    fn token_of(request: &RentRequest) -> &str {
        &request.env.0.iter().find(|(name, _)| name == TOKEN).unwrap().1
    }

    #[test]
    fn each_rental_has_a_token_of_its_own_that_no_argument_shows() {
        let (mut one, mut two) = (request(serde_json::json!({})), request(serde_json::json!({})));
        prepare(&mut one).unwrap();
        prepare(&mut two).unwrap();
        assert!(is_token(token_of(&one)) && token_of(&one) != token_of(&two));
        let words = one.command.clone().unwrap();
        assert!(words.iter().all(|word| !word.contains(token_of(&one))), "{words:?}");
        let workload = Workload { command: one.command, entrypoint: one.entrypoint, ..Workload::default() };
        assert!(is_asked(&workload));
        assert!(!is_asked(&Workload { command: Some(vec!["jupyter".to_owned()]), ..Workload::default() }));
    }

    #[test]
    fn what_contradicts_it_is_refused() {
        let token = |text: &str| serde_json::json!({ "env": [["JUPYTER_TOKEN", text]] });
        let wrong = [
            serde_json::json!({ "command": ["sleep", "1"] }),
            serde_json::json!({ "entrypoint": ["/bin/sh"] }),
            serde_json::json!({ "env": [["JUPYTER_PORT", "0"]] }),
            serde_json::json!({ "env": [["JUPYTER_PORT", "http"]] }),
            token("short"),
            token("0123456789abcdef&x=1"),
            token(""),
        ];
        for extra in wrong {
            assert_eq!(prepare(&mut request(extra.clone())).unwrap_err().code, ErrorCode::BadRequest, "{extra}");
        }
        let mut own = request(token("0123456789-abcdef_XYZ"));
        prepare(&mut own).unwrap();
        assert_eq!(token_of(&own), "0123456789-abcdef_XYZ");
    }
}
