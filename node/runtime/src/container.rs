//! From a spec to the engine's description of a container: limits, capabilities, devices, network.
//!
//! Everything that keeps a guest inside its contract is set here and nowhere else; nothing is left to an engine's default
//! that an image could override.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, Ipam, IpamConfig, Mount, MountType, MountVolumeOptions,
    NetworkCreateRequest, NetworkingConfig, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use crate::config::RuntimeConfig;
use crate::disk;
use crate::helper::HELPER_IN_INSTANCE;
use crate::image::StoredImage;
use crate::inside;
use crate::name::{
    LABEL_DISK, LABEL_FULL, LABEL_IDLE, LABEL_IMAGE, LABEL_IMAGE_BYTES, LABEL_LEASE, LABEL_LOOP, LABEL_NODE,
    LABEL_SPEC, Names,
};
use crate::spec::{Devices, Egress, InstanceSpec, Priority};
use crate::subnet::Cidr;
use crate::volume::{VolumeMount, Volumes};

/// The capabilities a container keeps: what package managers, `su`, sshd, web servers and file ownership need as root of
/// the image, and nothing that reaches the network stack (`NET_RAW`, `NET_ADMIN`), devices (`MKNOD`) or the kernel.
/// `SYS_CHROOT` is for sshd's privilege separation and `debootstrap`.
pub const CAPABILITIES: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Open files of a process, soft and hard, where this machine allows as many.
const OPEN_FILES: (u64, u64) = (65_536, 1_048_576);
/// The least share of processor time the kernel knows; a rental has 1,024.
const LEAST_CPU_SHARES: i64 = 2;
/// Killed before everything else when memory runs out.
const FIRST_OUT_OF_MEMORY: i64 = 1000;

/// How GPUs are attached on this engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GpuAttachment {
    DeviceRequest,
    Runtime(String),
}

/// What the description needs to know beside the spec.
pub(crate) struct Surroundings<'a> {
    pub(crate) config: &'a RuntimeConfig,
    pub(crate) names: &'a Names,
    pub(crate) helper: &'a Path,
    /// The folder of the host's orders to its helper.
    pub(crate) orders: &'a Path,
    pub(crate) image: &'a StoredImage,
    pub(crate) gpu: &'a GpuAttachment,
    /// Whether the storage driver bounds the writable layer.
    pub(crate) driver_quota: bool,
    /// The instance's own disk, where it has one.
    pub(crate) disk: Option<&'a Path>,
    /// The folder of its network files, and whether they are not the guest's to write; `None` for the engine's.
    pub(crate) network_files: Option<(&'a Path, bool)>,
    pub(crate) volumes: &'a Volumes,
    /// Its address in its own network, where it has one.
    pub(crate) address: Option<Ipv4Addr>,
    /// The folder that the node shares with it, where it does.
    pub(crate) folder: Option<&'a Path>,
}

/// What names the GPUs to the OCI runtime.
pub(crate) const VISIBLE_DEVICES: &str = "NVIDIA_VISIBLE_DEVICES=";

/// The value of [`VISIBLE_DEVICES`].
pub(crate) fn visible(devices: &Devices) -> String {
    let gpus = if devices.gpus.is_empty() { String::from("void") } else { devices.gpus.join(",") };
    format!("{VISIBLE_DEVICES}{gpus}")
}

/// Sets what decides on devices: device nodes, device requests and the OCI runtime.
pub(crate) fn attach(host: &mut HostConfig, devices: &Devices, gpu: &GpuAttachment, config: &RuntimeConfig) {
    host.devices = (!devices.nodes.is_empty()).then(|| {
        let node = |path: &PathBuf| DeviceMapping {
            path_on_host: Some(path.display().to_string()),
            path_in_container: Some(path.display().to_string()),
            cgroup_permissions: Some(String::from("rw")),
        };
        devices.nodes.iter().map(node).collect()
    });
    let none = devices.gpus.is_empty();
    host.device_requests = (!none && *gpu == GpuAttachment::DeviceRequest).then(|| {
        vec![DeviceRequest {
            driver: Some(String::from("nvidia")),
            device_ids: Some(devices.gpus.clone()),
            capabilities: Some(vec![vec![String::from("gpu"), String::from("compute"), String::from("utility")]]),
            ..DeviceRequest::default()
        }]
    });
    host.runtime = match (none, gpu) {
        (false, GpuAttachment::Runtime(name)) => Some(name.clone()),
        (true, GpuAttachment::Runtime(_) | GpuAttachment::DeviceRequest) | (false, GpuAttachment::DeviceRequest) => {
            config.oci_runtime.clone()
        }
    };
}

/// The limit of the writable layer, where the storage driver holds it.
pub(crate) fn storage_limit(driver_quota: bool, bytes: u64) -> Option<HashMap<String, String>> {
    driver_quota.then(|| HashMap::from([(String::from("size"), format!("{}M", (bytes >> 20).max(1)))]))
}

/// The connection to the instance's own network.
pub(crate) fn networking(names: &Names, address: Option<Ipv4Addr>) -> NetworkingConfig {
    let ipam = address.map(|ip| EndpointIpamConfig { ipv4_address: Some(ip.to_string()), ..Default::default() });
    let endpoint = EndpointSettings { ipam_config: ipam, ..EndpointSettings::default() };
    NetworkingConfig { endpoints_config: Some(HashMap::from([(names.container.clone(), endpoint)])) }
}

/// The helper, mounted: not a bind, so the source must exist and the engine never makes it.
pub(crate) fn helper_mount(helper: &Path) -> Mount {
    Mount {
        target: Some(HELPER_IN_INSTANCE.to_owned()),
        source: Some(helper.display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(true),
        ..Mount::default()
    }
}

/// A volume, where its disk is mounted. Its source is never made by the engine either.
fn attached(volume: &VolumeMount, volumes: &Volumes) -> Mount {
    Mount {
        target: Some(volume.path.clone()),
        source: Some(volumes.source(&volume.volume).display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(volume.read_only),
        ..Mount::default()
    }
}

/// The plain paths of the image's volumes, each once.
pub(crate) fn volume_paths(image: &StoredImage) -> Vec<&String> {
    let plain = |path: &&String| {
        path.len() > 1
            && path.starts_with('/')
            && !HELPER_IN_INSTANCE.starts_with(path.as_str())
            && path.split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != "..")
    };
    let mut paths: Vec<&String> = image.volumes.iter().filter(plain).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// The image's volumes under names of our own, with our labels, so that they can be handed on to another container and none is
/// left over. A path that isn't plain is left to the engine.
fn volume_mounts(
    labels: &HashMap<String, String>,
    names: &Names,
    image: &StoredImage,
    disk: Option<&Path>,
) -> Vec<Mount> {
    let paths = volume_paths(image);
    let volume = |(place, path): (usize, &String)| Mount {
        target: Some(path.clone()),
        source: Some(names.volume(place)),
        typ: Some(MountType::VOLUME),
        volume_options: Some(MountVolumeOptions {
            labels: Some(labels.clone()),
            driver_config: disk.map(|disk| disk::volume_on(disk, place)),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    };
    paths.into_iter().enumerate().map(volume).collect()
}

/// The labels of everything that belongs to a lease.
pub(crate) fn labels(node_id: &str, lease: &str) -> HashMap<String, String> {
    HashMap::from([(LABEL_LEASE.to_owned(), lease.to_owned()), (LABEL_NODE.to_owned(), node_id.to_owned())])
}

/// What PID 1 is to run: the spec's words, or the image's where the spec has none, by Docker's rules.
fn program(spec: &InstanceSpec, image: &StoredImage) -> Vec<String> {
    let entrypoint = spec.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    let command = match (&spec.command, &spec.entrypoint) {
        (Some(command), _) => command.as_slice(),
        (None, Some(_)) => &[],
        (None, None) => image.command.as_slice(),
    };
    entrypoint.iter().chain(command).cloned().collect()
}

/// The environment. What decides on devices is set here for every container, so that neither image nor renter can widen it;
/// a bare name takes a variable of the image away.
fn environment(spec: &InstanceSpec) -> Vec<String> {
    let ours = |name: &str| name.starts_with("NVIDIA_") && !name.starts_with("NVIDIA_REQUIRE_");
    let mut env: Vec<String> =
        spec.env.iter().filter(|(name, _)| !ours(name)).map(|(name, value)| format!("{name}={value}")).collect();
    env.push(visible(&spec.devices));
    env.push(String::from("NVIDIA_DRIVER_CAPABILITIES=compute,utility"));
    for widening in ["NVIDIA_MIG_CONFIG_DEVICES", "NVIDIA_MIG_MONITOR_DEVICES", "NVIDIA_IMEX_CHANNELS"] {
        env.push(widening.to_owned());
    }
    env
}

/// The container of a spec.
pub(crate) fn describe(spec: &InstanceSpec, around: &Surroundings<'_>) -> ContainerCreateBody {
    let mut labels = labels(&around.config.node_id, &spec.lease);
    labels.insert(LABEL_SPEC.to_owned(), spec.digest());
    labels.insert(LABEL_DISK.to_owned(), spec.disk_mb.to_string());
    labels.insert(LABEL_IMAGE.to_owned(), around.image.id.clone());
    labels.insert(LABEL_IMAGE_BYTES.to_owned(), around.image.bytes.to_string());
    if around.disk.is_some() {
        labels.insert(LABEL_LOOP.to_owned(), String::from("true"));
    }
    if spec.priority == Priority::Idle {
        labels.insert(LABEL_IDLE.to_owned(), String::from("true"));
    }

    let mut command = vec![String::from("--")];
    command.extend(program(spec, around.image));
    let network = match spec.egress {
        Egress::None => String::from("none"),
        Egress::Internet | Egress::Full => around.names.container.clone(),
    };
    let networking = (spec.egress != Egress::None).then(|| networking(around.names, around.address));
    ContainerCreateBody {
        hostname: Some(around.names.short.clone()),
        user: spec.user.clone(),
        tty: Some(false),
        open_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        env: Some(environment(spec)),
        entrypoint: Some(vec![HELPER_IN_INSTANCE.to_owned(), String::from("init")]),
        cmd: Some(command),
        // An image's health check would run processes of its own inside.
        healthcheck: Some(HealthConfig { test: Some(vec![String::from("NONE")]), ..HealthConfig::default() }),
        image: Some(around.image.id.clone()),
        working_dir: spec.workdir.clone(),
        labels: Some(labels),
        stop_signal: Some(String::from("SIGTERM")),
        stop_timeout: Some(seconds(spec.stop_grace_ms)),
        host_config: Some(host_config(spec, around, network)),
        networking_config: networking,
        ..ContainerCreateBody::default()
    }
}

/// Whole seconds, rounded up: the engine counts no less.
pub(crate) fn seconds(milliseconds: u64) -> i64 {
    i64::try_from(milliseconds.div_ceil(1000)).unwrap_or(i64::MAX).min(86_400)
}

/// A limit of open files that can be set: an engine in a restricted place (a container, a hardened unit) can't raise its own, and
/// this node's limit is the best guess at it.
fn open_files(wanted: u64) -> i64 {
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    i64::try_from(wanted.min(own.maximum.unwrap_or(wanted))).unwrap_or(i64::MAX)
}

fn host_config(spec: &InstanceSpec, around: &Surroundings<'_>, network: String) -> HostConfig {
    let mebibytes = |size: u64| i64::try_from(size.saturating_mul(1 << 20)).unwrap_or(i64::MAX);
    let memory = mebibytes(spec.memory_mb);
    let config = around.config;
    let capabilities = CAPABILITIES.iter().map(|name| (*name).to_owned()).collect();
    let mut mounts = volume_mounts(&labels(&config.node_id, &spec.lease), around.names, around.image, around.disk);
    mounts.retain(|mount| !spec.volumes.iter().any(|volume| mount.target.as_deref() == Some(&volume.path)));
    mounts.extend(spec.volumes.iter().map(|volume| attached(volume, around.volumes)));
    mounts.push(helper_mount(around.helper));
    if let Some((folder, read_only)) = around.network_files {
        mounts.extend(disk::network_files(folder, read_only));
    }
    mounts.push(crate::files_only::mount(around.orders));
    mounts.extend(around.folder.map(inside::mount));
    let mut host = HostConfig {
        nano_cpus: Some(i64::from(spec.cpu_milli) * 1_000_000),
        cpuset_cpus: spec.cpuset.as_ref().map(|cores| {
            let cores: Vec<String> = cores.iter().map(u16::to_string).collect();
            cores.join(",")
        }),
        memory: Some(memory),
        memory_swap: Some(memory),
        pids_limit: Some(i64::from(spec.pids)),
        shm_size: Some(mebibytes(spec.shm_mb.min(spec.memory_mb))),
        ulimits: Some(vec![
            ResourcesUlimits {
                name: Some(String::from("nofile")),
                soft: Some(open_files(OPEN_FILES.0)),
                hard: Some(open_files(OPEN_FILES.1)),
            },
            ResourcesUlimits { name: Some(String::from("core")), soft: Some(0), hard: Some(0) },
        ]),
        mounts: Some(mounts),
        log_config: Some(HostConfigLogConfig {
            typ: Some(String::from("json-file")),
            config: Some(HashMap::from([
                (String::from("max-size"), format!("{}m", config.log.file_mb)),
                (String::from("max-file"), config.log.files.to_string()),
            ])),
        }),
        network_mode: Some(network),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        auto_remove: Some(false),
        cap_drop: Some(vec![String::from("ALL")]),
        cap_add: Some(capabilities),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        dns: Some(config.resolvers.iter().map(ToString::to_string).collect()),
        dns_search: Some(vec![String::from(".")]),
        ipc_mode: Some(String::from("private")),
        privileged: Some(false),
        publish_all_ports: Some(false),
        security_opt: Some(vec![String::from("no-new-privileges:true")]),
        storage_opt: storage_limit(around.driver_quota, spec.disk_mb.saturating_mul(1 << 20)),
        init: Some(false),
        ..HostConfig::default()
    };
    attach(&mut host, &spec.devices, around.gpu, config);
    if spec.priority == Priority::Idle {
        host.cpu_shares = Some(LEAST_CPU_SHARES);
        host.oom_score_adj = Some(FIRST_OUT_OF_MEMORY);
    }
    host
}

/// The network of a lease.
pub(crate) fn describe_network(
    node_id: &str,
    lease: &str,
    names: &Names,
    subnet: Cidr,
    egress: Egress,
) -> NetworkCreateRequest {
    let mut labels = labels(node_id, lease);
    if egress == Egress::Full {
        labels.insert(LABEL_FULL.to_owned(), String::from("true"));
    }
    NetworkCreateRequest {
        name: names.container.clone(),
        driver: Some(String::from("bridge")),
        internal: Some(false),
        attachable: Some(false),
        enable_ipv6: Some(false),
        ipam: Some(Ipam {
            driver: Some(String::from("default")),
            config: Some(vec![IpamConfig {
                subnet: Some(subnet.to_string()),
                gateway: Some(subnet.gateway().to_string()),
                ..IpamConfig::default()
            }]),
            options: None,
        }),
        options: Some(HashMap::from([
            (String::from("com.docker.network.bridge.name"), names.bridge.clone()),
            (String::from("com.docker.network.bridge.enable_icc"), String::from("false")),
            (String::from("com.docker.network.bridge.enable_ip_masquerade"), String::from("true")),
        ])),
        labels: Some(labels),
        ..NetworkCreateRequest::default()
    }
}
