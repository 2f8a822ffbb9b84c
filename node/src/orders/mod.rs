//! Standing orders: rent when a match comes (`souk rent --wait`), and again when a host is lost (`--failover`).
//!
//! Owns the orders, their file, and one task for each that is not done. Rents through the market task like any other client of
//! it; the rules of what to try and when a host is lost are [`souk_protocol::machine::standing`]'s. Before anything is
//! signed the negotiation's nonce is on disk, so after a crash an order finds the lease it has, and never rents twice.

mod pursue;
mod store;

use std::{collections::BTreeMap, path::Path};

use souk_protocol::{Millis, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::store::{Order, Orders, State, Store};
use crate::{
    api::types::{OrderRequest, OrderState, OrderView},
    clock::now,
    market::{CommandError, ErrorCode, MarketHandle, command::Reply},
    seal::Seal,
};

/// How long a host may be gone before its lease is replaced, unless the order says otherwise.
pub const PATIENCE: Millis = Millis::from_mins(10);
/// Orders that are not done. More are refused.
const OPEN: usize = 64;
/// Orders kept to be shown once they are done; the oldest go first.
const KEPT: usize = 64;
/// Commands and changes waiting for the task. When full, the asker waits.
const QUEUE: usize = 64;

enum Message {
    Add(Box<OrderRequest>, Reply<OrderView>),
    List(Reply<Vec<OrderView>>),
    Cancel(u32, Reply<OrderView>),
    /// An order went on. Answered once that is on disk.
    Changed(Box<Order>, oneshot::Sender<()>),
}

/// Asks the orders' task. Cheap to clone.
#[derive(Debug, Clone)]
pub struct OrdersHandle(mpsc::Sender<Message>);

impl OrdersHandle {
    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Message) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.0.send(make(reply)).await.map_err(|_| CommandError::stopping())?;
        answer.await.unwrap_or_else(|_| Err(CommandError::stopping()))
    }

    /// A new order.
    ///
    /// # Errors
    /// `bad_request` if its query makes no sense, `busy` if there are too many.
    pub async fn add(&self, request: OrderRequest) -> Result<OrderView, CommandError> {
        self.ask(|reply| Message::Add(Box::new(request), reply)).await
    }

    /// All orders, oldest first.
    ///
    /// # Errors
    /// `stopping`.
    pub async fn list(&self) -> Result<Vec<OrderView>, CommandError> {
        self.ask(Message::List).await
    }

    /// Takes an order back. A lease it has goes on.
    ///
    /// # Errors
    /// `not_found`.
    pub async fn cancel(&self, number: u32) -> Result<OrderView, CommandError> {
        self.ask(|reply| Message::Cancel(number, reply)).await
    }
}

struct Actor {
    store: Store,
    orders: Orders,
    running: BTreeMap<u32, CancellationToken>,
    market: MarketHandle,
    handle: mpsc::Sender<Message>,
    stop: CancellationToken,
}

/// Reads the orders and goes on with them, until `stop`.
///
/// # Errors
/// If their file can't be read.
pub fn spawn(dir: &Path, seal: Seal, market: MarketHandle, stop: CancellationToken) -> anyhow::Result<OrdersHandle> {
    let store = Store::new(dir, seal);
    let orders = store.load()?;
    let (handle, mut messages) = mpsc::channel(QUEUE);
    let mut actor =
        Actor { store, orders, running: BTreeMap::new(), market, handle: handle.clone(), stop: stop.clone() };
    tokio::spawn(async move {
        let open: Vec<Order> = actor.orders.orders.iter().filter(|o| !o.is_over()).cloned().collect();
        open.into_iter().for_each(|order| actor.pursue(order));
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                message = messages.recv() => match message {
                    Some(message) => actor.message(message),
                    None => break,
                },
            }
        }
    });
    Ok(OrdersHandle(handle))
}

impl Actor {
    fn pursue(&mut self, order: Order) {
        let stop = self.stop.child_token();
        self.running.insert(order.number, stop.clone());
        let saver = pursue::Saver(self.handle.clone());
        tokio::spawn(pursue::run(order, self.market.clone(), saver, stop));
    }

    fn save(&self) -> Result<(), CommandError> {
        self.store.save(&self.orders).map_err(|error| {
            tracing::error!("standing orders can't be written: {error:#}");
            CommandError::new(ErrorCode::Internal, format!("the order can't be written down: {error}"))
        })
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Add(request, reply) => {
                reply.send(self.add(*request)).ok();
            }
            Message::List(reply) => {
                reply.send(Ok(self.orders.orders.iter().map(view).collect())).ok();
            }
            Message::Cancel(number, reply) => {
                reply.send(self.cancel(number)).ok();
            }
            Message::Changed(changed, saved) => {
                let Some(order) = self.orders.orders.iter_mut().find(|o| o.number == changed.number) else { return };
                *order = *changed;
                if order.is_over() {
                    self.running.remove(&order.number);
                }
                self.prune();
                // Not answered if it can't be written: the order's task goes no further.
                if self.save().is_ok() {
                    saved.send(()).ok();
                }
            }
        }
    }

    fn add(&mut self, request: OrderRequest) -> Result<OrderView, CommandError> {
        request.check()?;
        if self.orders.orders.iter().filter(|o| !o.is_over()).count() >= OPEN {
            return Err(CommandError::new(ErrorCode::Busy, format!("there are {OPEN} standing orders already"))
                .hint("souk order list; souk order cancel N"));
        }
        let number = self.orders.last.saturating_add(1);
        let note = "waits for a match".to_owned();
        let order = Order { number, request, created: now(), state: State::Waiting, replaced: Vec::new(), note };
        self.orders.last = number;
        self.orders.orders.push(order.clone());
        self.save().inspect_err(|_| {
            self.orders.orders.pop();
        })?;
        let shown = view(&order);
        self.pursue(order);
        Ok(shown)
    }

    fn cancel(&mut self, number: u32) -> Result<OrderView, CommandError> {
        let missing =
            || CommandError::new(ErrorCode::NotFound, format!("there is no order {number}")).hint("souk order list");
        let at = self.orders.orders.iter().position(|o| o.number == number).ok_or_else(missing)?;
        if let Some(stop) = self.running.remove(&number) {
            stop.cancel();
        }
        let order = self.orders.orders.remove(at);
        self.save()?;
        Ok(view(&order))
    }

    fn prune(&mut self) {
        let over = self.orders.orders.iter().filter(|o| o.is_over()).count();
        let mut surplus = over.saturating_sub(KEPT);
        self.orders.orders.retain(|o| {
            let goes = surplus > 0 && o.is_over();
            surplus -= usize::from(goes);
            !goes
        });
    }
}

impl Order {
    fn is_over(&self) -> bool {
        self.state.is_final() && self.replaced.is_empty()
    }
}

fn view(order: &Order) -> OrderView {
    let (state, lease) = match &order.state {
        State::Waiting => (OrderState::Waiting, None),
        State::Renting { .. } => (OrderState::Renting, None),
        State::Guarding { lease } => (OrderState::Guarding, Some(*lease)),
        State::Done { lease } => (OrderState::Done, Some(*lease)),
        State::Expired => (OrderState::Expired, None),
    };
    OrderView {
        number: order.number,
        state,
        query: order.request.query.clone(),
        image: order.request.rent.image.clone(),
        label: order.request.rent.label.clone(),
        lease,
        failover: order.request.failover,
        created_ms: order.created,
        until_ms: order.request.until_ms.filter(|until| *until > Timestamp(0)),
        replaces: order.replaced.iter().map(|(lease, _)| *lease).collect(),
        note: order.note.clone(),
    }
}
