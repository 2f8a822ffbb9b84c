//! Copies to and from volumes without an instance: a container of an image with nothing in it, where only the helper runs.
//!
//! It has the volume's folder and nothing else: no network, nothing of its root to write on, little memory. It is there while a copy
//! needs it, carries the labels of the volume's lease, and so is removed at the node's next start where a crash left it. Owns who
//! still needs it; it doesn't decide who may copy.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bollard::{
    models::{
        ContainerCreateBody, HealthConfig, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount,
        MountType, RestartPolicy, RestartPolicyNameEnum,
    },
    query_parameters::{CreateContainerOptionsBuilder, StartContainerOptions},
};

use crate::{
    blank,
    container::{CAPABILITIES, helper_mount, labels},
    error::{RuntimeError, classify, is_missing},
    exec::{self, ExecSession, ExecSpec},
    helper::HELPER_IN_INSTANCE,
    instance::Instance,
    report::FailureCode,
    shared::Shared,
};

/// Where a copy finds the volume: a path of the volume is below this one.
pub const VOLUME_IN_COPY: &str = "/volume";
/// The image, by repository and tag. Made where it isn't there; it has no bytes and stays.
const IMAGE: (&str, &str) = ("souk-files", "blank");
/// Bytes of memory, the kernel's cache of what is copied included.
const MEMORY: i64 = 256 << 20;
/// Billionths of a core.
const NANO_CPUS: i64 = 1_000_000_000;
const PROCESSES: i64 = 64;

/// The runs there are.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    /// Held while one begins or ends.
    one_at_a_time: tokio::sync::Mutex<()>,
    users: Mutex<BTreeMap<String, usize>>,
}

impl Runs {
    fn users(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a copy needs this volume's container now.
    pub(crate) fn needs(&self, volume: &str) -> bool {
        self.users().contains_key(volume)
    }

    /// One user less; whether it was the last.
    fn less(&self, volume: &str) -> bool {
        let mut users = self.users();
        let left = users.get_mut(volume).map_or(0, |count| {
            *count = count.saturating_sub(1);
            *count
        });
        if left == 0 {
            users.remove(volume);
        }
        left == 0
    }
}

/// A copy's need of the container, which goes with the last.
#[derive(Debug)]
pub(crate) struct Needed {
    shared: Arc<Shared>,
    volume: String,
}

impl Drop for Needed {
    fn drop(&mut self) {
        let (shared, volume) = (Arc::clone(&self.shared), std::mem::take(&mut self.volume));
        self.shared.tasks.spawn(async move {
            let _one = shared.volume_runs.one_at_a_time.lock().await;
            if shared.volume_runs.less(&volume)
                && let Err(code) = Instance::new(Arc::clone(&shared.engine), &volume).remove().await
            {
                tracing::warn!(?code, %volume, "the container of a copy to a volume is left until the next one or the next start");
            }
        });
    }
}

/// The helper's side of a copy to or from a volume that is there.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    volume: &str,
    user: Option<String>,
) -> Result<ExecSession, RuntimeError> {
    let instance = Instance::new(Arc::clone(&shared.engine), volume);
    let needed = {
        let _one = shared.volume_runs.one_at_a_time.lock().await;
        if !shared.volume_runs.needs(volume) {
            begin(shared, &instance).await?;
        }
        *shared.volume_runs.users().entry(volume.to_owned()).or_default() += 1;
        Needed { shared: Arc::clone(shared), volume: volume.to_owned() }
    };
    let command = vec![HELPER_IN_INSTANCE.to_owned(), "files".to_owned()];
    let spec = ExecSpec { command, user, stdin: true, ..ExecSpec::default() };
    exec::open_volume(shared, &instance, spec, needed).await
}

async fn begin(shared: &Shared, instance: &Instance) -> Result<(), RuntimeError> {
    let engine = &shared.engine;
    let failed = |error: &bollard::errors::Error| RuntimeError::Engine(classify(error));
    // What the end of an earlier one could not remove.
    instance.remove().await.map_err(RuntimeError::Engine)?;
    engine.volumes.mount(&instance.lease).await.map_err(|error| {
        tracing::error!(%error, volume = %instance.lease, "a volume can't be copied from or to");
        RuntimeError::Engine(FailureCode::EngineRefused)
    })?;
    let (name, tag) = IMAGE;
    match engine.docker.inspect_image(&format!("{name}:{tag}")).await {
        Ok(_) => {}
        Err(error) if is_missing(&error) => blank::import(&engine.config.socket, name, tag).await?,
        Err(error) => return Err(failed(&error)),
    }
    let options = CreateContainerOptionsBuilder::new().name(&instance.names.container).build();
    let made = engine.docker.create_container(Some(options), describe(instance)).await;
    let started = match made {
        Ok(_) => engine.docker.start_container(&instance.names.container, None::<StartContainerOptions>).await,
        Err(error) => Err(error),
    };
    if let Err(error) = started {
        tracing::error!(%error, volume = %instance.lease, "the container of a copy can't be started");
        if let Err(code) = instance.remove().await {
            tracing::warn!(?code, volume = %instance.lease, "what was made for a copy is left");
        }
        return Err(failed(&error));
    }
    Ok(())
}

fn describe(instance: &Instance) -> ContainerCreateBody {
    let engine = &instance.engine;
    let volume = Mount {
        target: Some(VOLUME_IN_COPY.to_owned()),
        source: Some(engine.volumes.source(&instance.lease).display().to_string()),
        typ: Some(MountType::BIND),
        ..Mount::default()
    };
    let host = HostConfig {
        nano_cpus: Some(NANO_CPUS),
        memory: Some(MEMORY),
        memory_swap: Some(MEMORY),
        pids_limit: Some(PROCESSES),
        mounts: Some(vec![volume, helper_mount(&engine.helper)]),
        // Neither the root nor the engine's own files in it are anybody's to write: they are on no rented disk.
        readonly_rootfs: Some(true),
        log_config: Some(HostConfigLogConfig { typ: Some(String::from("none")), config: None }),
        network_mode: Some(String::from("none")),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        auto_remove: Some(false),
        cap_drop: Some(vec![String::from("ALL")]),
        cap_add: Some(CAPABILITIES.iter().map(|name| (*name).to_owned()).collect()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        ipc_mode: Some(String::from("private")),
        privileged: Some(false),
        security_opt: Some(vec![String::from("no-new-privileges:true")]),
        runtime: engine.config.oci_runtime.clone(),
        init: Some(false),
        ..HostConfig::default()
    };
    let (name, tag) = IMAGE;
    ContainerCreateBody {
        hostname: Some(instance.names.short.clone()),
        // Root of the image, whatever users the files have; another is asked for with the copy.
        user: Some(String::from("0:0")),
        working_dir: Some(VOLUME_IN_COPY.to_owned()),
        // Without a command PID 1 only stays.
        entrypoint: Some(vec![HELPER_IN_INSTANCE.to_owned(), String::from("init")]),
        cmd: Some(vec![String::from("--")]),
        healthcheck: Some(HealthConfig { test: Some(vec![String::from("NONE")]), ..HealthConfig::default() }),
        image: Some(format!("{name}:{tag}")),
        labels: Some(labels(&engine.config.node_id, &instance.lease)),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}
