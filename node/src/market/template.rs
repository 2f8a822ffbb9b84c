//! What a lease runs, as a template: for its renter alone, and without the values of its variables.

use souk_protocol::workload::Workload;

use super::{
    command::{CommandError, ErrorCode, LeaseSelector},
    jupyter,
    task::Market,
    views,
};
use crate::template::{Template, VERSION};

impl Market {
    /// The template of a lease, open or over.
    pub(super) fn lease_template(&self, id: &LeaseSelector) -> Result<Template, CommandError> {
        let lease = self.find(id)?;
        let row = self.ledger.row(&lease);
        let draft = row.as_ref().and_then(views::draft_of).filter(|draft| draft.renter == self.engine.me());
        let workload = row.as_ref().and_then(|row| Workload::from_bytes(&row.workload).ok());
        let (Some(draft), Some(workload)) = (draft, workload) else {
            let message = "this node did not rent it, or has forgotten what it ran; only its renter knows";
            return Err(CommandError::new(ErrorCode::WrongState, message));
        };
        let page = jupyter::is_asked(&workload);
        // Keys and logins are the renter's own, for one rental.
        let Workload { command, entrypoint, env, user, workdir, onstart, .. } = workload;
        let own = |name: &String| !(page && name == jupyter::TOKEN);
        Ok(Template {
            souk_template: VERSION,
            image: draft.image.reference.clone(),
            entrypoint: entrypoint.filter(|_| !page),
            command: command.filter(|_| !page),
            user,
            workdir,
            onstart,
            env: env.into_iter().map(|(name, _)| name).filter(own).map(|name| (name, None)).collect(),
            jupyter: page,
            egress: Some(draft.egress),
            disk_mb: Some(draft.resources.disk_mb),
            rental: Some(draft.rental.into()),
            ..Template::default()
        })
    }
}
