//! What a worker finds of an instance that an earlier node has left.

use super::{KILLED, TERMINATED, Worker};
use crate::{
    instance::ObservedState,
    report::{Exit, ExitCause, FailureCode},
    runtime::{Adopted, InstanceState},
};

impl Worker {
    pub(super) async fn adopt(&mut self) -> Result<Adopted, FailureCode> {
        self.instance.settle().await?;
        // Stopped instances, too: their files are copied and moved.
        if let Err(code) = self.instance.ready_disk().await {
            tracing::error!(?code, lease = %self.instance.lease, "its disk is not mounted");
        }
        let found = self.instance.observe(false).await?;
        let state = match &found {
            None => InstanceState::Gone,
            Some(found) => {
                self.disk_mb = found.disk_mb;
                self.known = Some(found.state);
                match found.state {
                    ObservedState::Created => InstanceState::Created,
                    ObservedState::Running { since } => InstanceState::Running { since },
                    ObservedState::Exited { code, oom, at, .. } => {
                        let by = self.cause(at);
                        // As a machine or an engine that goes down ends it, while nobody looked.
                        let cut = by == ExitCause::Guest && (code == KILLED || code == TERMINATED) && !oom;
                        let by = if cut { ExitCause::Unknown } else { by };
                        InstanceState::Exited(Exit { code, oom, at, by })
                    }
                }
            }
        };
        self.meter.read();
        Ok(Adopted { lease: self.instance.lease.clone(), state, spec_digest: found.map(|found| found.spec_digest) })
    }
}
