//! Which machines the runs get: the matches, best first, each host once before any twice.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{FutureExt as _, future::OptionFuture};
use souk_protocol::AskId;
use souk_runtime::handover::Sent;

use super::no_machine;
use crate::{
    api::{
        client::{Client, Lines},
        types::{AskRow, LeaseView, RentRequest, RentStep, SearchRequest, SearchResults},
    },
    cli::{args::RunArgs, error::Failure, output::money, push::Pushed},
    market::{ErrorCode, command::AskSelector},
};

/// Attempts beside those that can succeed.
const FAILURES: usize = 8;
/// Between two looks at the market.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A machine that was rented. The lease ends when the steps are dropped.
pub(super) struct Rented {
    pub(super) lease: Box<LeaseView>,
    _steps: Lines,
}

/// The matches that are left to try, for all runs together.
pub(super) struct Machines {
    request: RentRequest,
    /// The image, where it is sent from here.
    pushed: Option<Pushed>,
    asks: Mutex<VecDeque<AskSelector>>,
}

impl Machines {
    /// Looks for matches, or takes the ask that was named.
    pub(super) async fn find(client: &Client, args: &RunArgs, mut request: RentRequest) -> Result<Self, Failure> {
        let pushed = if args.image_access.push { Some(Pushed::find(&request.image).await?) } else { None };
        if let Some(pushed) = &pushed {
            request.image = pushed.reference();
        }
        if let Some(ask) = &args.ask {
            let asks = Mutex::new(VecDeque::from([AskSelector(ask.clone())]));
            return Ok(Self { request, pushed, asks });
        }
        let search = SearchRequest {
            query: args.query.clone(),
            order: args.order.clone(),
            storage_gb: args.disk,
            limit: Some(200),
            ..SearchRequest::default()
        };
        let until = Instant::now() + Duration::from_millis(args.wait.0);
        let mut found = loop {
            let found: SearchResults = client.post("search", &search).await?;
            if !found.rows.is_empty() {
                break found;
            }
            if Instant::now() >= until {
                return Err(no_machine(None));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        if args.order.is_none() {
            AskRow::give_newcomers_a_chance(&mut found.rows).map_err(|e| Failure::new(e.to_string()))?;
        }
        let mut hosts = HashSet::new();
        let (mut first, mut later): (Vec<AskId>, Vec<AskId>) = (Vec::new(), Vec::new());
        for row in &found.rows {
            if hosts.insert(row.host_id) { first.push(row.id) } else { later.push(row.id) }
        }
        let asks = first.into_iter().chain(later).map(AskSelector::from).collect();
        Ok(Self { request, pushed, asks: Mutex::new(asks) })
    }

    fn next(&self) -> Option<AskSelector> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Rents the next machine that can be had.
    pub(super) async fn rent(&self, client: &Client, say: &impl Fn(String)) -> Result<Rented, Failure> {
        let mut last = None;
        for _ in 0..FAILURES {
            let Some(ask) = self.next() else { break };
            let request = RentRequest { ask, ..self.request.clone() };
            match try_one(client, &request, self.pushed.as_ref(), say).await {
                Ok(rented) => return Ok(rented),
                Err(failure) if hopeless(&failure) => return Err(failure),
                Err(failure) => {
                    say(format!("{}; trying the next match", failure.error.message));
                    last = Some(failure);
                }
            }
        }
        Err(no_machine(last))
    }
}

/// Whether another machine would say the same.
fn hopeless(failure: &Failure) -> bool {
    matches!(failure.error.code, ErrorCode::BadRequest | ErrorCode::Stopping)
}

async fn try_one(
    client: &Client,
    request: &RentRequest,
    pushed: Option<&Pushed>,
    say: &impl Fn(String),
) -> Result<Rented, Failure> {
    let mut steps = client.lines("run", request).await?;
    let mut preparing = false;
    let mut sending = OptionFuture::from(None);
    loop {
        let step = tokio::select! {
            step = steps.next::<RentStep>() => step?,
            Some(sent) = &mut sending => {
                let _: Sent = sent?;
                sending = OptionFuture::from(None);
                continue;
            }
        };
        let Some(step) = step else { break };
        match step {
            RentStep::Accepted { lease, .. } => {
                let work =
                    pushed.map(|pushed| async move { pushed.to(client, &lease.to_string(), |_| {}).await }.boxed());
                sending = OptionFuture::from(work);
            }
            RentStep::Running { lease } | RentStep::Exited { lease } => {
                return Ok(Rented { lease, _steps: steps });
            }
            RentStep::Drafted { lease, price_hour, currency, .. } => {
                say(format!("{} at {}/h", lease.short(), money(price_hour, &currency, 6)));
            }
            RentStep::Preparing { .. } if !preparing => {
                preparing = true;
                say("preparing".to_owned());
            }
            RentStep::Ended { lease } => {
                return Err(Failure::new(format!("the lease is over: {} {}", lease.state, lease.note)));
            }
            RentStep::Failed { error } => return Err(error.into()),
            RentStep::Resolving { .. }
            | RentStep::Proposed { .. }
            | RentStep::Countered { .. }
            | RentStep::Committed { .. }
            | RentStep::Waiting { .. }
            | RentStep::Preparing { .. } => {}
        }
    }
    Err(Failure::new("the node stopped telling how the rental goes").code(ErrorCode::Unreachable))
}
