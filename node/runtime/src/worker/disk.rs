//! How full the writable disk is.

use super::{EASED, NEARLY_FULL, Worker};
use crate::{instance::ObservedState, report::InstanceEvent};

impl Worker {
    /// Looks how much is written, tells when the disk is nearly full, and stops what overflows where no quota holds it.
    pub(super) async fn check_disk(&mut self) {
        if self.wake.files_only.stands() {
            return self.check_disk_of_files_only().await;
        }
        let (Some(disk_mb), Some(ObservedState::Running { .. })) = (self.disk_mb, self.known) else {
            return;
        };
        let limit_bytes = disk_mb.saturating_mul(1 << 20);
        // A disk of its own has a little more room than was granted.
        let used = self.instance.written_bytes().await;
        let used = used.map(|used| if used.bounded { used.bytes.min(limit_bytes) } else { used.bytes });
        match used {
            Ok(used_bytes) if used_bytes > limit_bytes && !self.disk_full_told => {
                self.disk_full_told = true;
                self.report(InstanceEvent::DiskFull { used_bytes, limit_bytes }).await;
                self.stop(0).await;
            }
            Ok(used_bytes) => {
                let parts = if self.disk_nearly_full { EASED } else { NEARLY_FULL };
                let nearly_full = u128::from(used_bytes) * 100 >= u128::from(limit_bytes) * parts;
                if nearly_full != self.disk_nearly_full {
                    self.disk_nearly_full = nearly_full;
                    self.report(InstanceEvent::DiskUse { used_bytes, limit_bytes }).await;
                }
            }
            Err(code) => {
                tracing::debug!(?code, lease = %self.instance.lease, "disk use is unknown")
            }
        }
    }
}
