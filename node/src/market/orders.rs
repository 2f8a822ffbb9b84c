//! Orders of the owner: given from here to the owner's other machines, and carried out here.
//!
//! An order does what the owner could say on the machine itself about renting it out ([`HostOrder`]), and nothing else. Whether it
//! is obeyed is decided in the protocol crate; each goes through the same command as the local API's.

use std::collections::BTreeMap;

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use souk_network::{NetworkHandle, Reply as PeerReply};
use souk_protocol::{
    MachineId, NetworkId, NodeId, Nonce, Signed, Verified, limits,
    message::{Request, Response},
    negotiation::{Reject, RejectCode},
    owner::OwnerOrder,
};
use tokio::sync::oneshot;

use super::{
    command::{Command, CommandError, ErrorCode, OwnerCommand, Reply},
    commands::answer,
    task::Market,
};
use crate::{
    api::types::{HostOrder, MachineOrder, MachineResult},
    clock::{now, random},
    owner::key,
};

/// Orders on their way at once; the rest wait.
const AT_ONCE: usize = 16;
/// How long a machine has for its answer, being dialled included.
const ORDER_WITHIN: std::time::Duration = std::time::Duration::from_secs(15);
/// The fewest digits of a machine's id that name it.
const SHORTEST_PREFIX: usize = 4;
/// The fewest last characters of a peer id that name it.
const SHORTEST_SUFFIX: usize = 6;

/// What a machine answers to an order, as it is sent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Done(Value),
    Failed(CommandError),
}

type Work = BoxFuture<'static, Result<Value, CommandError>>;

/// The answer that a command will give, as JSON.
async fn as_json<T: Serialize>(answer: oneshot::Receiver<Result<T, CommandError>>) -> Result<Value, CommandError> {
    let answer = answer.await.unwrap_or_else(|_| Err(CommandError::stopping()))?;
    serde_json::to_value(answer).map_err(|e| CommandError::new(ErrorCode::Internal, e.to_string()))
}

impl Market {
    /// Carries an order out on this machine.
    fn order_here(&mut self, order: HostOrder) -> Work {
        let mut ask = |command: Command| self.command(command);
        match order {
            HostOrder::Show => {
                let (reply, answer) = oneshot::channel();
                ask(Command::HostShow(reply));
                as_json(answer).boxed()
            }
            HostOrder::List(request) => {
                let (reply, answer) = oneshot::channel();
                ask(Command::HostList { request, reply });
                as_json(answer).boxed()
            }
            HostOrder::Price(request) => {
                let (reply, answer) = oneshot::channel();
                ask(Command::HostPrice { request, reply });
                as_json(answer).boxed()
            }
            HostOrder::Unlist => {
                let (reply, answer) = oneshot::channel();
                ask(Command::HostUnlist(reply));
                as_json(answer).boxed()
            }
            HostOrder::Accept(request) => {
                let (reply, answer) = oneshot::channel();
                ask(Command::HostAccept { request, reply });
                as_json(answer).boxed()
            }
            HostOrder::Schedule(request) => {
                let (reply, answer) = oneshot::channel();
                ask(Command::HostSchedule { request, reply });
                as_json(answer).boxed()
            }
            HostOrder::Earnings(request) => {
                let (reply, answer) = oneshot::channel();
                ask(Command::HostEarnings { request, reply });
                as_json(answer).boxed()
            }
            HostOrder::Join(request) => {
                let (reply, answer) = oneshot::channel();
                ask(Command::Owner(OwnerCommand::Join { request, reply }));
                as_json(answer).boxed()
            }
            HostOrder::Leave => {
                let (reply, answer) = oneshot::channel();
                ask(Command::Owner(OwnerCommand::Leave(reply)));
                as_json(answer).boxed()
            }
        }
    }

    /// An order came from a peer: carried out if it is the owner's, for us, in time and for the first time.
    pub(super) fn ordered(&mut self, from: NodeId, order: &Signed<OwnerOrder>, reply: PeerReply) {
        let refuse = |reply: PeerReply, reject: Reject| {
            tracing::warn!(peer = %from, "an order was refused: {reject}");
            reply.send(Response::Rejected(reject).to_bytes()).ok();
        };
        let order = match self.owned.orders.admit(order, now()) {
            Ok(order) => order,
            Err(reject) => return refuse(reply, reject),
        };
        // Before it is carried out, so that it is not a second time after a crash.
        if let Err(error) = self.owned.save() {
            return refuse(reply, Reject::passing(RejectCode::Unavailable, error.to_string()));
        }
        let work = match serde_json::from_slice::<HostOrder>(&order.order) {
            Ok(wanted) => match wanted.check_remote() {
                Ok(()) => {
                    tracing::info!(owner = %order.owner, "carrying out an order of the owner");
                    self.order_here(wanted)
                }
                Err(error) => futures::future::ready(Err(error)).boxed(),
            },
            Err(error) => {
                let message = format!("this machine does not know that order ({error})");
                let error = CommandError::new(ErrorCode::BadRequest, message);
                futures::future::ready(Err(error.hint("run the same version of souk on all machines"))).boxed()
            }
        };
        tokio::spawn(async move {
            let outcome = work.await.map_or_else(Outcome::Failed, Outcome::Done);
            if let Err(error) = reply.send(Response::Ordered { answer: written(&outcome) }.to_bytes()) {
                tracing::warn!(%error, "an answer to the owner was not sent");
            }
        });
    }

    /// Has an order carried out on the machines that are meant, and answers once all have.
    pub(super) fn order_all(&mut self, request: MachineOrder, reply: Reply<Vec<MachineResult>>) {
        match self.begin_orders(request) {
            Ok(work) => {
                tokio::spawn(async move {
                    let results = stream::iter(work).buffered(AT_ONCE).collect().await;
                    answer(reply, Ok(results));
                });
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn begin_orders(&mut self, request: MachineOrder) -> Result<Vec<BoxFuture<'static, MachineResult>>, CommandError> {
        let targets = self.targets(&request.machine)?;
        let me = self.engine.me();
        let mut work: Vec<BoxFuture<'static, MachineResult>> = Vec::with_capacity(targets.len());
        let key = if targets.keys().any(|node| *node != me) {
            request.order.check_remote()?;
            Some(self.owned.signing_key()?)
        } else {
            None
        };
        for (node, machine) in targets {
            if node == me {
                let here = self.order_here(request.order.clone());
                work.push(here.map(move |result| finished(node, machine, result)).boxed());
            } else if let Some(key) = &key {
                let network = self.network.clone();
                let order = sign(key, self.engine.network(), node, &request.order)?;
                let sent = async move { finished(node, machine, send(&network, node, &order).await) };
                work.push(sent.boxed());
            }
        }
        Ok(work)
    }

    /// The nodes that a person means.
    fn targets(&self, text: &str) -> Result<BTreeMap<NodeId, Option<MachineId>>, CommandError> {
        let me = self.engine.me();
        let own = self.host.as_ref().map(|host| (me, Some(host.machine())));
        let text = text.trim();
        if text.eq_ignore_ascii_case("this") {
            // Whether this node is a host at all, its own command says.
            return Ok(BTreeMap::from([own.unwrap_or((me, None))]));
        }
        let known: Vec<(NodeId, Option<MachineId>)> = own.into_iter().chain(self.owned.others()).collect();
        if text.eq_ignore_ascii_case("all") {
            if known.is_empty() {
                return Err(CommandError::new(ErrorCode::NotFound, "this node knows no machine of its owner")
                    .hint("souk host machines"));
            }
            return Ok(known.into_iter().collect());
        }
        let digits = text.to_ascii_lowercase();
        let named = |(node, machine): &(NodeId, Option<MachineId>)| {
            let by_machine = digits.len() >= SHORTEST_PREFIX
                && machine.is_some_and(|machine| machine.to_string().starts_with(&digits));
            by_machine || (text.len() >= SHORTEST_SUFFIX && node.to_string().ends_with(text))
        };
        let found: BTreeMap<NodeId, Option<MachineId>> = known.into_iter().filter(named).collect();
        let shown: String = text.chars().filter(|c| !c.is_control()).take(60).collect();
        match found.len() {
            0 => Err(CommandError::new(ErrorCode::NotFound, format!("no machine of this owner is called `{shown}`"))
                .hint("souk host machines lists them")),
            1 => Ok(found),
            n => Err(CommandError::new(ErrorCode::Ambiguous, format!("`{shown}` names {n} machines"))
                .hint("give more digits, or all")),
        }
    }
}

fn finished(node: NodeId, machine: Option<MachineId>, result: Result<Value, CommandError>) -> MachineResult {
    let (done, error) = match result {
        Ok(done) => (Some(done), None),
        Err(error) => (None, Some(error)),
    };
    MachineResult { node, machine, done, error }
}

/// An outcome as it is sent, or that it is too long to be.
fn written(outcome: &Outcome) -> Vec<u8> {
    let bytes = serde_json::to_vec(outcome).unwrap_or_default();
    if !bytes.is_empty() && bytes.len() <= limits::ORDER_ANSWER_BYTES {
        return bytes;
    }
    let message = "it was done, but what there is to say of it is over 512 KiB";
    let error = CommandError::new(ErrorCode::TooLarge, message).hint("ask on the machine itself");
    serde_json::to_vec(&Outcome::Failed(error)).unwrap_or_default()
}

fn sign(
    key: &souk_protocol::Keypair,
    network: &NetworkId,
    to: NodeId,
    order: &HostOrder,
) -> Result<Verified<OwnerOrder>, CommandError> {
    let internal = |e: String| CommandError::new(ErrorCode::Internal, e);
    let issued_at = now();
    let order = OwnerOrder {
        owner: key::id_of(key),
        to,
        order: serde_json::to_vec(order).map_err(|e| internal(e.to_string()))?,
        nonce: Nonce(random().map_err(|e| internal(e.to_string()))?),
        issued_at,
        valid_until: issued_at + limits::ORDER_LIFE,
    };
    Verified::sign(order, key, network).map_err(|e| CommandError::new(ErrorCode::TooLarge, e.to_string()))
}

async fn send(network: &NetworkHandle, to: NodeId, order: &Verified<OwnerOrder>) -> Result<Value, CommandError> {
    let request = Request::Order(order.to_signed()).to_bytes();
    let response = super::patience::ask(network, to, request, ORDER_WITHIN).await.map_err(|e| {
        CommandError::new(ErrorCode::Unreachable, format!("the machine did not answer: {e}"))
            .hint("it may have been done; souk host machines shows how it is")
    })?;
    let odd =
        |why: String| CommandError::new(ErrorCode::Rejected, format!("the machine's answer makes no sense: {why}"));
    if let Response::Ordered { answer } = response {
        return match serde_json::from_slice(&answer).map_err(|e| odd(e.to_string()))? {
            Outcome::Done(value) => Ok(value),
            Outcome::Failed(error) => Err(error),
        };
    }
    if let Response::Rejected(reject) = response {
        let error = CommandError::new(ErrorCode::Rejected, format!("the machine refused: {reject}"));
        return Err(error.hint("check with souk owner show there whose it is"));
    }
    if let Response::Busy { .. } = response {
        return Err(CommandError::new(ErrorCode::Busy, "the machine has too much to do; try again"));
    }
    Err(odd("it answers another question".to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::types::{ListRequest, PriceRequest};

    #[test]
    fn an_order_reads_back_and_nothing_else_does() {
        let request = ListRequest { slot_hour: Some(souk_protocol::Amount(7)), ..ListRequest::default() };
        for order in [HostOrder::Show, HostOrder::List(request), HostOrder::Leave] {
            let bytes = serde_json::to_vec(&order).unwrap();
            assert_eq!(serde_json::from_slice::<HostOrder>(&bytes).unwrap(), order);
        }
        for bad in [
            r#"{"order":"exec","request":{"command":["sh"]}}"#,
            r#"{"order":"idle_job","request":{"image":"x"}}"#,
            r#"{"order":"show","as":"root"}"#,
            r#"{"order":"list","request":{"slot_hour":"1","x":1}}"#,
            "[]",
        ] {
            assert!(serde_json::from_str::<HostOrder>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_order_names_a_program() {
        let command = PriceRequest { command: Some("sh".to_owned()), ..PriceRequest::default() };
        assert!(HostOrder::Price(Box::new(command)).check_remote().is_err());
        assert!(HostOrder::Price(Box::default()).check_remote().is_ok());
    }

    #[test]
    fn an_answer_that_is_too_long_says_so() {
        let long = Outcome::Done(Value::String("x".repeat(limits::ORDER_ANSWER_BYTES)));
        let Outcome::Failed(error) = serde_json::from_slice(&written(&long)).unwrap() else {
            panic!("it is an error");
        };
        assert_eq!(error.code, ErrorCode::TooLarge);
    }
}
