//! Standing orders: what is wanted, and where an order stands.

use serde::{Deserialize, Serialize};
use souk_protocol::{AskId, LeaseId, Millis, Timestamp, query::Query};

use super::RentRequest;
use crate::market::{CommandError, ErrorCode};

/// An order to rent when a match comes, or again when a host is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderRequest {
    /// What matches. May be empty where `first` is given: then a lease's replacement is one like it, at no higher price.
    #[serde(default)]
    pub query: String,
    /// Which match goes first; none for the best score.
    #[serde(default)]
    pub order: Option<String>,
    /// The rental. Its ask is chosen by the order.
    pub rent: RentRequest,
    /// The ask to begin with.
    #[serde(default)]
    pub first: Option<AskId>,
    /// Rent again when the host ends the lease or is lost.
    #[serde(default)]
    pub failover: bool,
    /// How long a host may be gone; none for ten minutes.
    #[serde(default)]
    pub patience_ms: Option<Millis>,
    /// Past this it waits no longer; none for no end.
    #[serde(default)]
    pub until_ms: Option<Timestamp>,
}

impl OrderRequest {
    /// Checks what can be checked before there is a match.
    ///
    /// # Errors
    /// `bad_request`.
    pub fn check(&self) -> Result<(), CommandError> {
        let bad = |message: String| CommandError::new(ErrorCode::BadRequest, message);
        Query::parse(&self.query).map_err(|e| bad(e.to_string()).hint("souk search --help lists the fields"))?;
        if self.query.trim().is_empty() && self.first.is_none() {
            return Err(bad("an order needs a query, or an ask to begin with".to_owned())
                .hint("souk rent --query 'gpu_name=RTX_4090 dph<0.4' --wait --image IMAGE"));
        }
        Ok(())
    }
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// No match has come.
    Waiting,
    /// A match is being rented.
    Renting,
    /// It has a lease and watches over it.
    Guarding,
    /// It has its lease.
    Done,
    /// Its time was up.
    Expired,
}

/// An order in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderView {
    /// Its number.
    pub number: u32,
    /// Where it stands.
    pub state: OrderState,
    /// What matches.
    pub query: String,
    /// The image.
    pub image: String,
    /// The name its leases get.
    pub label: Option<String>,
    /// The lease it has.
    pub lease: Option<LeaseId>,
    /// Whether it replaces a lost lease.
    pub failover: bool,
    /// When it was given.
    pub created_ms: Timestamp,
    /// Past this it waits no longer.
    pub until_ms: Option<Timestamp>,
    /// Leases of lost hosts that are to be ended when these are back.
    pub replaces: Vec<LeaseId>,
    /// The last thing that happened.
    pub note: String,
}
