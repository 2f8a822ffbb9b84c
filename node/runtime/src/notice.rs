//! The notice file in a running instance: what its host has to tell it, eviction above all.
//!
//! The helper writes it from inside, as a process of the instance itself: links in there lead nowhere else, whatever the guest has
//! made of its file system. Where no process can be added any more, the engine puts the file in place, confined to the container.

use std::time::Duration;

use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use bollard::query_parameters::UploadToContainerOptionsBuilder;
use bytes::Bytes;
use futures::StreamExt as _;

use crate::error::classify;
use crate::helper::HELPER_IN_INSTANCE;
use crate::instance::Instance;
use crate::report::FailureCode;

/// Where the notice is inside an instance.
pub const NOTICE_IN_INSTANCE: &str = "/run/souk/notice.json";
/// Most bytes of a notice.
pub const MAX_NOTICE_BYTES: usize = 4096;

/// How long the helper may take; a guest may have stopped its own processor time.
const HELPER_WITHIN: Duration = Duration::from_secs(10);
/// Block size of a tar archive.
const BLOCK: usize = 512;

impl Instance {
    /// Writes the notice, or removes it. Fine where the instance doesn't run.
    pub(crate) async fn set_notice(&self, text: Option<&str>) -> Result<(), FailureCode> {
        let done = tokio::time::timeout(HELPER_WITHIN, self.run_helper(text)).await;
        let failed = match done {
            Ok(Ok(Some(0))) => return Ok(()),
            Ok(Ok(code)) => format!("the helper ended with {code:?}"),
            Ok(Err(FailureCode::InstanceGone)) => return Err(FailureCode::InstanceGone),
            Ok(Err(code)) => format!("{code:?}"),
            Err(_) => String::from("the helper did not end in time"),
        };
        tracing::debug!(lease = %self.lease, failed, "the notice can't be set from inside");
        let Some(text) = text else {
            return Err(FailureCode::EngineRefused);
        };
        let options = UploadToContainerOptionsBuilder::new().path("/").no_overwrite_dir_non_dir("true").build();
        let archive = bollard::body_full(Bytes::from(archive(text)));
        let put = self.engine.docker.upload_to_container(&self.names.container, Some(options), archive).await;
        put.map_err(|error| classify(&error))
    }

    async fn run_helper(&self, text: Option<&str>) -> Result<Option<i64>, FailureCode> {
        let mut command = vec![HELPER_IN_INSTANCE, "notice"];
        command.extend(text);
        let options = CreateExecOptions {
            cmd: Some(command),
            user: Some("0:0"),
            working_dir: Some("/"),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..CreateExecOptions::default()
        };
        let docker = &self.engine.docker;
        let exec = docker.create_exec(&self.names.container, options).await.map_err(|error| {
            if crate::error::status(&error) == Some(409) { FailureCode::InstanceGone } else { classify(&error) }
        })?;
        let started = docker.start_exec(&exec.id, None::<StartExecOptions>).await.map_err(|error| classify(&error))?;
        if let StartExecResults::Attached { mut output, .. } = started {
            while output.next().await.is_some() {}
        }
        let ended = docker.inspect_exec(&exec.id).await.map_err(|error| classify(&error))?;
        Ok(ended.exit_code)
    }
}

/// A tar archive of the notice alone. Folders are not in it: the engine makes missing ones, and must not replace what is there.
fn archive(text: &str) -> Vec<u8> {
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in header.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, NOTICE_IN_INSTANCE.trim_start_matches('/').as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{:011o}\0", text.len()).as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    for (to, from) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *to = from;
    }
    let mut archive = header.to_vec();
    archive.extend_from_slice(text.as_bytes());
    archive.resize(archive.len().next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::archive;

    #[test]
    fn the_archive_is_one_that_tar_reads() {
        let mut tar = Command::new("tar")
            .args(["--to-stdout", "-xf", "-", "run/souk/notice.json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(&archive("{\"event\":\"eviction\"}")).unwrap();
        let output = tar.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(output.stdout, b"{\"event\":\"eviction\"}");
    }
}
