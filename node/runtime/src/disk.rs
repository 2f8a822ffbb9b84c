//! An instance's own disk: the file system in a file that its writable layer, its image's volumes and its network files lie on.
//!
//! The engine makes the container; before the first start the folder of its writable layer is copied to the disk and the disk's copy
//! is mounted over it. What is below is emptied, so that a container whose disk isn't mounted can't be started by anybody. A move
//! to other devices keeps the disk: it is mounted over the successor's layer, which rests on the same image.
//!
//! On a disk: `layer/` (what the engine keeps of a container's layer), `volumes/N/`, `etc/` (hosts, hostname and resolv.conf, which
//! guests may write and which would otherwise lie on the machine's own disk). All of that but `layer/diff/` and `volumes/N/` is out
//! of a guest's reach, and neither of these is ever opened by the node.

use std::collections::HashMap;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bollard::models::{ContainerInspectResponse, Mount, MountType, MountVolumeOptionsDriverConfig};

use crate::engine::Engine;
use crate::instance::Instance;
use crate::loopfs::{LoopDiskError, LoopDisks};
use crate::name::LABEL_LOOP;
use crate::report::FailureCode;

/// What of a layer is the container's own.
const LAYER: &str = "layer";
const VOLUMES: &str = "volumes";
const NETWORK_FILES: &str = "etc";
/// Network files, as they are inside under `/etc`.
const FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// The volume of a place on a disk.
pub(crate) fn volume_on(disk: &Path, place: usize) -> MountVolumeOptionsDriverConfig {
    let device = disk.join(VOLUMES).join(place.to_string()).display().to_string();
    let option = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    MountVolumeOptionsDriverConfig {
        name: Some(String::from("local")),
        options: Some(HashMap::from([option("type", "none"), option("o", "bind"), option("device", &device)])),
    }
}

/// The network files of an instance with a disk of its own, or of one without: then nobody may write them.
pub(crate) fn network_files(folder: &Path, read_only: bool) -> Vec<Mount> {
    let mount = |name: &str| Mount {
        target: Some(format!("/etc/{name}")),
        source: Some(folder.join(name).display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(read_only),
        ..Mount::default()
    };
    FILES.into_iter().map(mount).collect()
}

/// Whether a container's disk is a file system in a file.
pub(crate) fn has_disk(found: &ContainerInspectResponse) -> bool {
    found
        .config
        .as_ref()
        .and_then(|config| config.labels.as_ref())
        .is_some_and(|labels| labels.contains_key(LABEL_LOOP))
}

/// Mounts a disk over the layer of a container that doesn't run. Quick where it is there already.
pub(crate) async fn attach(engine: &Engine, name: &str, found: &ContainerInspectResponse) -> Result<(), LoopDiskError> {
    let disks = &engine.disks;
    let Some(layer) = layer_of(found) else {
        return Err(LoopDiskError::Layout);
    };
    let at = disks.mount(name).await?;
    if disks.is_bound(name, &layer).await? {
        return Ok(());
    }
    let (from, to) = (disks.seen(&layer).await?, disks.seen(&at).await?.join(LAYER));
    if !to.exists() {
        let unfinished = to.with_extension("new");
        copy_layer(&from, &unfinished).await.map_err(|source| wrong(&from, source))?;
        fs::rename(&unfinished, &to).map_err(|source| wrong(&to, source))?;
    }
    take_layer(&from, &to).map_err(|source| wrong(&from, source))?;
    // The engine's own mounts of volumes on this disk stay.
    disks.bind(name, LAYER, &layer, &engine.info().data_root.join("volumes")).await
}

/// Takes a disk off a container's layer, so that the container can be removed without its files.
async fn detach(disks: &LoopDisks, name: &str, found: &ContainerInspectResponse) -> Result<(), LoopDiskError> {
    match layer_of(found) {
        Some(layer) => disks.unbind(name, &layer).await,
        None => Ok(()),
    }
}

/// The folder that the engine keeps of a container's writable layer (`overlay2`).
fn layer_of(found: &ContainerInspectResponse) -> Option<PathBuf> {
    let upper = PathBuf::from(found.graph_driver.as_ref()?.data.get("UpperDir")?);
    (upper.is_absolute() && upper.ends_with("diff")).then(|| upper.parent().map(Path::to_owned)).flatten()
}

fn wrong(path: &Path, source: std::io::Error) -> LoopDiskError {
    LoopDiskError::Files { path: path.display().to_string(), source }
}

/// Copies a layer that was never run: what is in it, the engine put there.
async fn copy_layer(from: &Path, to: &Path) -> std::io::Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir(to)?;
    let meta = fs::metadata(from)?;
    std::os::unix::fs::chown(to, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    for part in ["diff", "work"] {
        let status = tokio::process::Command::new("cp")
            .args(["-a", "--"])
            .args([&from.join(part), &to.join(part)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .status()
            .await?;
        if !status.success() {
            return Err(std::io::Error::other("the new container's layer can't be copied to its disk"));
        }
    }
    Ok(())
}

/// Copies what the engine notes beside a layer (`link`, `lower`), and empties the layer itself.
fn take_layer(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    for part in ["diff", "work"] {
        match fs::remove_dir_all(from.join(part)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The texts of [`FILES`].
fn network_texts(host_name: &str, address: Option<Ipv4Addr>, resolvers: &[Ipv4Addr]) -> [String; 3] {
    let own = address.map(|address| format!("{address}\t{host_name}\n")).unwrap_or_default();
    let resolvers: String = resolvers.iter().map(|address| format!("nameserver {address}\n")).collect();
    [
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{own}"),
        format!("{host_name}\n"),
        resolvers,
    ]
}

fn write_files(folder: &Path, texts: &[String; 3]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    for (name, text) in FILES.iter().zip(texts) {
        fs::write(folder.join(name), text)?;
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// What becomes of a disk's error for the renter; its words are for the log.
fn code(error: &LoopDiskError) -> FailureCode {
    tracing::error!(%error, "an instance's disk can't be used");
    if matches!(error, LoopDiskError::NoRoom { .. }) { FailureCode::HostDiskFull } else { FailureCode::DiskUnavailable }
}

impl Instance {
    /// Makes the instance's disk anew, with room for its image's volumes, and mounts it. A disk that isn't set aside takes space as it
    /// is written.
    pub(crate) async fn make_disk(
        &self,
        bytes: u64,
        set_aside: bool,
        volumes: usize,
        address: Option<Ipv4Addr>,
    ) -> Result<PathBuf, FailureCode> {
        let name = &self.names.short;
        let disks = if set_aside { self.engine.disks.clone() } else { self.engine.disks.sparse() };
        let made = async {
            disks.destroy(name).await?;
            disks.create(name, bytes).await?;
            let at = disks.mount(name).await?;
            let seen = disks.seen(&at).await?;
            for place in 0..volumes {
                let folder = seen.join(VOLUMES).join(place.to_string());
                fs::create_dir_all(&folder).map_err(|source| wrong(&folder, source))?;
                fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).map_err(|e| wrong(&folder, e))?;
            }
            let texts = network_texts(name, address, &self.engine.config.resolvers);
            write_files(&seen.join(NETWORK_FILES), &texts).map_err(|source| wrong(&seen, source))?;
            Ok::<_, LoopDiskError>(at)
        };
        made.await.map_err(|error| code(&error))
    }

    /// Network files for an instance without a disk of its own. The folder is the node's.
    pub(crate) fn make_network_files(&self, address: Option<Ipv4Addr>) -> Result<PathBuf, FailureCode> {
        let folder = self.network_folder();
        let texts = network_texts(&self.names.short, address, &self.engine.config.resolvers);
        write_files(&folder, &texts).map_err(|source| code(&wrong(&folder, source)))?;
        Ok(folder)
    }

    fn network_folder(&self) -> PathBuf {
        self.engine.config.data_dir.join("etc").join(&self.names.short)
    }

    /// Mounts the disk of a container that has one, where it isn't: before a start, and before anybody looks at its files.
    pub(crate) async fn attach_disk(&self, found: &ContainerInspectResponse) -> Result<(), FailureCode> {
        if !has_disk(found) {
            return Ok(());
        }
        attach(&self.engine, &self.names.short, found).await.map_err(|error| code(&error))
    }

    /// Takes the disk off a container that is to be removed alone.
    pub(crate) async fn detach_disk(&self, found: &ContainerInspectResponse) -> Result<(), FailureCode> {
        if !has_disk(found) {
            return Ok(());
        }
        detach(&self.engine.disks, &self.names.short, found).await.map_err(|error| code(&error))
    }

    /// Deletes the disk and the network files; fine where there are none.
    pub(crate) async fn destroy_disk(&self) -> Result<(), FailureCode> {
        self.engine.disks.destroy(&self.names.short).await.map_err(|error| code(&error))?;
        match fs::remove_dir_all(self.network_folder()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(code(&wrong(&self.network_folder(), error)))
            }
            _ => Ok(()),
        }
    }

    /// Bytes on the disk, where it has one of its own: what bounds them is the disk itself.
    pub(crate) async fn disk_bytes(&self) -> Option<u64> {
        self.engine.disks.fill(&self.names.short).await.ok().map(|fill| fill.used_bytes)
    }
}

/// Where an instance's network files are: on its disk.
pub(crate) fn network_folder_on(disk: &Path) -> PathBuf {
    disk.join(NETWORK_FILES)
}
