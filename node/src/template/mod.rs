//! Templates: what to run and on what kind of machine, without who rents it, at what price or with which secrets.
//!
//! Owns the document, its bounds and its id, and how a template and a rental complete each other. A template comes from anywhere, so
//! nothing in it is taken for granted, and nothing in it is about money. Where templates are kept is [`store`]'s.

pub mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use souk_protocol::{
    Digest, Millis, limits,
    ports::{self, PortRequest},
    query,
    resources::Egress,
    workload::Workload,
};

use crate::api::types::{Environment, RentRequest, RentalKind};

/// The version of documents that this program writes and reads.
pub const VERSION: u32 = 1;
/// Bytes of a template's file: room for the largest workload, escaped.
pub const FILE_BYTES: usize = 256 * 1024;
/// Bytes of a description.
const DESCRIPTION_BYTES: usize = 1024;
/// Bytes of search conditions, far more than people write.
const QUERY_BYTES: usize = 4096;
/// Bytes of the order of a search.
const ORDER_BYTES: usize = 256;
/// MB of disk.
const DISK_MB: u64 = 1_000_000_000;

/// A template. Its canonical text is JSON with two spaces a level, fields in this order, absent ones left out, and a newline at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// [`VERSION`].
    pub souk_template: u32,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The image.
    pub image: String,
    /// Replaces the image's entrypoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// As whom it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// A script that is run at each start, before the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onstart: Option<String>,
    /// Ports that shall be reached from outside, at whatever numbers the host has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRequest>,
    /// Variables by name. Those without a value are the renter's to supply.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, Option<String>>,
    /// Runs the image's Jupyter.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub jupyter: bool,
    /// What it may reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// Disk in MB of 10⁶ bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mb: Option<u64>,
    /// Conditions of a search for machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Which match goes first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// How it is rented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rental: Option<RentalKind>,
    /// How long the contract shall run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term_ms: Option<Millis>,
}

/// Why a text is no template, or a rental can't become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is longer than any template.
    #[error("it is over {} KiB, and so no template", FILE_BYTES / 1024)]
    TooLong,
    /// It is something else.
    #[error("it is no template: {0}")]
    Malformed(String),
    /// It was made by a later version.
    #[error("it is a template of version {0}, and this souk reads version {VERSION}; a newer souk reads it")]
    Version(u64),
    /// A field is out of bounds.
    #[error("{0}")]
    Field(String),
    /// What is the renter's to decide for each rental.
    #[error("a template holds no {0}: that is for each renter to say when renting")]
    Renters(&'static str),
}

impl Template {
    /// The bytes that its id is of, and that it is kept as.
    #[must_use]
    pub fn canonical(&self) -> Vec<u8> {
        // Plain structs, lists and maps with text keys always serialise; nothing is no template, and is refused as one.
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// BLAKE3 of the canonical bytes.
    #[must_use]
    pub fn id(&self) -> Digest {
        Digest::of(&self.canonical())
    }

    /// Reads and checks a template.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub fn read(bytes: &[u8]) -> Result<Self, TemplateError> {
        if bytes.len() > FILE_BYTES {
            return Err(TemplateError::TooLong);
        }
        let malformed = |error: serde_json::Error| TemplateError::Malformed(error.to_string());
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(malformed)?;
        match value.get("souk_template").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            Some(version) => return Err(TemplateError::Version(version)),
            None => return Err(TemplateError::Malformed("its `souk_template`, the version, is missing".to_owned())),
        }
        // From the text again, so that an error tells its line.
        let template: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        template.check()?;
        Ok(template)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`TemplateError::Field`] for the first that is out of bounds.
    pub fn check(&self) -> Result<(), TemplateError> {
        let bad = |sentence: &str| Err(TemplateError::Field(sentence.to_owned()));
        if let Err(error) = souk_runtime::reference::Reference::parse(&self.image) {
            return Err(TemplateError::Field(error.to_string()));
        }
        if self.image.len() > limits::IMAGE_REFERENCE_BYTES {
            return bad("the name of the image is too long");
        }
        let line = |text: &Option<String>, most| {
            text.as_ref().is_none_or(|text| text.len() <= most && !text.chars().any(char::is_control))
        };
        if !line(&self.description, DESCRIPTION_BYTES) {
            return bad("the description is to be one line of at most 1 KiB");
        }
        if !line(&self.query, QUERY_BYTES) || !line(&self.order, ORDER_BYTES) {
            return bad("the search conditions are too long, or have control characters");
        }
        if let Some(text) = &self.query
            && let Err(error) = query::Query::parse(text)
        {
            return Err(TemplateError::Field(format!("the search conditions make no sense: {error}")));
        }
        if self.jupyter && (self.command.is_some() || self.entrypoint.is_some()) {
            return bad("it has both Jupyter and a command of its own");
        }
        ports::check_requests(&self.ports).map_err(|why| TemplateError::Field(why.0.to_string()))?;
        if self.disk_mb.is_some_and(|mb| mb == 0 || mb > DISK_MB) {
            return bad("the disk is not between 1 MB and 1 PB");
        }
        if self.term_ms.is_some_and(|term| term.0 < 1000 || term > limits::TERM) {
            return bad("the term is not between 1 s and a year");
        }
        if let Some(name) = self.env.keys().find(|name| !is_variable(name)) {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(TemplateError::Field(format!(
                "`{shown}` is no name of a variable: letters, digits, dots, dashes and underscores"
            )));
        }
        let env = self.env.iter().map(|(name, value)| (name.clone(), value.clone().unwrap_or_default())).collect();
        let workload = Workload {
            command: self.command.clone(),
            entrypoint: self.entrypoint.clone(),
            env,
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            onstart: self.onstart.clone(),
            ..Workload::default()
        };
        workload.check().map_err(|why| TemplateError::Field(why.0.to_string()))
    }

    /// The template of a rental. What is about one rental only has no place in it.
    ///
    /// # Errors
    /// [`TemplateError::Renters`] for what a template doesn't hold, else as [`Template::check`].
    pub fn of(request: RentRequest, env: BTreeMap<String, Option<String>>) -> Result<Self, TemplateError> {
        // Without `..`: whoever adds to a rental decides here whether templates have it.
        let RentRequest {
            ask: _,
            image,
            rental,
            extend_ms,
            price_hour,
            max_price_hour,
            disk_mb,
            env: _,
            user,
            entrypoint,
            workdir,
            egress,
            term_ms,
            max_spend,
            prepay_ms,
            label,
            tick_ms,
            command,
            jupyter,
            onstart,
            ports,
            login,
            ssh_keys,
            like: _,
            detach: _,
            volume: _,
            volumes,
        } = request;
        let renters = [
            (price_hour.is_some() || max_price_hour.is_some(), "price"),
            (max_spend.is_some(), "ceiling of what is spent"),
            (prepay_ms.is_some(), "payment ahead"),
            (extend_ms.is_some(), "extension"),
            (label.is_some(), "label"),
            (!volumes.is_empty(), "volumes of one machine"),
            (login.is_some(), "registry login"),
            (!ssh_keys.is_empty(), "SSH keys"),
            (ports.iter().any(|port| port.public.is_some()), "number of a host's port"),
            (tick_ms.is_some(), "time between receipts"),
        ];
        if let Some((_, what)) = renters.into_iter().find(|(given, _)| *given) {
            return Err(TemplateError::Renters(what));
        }
        let template = Self {
            souk_template: VERSION,
            description: None,
            image,
            entrypoint,
            command,
            user,
            workdir,
            onstart,
            ports,
            env,
            jupyter,
            egress,
            disk_mb,
            query: None,
            order: None,
            rental,
            term_ms,
        };
        template.check()?;
        Ok(template)
    }

    /// Completes a request: what it says itself holds, the template's fills the rest. Returns the variables that are still to be
    /// supplied.
    #[must_use]
    pub fn complete(self, request: &mut RentRequest) -> Vec<String> {
        let Self {
            souk_template: _,
            description: _,
            image,
            entrypoint,
            command,
            user,
            workdir,
            onstart,
            ports,
            env,
            jupyter,
            egress,
            disk_mb,
            query: _,
            order: _,
            rental,
            term_ms,
        } = self;
        if request.image.is_empty() {
            request.image = image;
        }
        // A program of the renter's own takes the place of what the template runs; an entrypoint that of its arguments, too.
        let own_program = request.entrypoint.is_some();
        if request.command.is_none() && !own_program && !request.jupyter {
            request.jupyter = jupyter;
        }
        if !request.jupyter && !own_program {
            request.entrypoint = entrypoint;
            request.command = request.command.take().or(command);
        }
        request.user = request.user.take().or(user);
        request.workdir = request.workdir.take().or(workdir);
        request.onstart = request.onstart.take().or(onstart);
        if request.ports.is_empty() {
            request.ports = ports;
        }
        request.egress = request.egress.or(egress);
        request.disk_mb = request.disk_mb.or(disk_mb);
        request.rental = request.rental.or(rental);
        request.term_ms = request.term_ms.or(term_ms);
        let Environment(given) = &mut request.env;
        let mut missing = Vec::new();
        for (name, value) in env {
            if given.iter().any(|(known, _)| *known == name) {
                continue;
            }
            match value {
                Some(value) => given.push((name, value)),
                None => missing.push(name),
            }
        }
        missing
    }

    /// The conditions of a search, with further ones that must hold as well.
    #[must_use]
    pub fn query_with(&self, further: &str) -> String {
        match self.query.as_deref().unwrap_or_default().trim() {
            "" => further.to_owned(),
            own if further.trim().is_empty() => own.to_owned(),
            own => format!("({own}) ({further})"),
        }
    }
}

/// Whether programs of all kinds can read a variable of this name.
fn is_variable(name: &str) -> bool {
    name.len() <= 256 && !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}
