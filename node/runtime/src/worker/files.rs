//! Runs for files alone, as the worker begins and ends them: see [`crate::files_only`].

use super::{Command, Worker};
use crate::{
    error::RuntimeError,
    files_only::{FilesOnly, knows_orders},
    instance::ObservedState,
    report::{FailureCode, Step},
};

impl Worker {
    /// Ends a run for files before what a command does; none where the command can't be carried out then.
    pub(super) async fn after_files_only(&mut self, command: Command) -> Option<Command> {
        if matches!(command, Command::FilesOnly(_) | Command::Usage(_) | Command::Notice(_)) {
            return Some(command);
        }
        let Err(code) = self.end_files_only().await else { return Some(command) };
        match command {
            Command::Start(_) => {
                self.fail(Step::Start, code).await;
                None
            }
            Command::Adopt(answer) => {
                let _ = answer.send(Err(code));
                None
            }
            // These end what runs in any case, and make nothing run.
            Command::Prepare(_)
            | Command::Notice(_)
            | Command::Stop { .. }
            | Command::Kill
            | Command::Destroy
            | Command::FilesOnly(_)
            | Command::Usage(_) => Some(command),
        }
    }

    /// Makes the stopped instance run for its files alone, or finds it so; none where it runs by itself.
    pub(super) async fn files_only(&mut self) -> Result<Option<FilesOnly>, RuntimeError> {
        let engine = RuntimeError::Engine;
        if self.wake.files_only.stands() {
            if self.is_running().await.map_err(engine)? {
                return Ok(Some(FilesOnly::new(&self.wake)));
            }
            self.end_files_only().await.map_err(engine)?;
        }
        let name = &self.instance.names.container;
        let found = self.instance.inspect(name, false).await.map_err(engine)?;
        let found = found.ok_or(engine(FailureCode::InstanceGone))?;
        if !knows_orders(&found) {
            return Err(RuntimeError::TooOldForFiles);
        }
        if self.is_running().await.map_err(engine)? {
            return Ok(None);
        }
        self.wake.files_only.set(true);
        self.overfull = None;
        let started = match self.instance.order_files_only() {
            Ok(()) => self.instance.start().await,
            Err(error) => {
                tracing::error!(%error, lease = %self.instance.lease, "an order can't be written");
                Err(FailureCode::HostDiskFull)
            }
        };
        if let Err(code) = started {
            self.end_files_only().await.map_err(engine)?;
            return Err(engine(code));
        }
        tracing::info!(lease = %self.instance.lease, "runs for its files alone");
        Ok(Some(FilesOnly::new(&self.wake)))
    }

    async fn is_running(&self) -> Result<bool, FailureCode> {
        let found = self.instance.observe(false).await?.ok_or(FailureCode::InstanceGone)?;
        Ok(matches!(found.state, ObservedState::Running { .. }))
    }

    /// Ends a run for files, also one of a node that was killed; fine where there is none. Nothing is reported: for the lease nothing
    /// ran.
    pub(super) async fn end_files_only(&mut self) -> Result<(), FailureCode> {
        if !self.wake.files_only.stands() && !self.instance.is_files_only() {
            return Ok(());
        }
        for ended in [self.instance.kill().await, self.instance.stop(0).await] {
            if let Err(code) = ended
                && code != FailureCode::InstanceGone
            {
                return Err(code);
            }
        }
        self.instance.withdraw_files_only().map_err(|error| {
            tracing::error!(%error, lease = %self.instance.lease, "an order can't be taken back");
            FailureCode::HostDiskFull
        })?;
        self.known = self.instance.observe(false).await?.map(|found| found.state).or(self.known);
        self.wake.files_only.set(false);
        Ok(())
    }

    /// Ends the run when nobody needs it any more, or when it has ended by itself.
    pub(super) async fn look_at_files_only(&mut self) {
        let over = self.wake.files_only.nobody() || !self.is_running().await.unwrap_or(true);
        if over && let Err(code) = self.end_files_only().await {
            tracing::warn!(?code, lease = %self.instance.lease, "a run for files can't be ended");
            // The disk's next check looks again.
        }
    }

    /// As while it runs by itself; but one that is overfull already can be emptied.
    pub(super) async fn check_disk_of_files_only(&mut self) {
        if self.wake.files_only.nobody() {
            return self.look_at_files_only().await;
        }
        let Ok(used) = self.instance.written_bytes().await else { return };
        let used_bytes = if used.bounded { 0 } else { used.bytes };
        let limit_bytes = self.disk_mb.unwrap_or(u64::MAX >> 20).saturating_mul(1 << 20);
        if used_bytes <= limit_bytes {
            return;
        }
        if used_bytes > *self.overfull.get_or_insert(used_bytes) {
            tracing::info!(lease = %self.instance.lease, used_bytes, limit_bytes, "a copy overflows the disk and is ended");
            if let Err(code) = self.end_files_only().await {
                tracing::warn!(?code, lease = %self.instance.lease, "a run for files can't be ended");
            }
        }
    }
}
