//! One order's task: looks for matches, rents, and watches over what it has rented.

use std::time::Duration;

use souk_protocol::{
    AskId, LeaseId, Millis, NodeId, Nonce, Timestamp,
    machine::standing::{Tried, Watched, watch},
    message::Action,
    resources::SlotClass,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Message,
    store::{Order, State},
};
use crate::{
    api::types::{AskRow, LeaseView, RentStep, SearchRequest},
    clock::{now, random},
    market::{
        Command, CommandError, ErrorCode, MarketHandle,
        command::{AskSelector, LeaseSelector, StepSender},
    },
};

/// Between two looks at the market, or at the lease.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two attempts to end a lease of a host that was lost.
const END_EVERY: Millis = Millis::from_secs(20);
/// Matches tried before looking anew.
const TRIES: usize = 8;

/// Has an order written down.
#[derive(Debug, Clone)]
pub(super) struct Saver(pub(super) mpsc::Sender<Message>);

impl Saver {
    /// Returns once it is on disk; none if it can't be, or the order was cancelled.
    async fn save(&self, order: &Order) -> Option<()> {
        let (saved, done) = oneshot::channel();
        self.0.send(Message::Changed(Box::new(order.clone()), saved)).await.ok()?;
        done.await.ok()
    }
}

struct Pursuit {
    order: Order,
    market: MarketHandle,
    saver: Saver,
    tried: Tried,
    gone_since: Option<Timestamp>,
    end_again: Timestamp,
}

/// Pursues an order to its end.
pub(super) async fn run(order: Order, market: MarketHandle, saver: Saver, stop: CancellationToken) {
    let mut pursuit =
        Pursuit { order, market, saver, tried: Tried::default(), gone_since: None, end_again: Timestamp(0) };
    for (_, host) in pursuit.order.replaced.clone() {
        pursuit.tried.lost(host, now());
    }
    loop {
        // Cancelled between two steps only: what is being rented is either the order's or nobody's.
        if stop.is_cancelled() || pursuit.step().await.is_none() || pursuit.order.is_over() {
            return;
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

impl Pursuit {
    async fn step(&mut self) -> Option<()> {
        self.end_replaced().await?;
        match self.order.state.clone() {
            State::Waiting if self.order.request.until_ms.is_some_and(|until| now() >= until) => {
                self.go(State::Expired, "its time was up before a match came".to_owned()).await
            }
            State::Waiting => self.look().await,
            State::Renting { nonce } => self.settle(nonce).await,
            State::Guarding { lease } => self.guard(lease).await,
            State::Done { .. } | State::Expired => Some(()),
        }
    }

    async fn go(&mut self, state: State, note: String) -> Option<()> {
        self.order.state = state;
        self.order.note = note;
        self.saver.save(&self.order).await
    }

    async fn remark(&mut self, note: String) -> Option<()> {
        if self.order.note == note {
            return Some(());
        }
        self.order.note = note;
        self.saver.save(&self.order).await
    }

    /// Tries the matches there are, best first.
    async fn look(&mut self) -> Option<()> {
        let matches = match self.matches().await {
            Ok(matches) => matches,
            Err(error) if error.code == ErrorCode::Stopping => return None,
            Err(error) => return self.remark(error.message).await,
        };
        for (ask, host) in matches.into_iter().take(TRIES) {
            if self.tried.may_try(&ask, &host, now()) {
                self.rent(ask).await?;
                if self.order.state != State::Waiting {
                    return Some(());
                }
            }
        }
        Some(())
    }

    async fn matches(&self) -> Result<Vec<(AskId, NodeId)>, CommandError> {
        let wanted = &self.order.request;
        let request = SearchRequest {
            query: wanted.query.clone(),
            order: wanted.order.clone(),
            rental: wanted.rent.rental,
            storage_gb: wanted.rent.disk_mb.map(|mb| mb.div_ceil(1000)),
            limit: Some(50),
            ..SearchRequest::default()
        };
        let mut found = self.market.ask(|reply| Command::Search { request, reply }).await?;
        if wanted.order.is_none() {
            AskRow::give_newcomers_a_chance(&mut found.rows)
                .map_err(|e| CommandError::new(ErrorCode::Internal, e.to_string()))?;
        }
        let first = wanted.first.filter(|_| self.order.replaced.is_empty());
        let row = |row: &AskRow| (row.id, row.node);
        let mut matches: Vec<(AskId, NodeId)> = found.rows.iter().map(row).collect();
        matches.sort_by_key(|(ask, _)| Some(*ask) != first);
        if let Some(first) = first.filter(|first| matches.iter().all(|(ask, _)| ask != first)) {
            matches.insert(0, (first, NodeId([0; 32])));
        }
        Ok(matches)
    }

    async fn rent(&mut self, ask: AskId) -> Option<()> {
        let nonce = Nonce(random().ok()?);
        self.go(State::Renting { nonce }, format!("asks for {}", ask.short())).await?;
        let (steps, mut heard) = StepSender::channel();
        let mut request = self.order.request.rent.clone();
        request.ask = AskSelector::from(ask);
        request.detach = true;
        self.market.send(Command::RentAs { request: Box::new(request), nonce, steps }).await.ok()?;
        let mut why = "the host did not answer".to_owned();
        while let Some(step) = heard.recv().await {
            if let RentStep::Failed { error } = step {
                why = error.message;
            }
        }
        // What the ledger has is what counts; a failed negotiation has left nothing there.
        self.settle(nonce).await?;
        if self.order.state == State::Waiting {
            self.tried.failed(ask, now());
            self.remark(format!("{} did not rent to us: {why}", ask.short())).await?;
        }
        Some(())
    }

    /// What came of a negotiation.
    async fn settle(&mut self, nonce: Nonce) -> Option<()> {
        match self.market.ask(|reply| Command::LeaseOf { nonce, reply }).await {
            Ok(None) => self.go(State::Waiting, self.order.note.clone()).await,
            Ok(Some((view, true))) if view.state.is_ended() => {
                self.go(State::Waiting, format!("lease {} came to nothing: {}", view.number, view.note)).await
            }
            Ok(Some((view, true))) => self.taken(view).await,
            // Signed by us, and not answered yet.
            Ok(Some((_, false))) => Some(()),
            Err(_) => None,
        }
    }

    async fn taken(&mut self, view: LeaseView) -> Option<()> {
        let (lease, number) = (view.lease, view.number);
        if self.order.request.query.is_empty() {
            self.order.request.query = alike(&view);
        }
        let state = if self.order.request.failover { State::Guarding { lease } } else { State::Done { lease } };
        self.gone_since = None;
        self.go(state, format!("has lease {number}")).await
    }

    /// Watches over a lease, and replaces it if its host is lost.
    async fn guard(&mut self, lease: LeaseId) -> Option<()> {
        let id = LeaseSelector(lease.to_string());
        let view = match self.market.ask(|reply| Command::Lease { id, reply }).await {
            Ok(detail) => detail.view,
            Err(error) if error.code == ErrorCode::Stopping => return None,
            Err(error) => return self.remark(error.message).await,
        };
        self.gone_since = if view.reachable { None } else { self.gone_since.or(Some(now())) };
        match watch(view.state, self.gone_since, self.order.patience(), now()) {
            Watched::Fine => Some(()),
            Watched::Over => self.go(State::Done { lease }, "its lease is over".to_owned()).await,
            Watched::Lost => {
                self.tried.lost(view.peer, now());
                self.gone_since = None;
                if !view.state.is_ended() {
                    self.order.replaced.push((lease, view.peer));
                }
                let why = if view.state.is_ended() { view.state.to_string() } else { "its host is gone".to_owned() };
                self.go(State::Waiting, format!("replaces lease {}: {why}", view.number)).await
            }
        }
    }

    /// Ends leases that were replaced, once their hosts are back: nobody pays for two.
    async fn end_replaced(&mut self) -> Option<()> {
        let has_another = matches!(self.order.state, State::Guarding { .. } | State::Done { .. });
        if self.order.replaced.is_empty() || !has_another || now() < self.end_again {
            return Some(());
        }
        self.end_again = now() + END_EVERY;
        for (lease, host) in self.order.replaced.clone() {
            let id = || LeaseSelector(lease.to_string());
            let over = match self.market.ask(|reply| Command::Lease { id: id(), reply }).await {
                Ok(detail) if detail.view.state.is_ended() => true,
                Ok(detail) if detail.view.reachable => {
                    let destroy = |reply| Command::Control { id: id(), action: Action::Destroy, reply };
                    self.market.ask(destroy).await.is_ok_and(|view| view.state.is_ended())
                }
                Ok(_) => false,
                Err(error) => error.code == ErrorCode::NotFound,
            };
            if over {
                self.order.replaced.retain(|known| *known != (lease, host));
                self.saver.save(&self.order).await?;
            }
        }
        Some(())
    }
}

/// A query for machines like the one of a lease, at no higher price.
fn alike(view: &LeaseView) -> String {
    let slots = match &view.resources.class {
        SlotClass::Gpu(model) => format!("gpu_name=\"{}\" num_gpus={}", model.replace('"', ""), view.resources.slots),
        SlotClass::Cpu => {
            format!("num_gpus=0 cpu_cores_effective>={}", f64::from(view.resources.cpu_milli) / 1000.0)
        }
    };
    format!("{slots} cpu_ram>={} dph<={}", view.resources.ram_mb / 1024, dearer(view))
}

/// What the lease costs with its disk, and a tenth more for rounding and small differences.
fn dearer(view: &LeaseView) -> f64 {
    let hour = u128::from(view.price_hour.0);
    #[allow(clippy::cast_precision_loss)] // for a query, where prices are floating point
    let dph = hour as f64 / 1e9;
    (dph * 1.1 * 1e6).ceil() / 1e6
}
