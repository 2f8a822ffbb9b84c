//! What instances ask at their endpoints, answered from the engine.

use souk_protocol::{
    LeaseId,
    machine::io::{Command, Input, InsideWish, Refusal, Token},
};

use super::task::Market;
use crate::inside::{Ask, SelfView, What};

const GONE: &str = "this instance is being destroyed";

impl Market {
    /// Serves the endpoint of an instance that is there.
    pub(super) fn open_inside(&mut self, lease: LeaseId) {
        let (Some(host), true) = (&self.host, self.engine.host().leases().contains_key(&lease)) else { return };
        let config = host.runtime_config();
        let folder = souk_runtime::inside::folder(&config.data_dir, &config.node_id, &lease.to_string());
        self.endpoints.open(lease, &folder);
    }

    pub(super) fn asked_inside(&mut self, ask: Ask) {
        let wish = match &ask.what {
            What::Show => return self.answer_inside(ask, Ok(())),
            What::Stop => InsideWish::Stop,
            What::Destroy => InsideWish::Destroy,
            What::Label(text) => InsideWish::Label(text.clone()),
        };
        let (token, lease) = (self.token(), ask.lease);
        self.inside.insert(token, ask);
        self.input(Input::Command(Command::FromInside { token, lease, wish }));
    }

    /// The engine's answer to a wish from inside, if the token is one's. True if it was.
    pub(super) fn inside_done(&mut self, token: Token, result: &Result<(), Refusal>) -> bool {
        let Some(ask) = self.inside.remove(&token) else { return false };
        self.answer_inside(ask, result.clone().map_err(|why| why.to_string()));
        true
    }

    fn answer_inside(&self, ask: Ask, result: Result<(), String>) {
        let held = self.engine.host().leases().get(&ask.lease);
        let view = result.and_then(|()| held.map(SelfView::of).ok_or_else(|| GONE.to_owned()));
        // A guest that went meanwhile is told nothing.
        ask.answer.send(view).ok();
    }
}
