//! The move of an instance to other devices of the machine, between two runs of it.
//!
//! The engine fixes a container's devices when it makes it, so the container is made anew: its writable layer becomes an image, a
//! successor is made from that with everything else as it was, and takes the name. Volumes and the network are the same ones.
//! Neither of the two ever runs during a move.
//!
//! A crash between any two steps leaves an instance that can be taken up, known by the names alone:
//!
//! | there is | then |
//! |---|---|
//! | the container, and a successor | the successor is dropped: nothing but its image was made for it |
//! | no container, but a successor | it was complete when the other gave up the name: it takes it |
//! | the container, and a predecessor | the predecessor is removed |
//!
//! Images of a move have no name, so that nobody can rent them, and carry the lease's labels. Each move adds a layer; where that
//! weighs too much, because what the guest has deleted since lies below, the file system is written out whole instead.

use std::path::PathBuf;
use std::time::Duration;

use bollard::models::{ContainerConfig, ContainerCreateBody, ContainerInspectResponse, HostConfig, Mount, MountType};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ListImagesOptionsBuilder,
    RemoveImageOptionsBuilder, RenameContainerOptions,
};
use futures::{StreamExt as _, TryStreamExt as _};

use crate::container::{VISIBLE_DEVICES, attach, helper_mount, networking, storage_limit, visible};
use crate::error::{classify, is_missing, status};
use crate::helper::HELPER_IN_INSTANCE;
use crate::instance::{Instance, ObservedState};
use crate::name::{LABEL_CARRIED, LABEL_DISK, LABEL_IMAGE_BYTES, LABEL_LEASE, LABEL_LOOP, LABEL_NODE};
use crate::report::FailureCode;
use crate::spec::Devices;
use crate::subnet::Cidr;

/// How long the engine may take to make an image of what a guest has written.
const IMAGE_WITHIN: Duration = Duration::from_secs(3600);
/// Layers from which on a move writes the whole file system out; the engine refuses more than some 125.
const MOST_LAYERS: usize = 100;
/// Rounds of removing images: those that others rest on go only after them.
const REMOVAL_ROUNDS: usize = 4;
/// Pieces of a file system on their way from the engine to the engine. When full, the reading waits.
const CHUNKS: usize = 8;

impl Instance {
    /// Completes or undoes a move that was cut short. Cheap where there was none.
    pub(crate) async fn settle(&self) -> Result<(), FailureCode> {
        self.succeed().await?;
        let Some(current) = self.inspect(&self.names.container, false).await? else {
            return Ok(());
        };
        for leftover in [self.names.successor(), self.names.predecessor()] {
            if let Some(found) = self.inspect(&leftover, false).await? {
                // The disk is the instance's, not this container's.
                self.detach_disk(&found).await?;
                // Without its volumes: the instance has them.
                self.remove_container(&leftover, false).await?;
            }
        }
        self.remove_images(current.image.as_deref()).await
    }

    /// Gives a successor its name, where nobody has it; true if that was so.
    pub(crate) async fn succeed(&self) -> Result<bool, FailureCode> {
        if self.inspect(&self.names.container, false).await?.is_some() {
            return Ok(false);
        }
        self.rename(&self.names.successor(), &self.names.container).await
    }

    /// Makes the successor with these devices. False where the container has just these, and nothing is to be done. May be dropped
    /// at any time: [`Instance::settle`] tidies up.
    pub(crate) async fn make_successor(&self, devices: &Devices) -> Result<bool, FailureCode> {
        devices.check().map_err(|_| FailureCode::SpecInvalid)?;
        let Some(current) = self.inspect(&self.names.container, true).await? else {
            return if self.succeed().await? {
                Err(FailureCode::EngineTimeout)
            } else {
                Err(FailureCode::InstanceGone)
            };
        };
        if granted(&current).same(devices) {
            return Ok(false);
        }
        let observed = self.read(current.clone()).ok_or(FailureCode::InstanceGone)?;
        self.settle().await?;
        self.attach_disk(&current).await?;
        let (image, carried) = match observed.state {
            ObservedState::Running { .. } => {
                tracing::error!(lease = %self.lease, "it runs on other devices; it must be stopped before it can move");
                return Err(FailureCode::EngineRefused);
            }
            // A disk of its own goes along as it is.
            ObservedState::Exited { .. } if observed.own_disk => (observed.image.clone(), observed.carried),
            ObservedState::Created => (observed.image.clone(), observed.carried),
            ObservedState::Exited { .. } => self.image_of(&current, observed.written.unwrap_or(0)).await?,
        };
        let body = self.successor_of(current, devices, &image, carried).await?;
        let options = CreateContainerOptionsBuilder::new().name(&self.names.successor()).build();
        let docker = self.engine.docker.clone().with_timeout(IMAGE_WITHIN);
        docker.create_container(Some(options), body).await.map_err(|error| classify(&error))?;
        Ok(true)
    }

    /// The successor takes the container's place, which is removed. Quick; not to be dropped half way where that can be helped.
    pub(crate) async fn take_over(&self) -> Result<(), FailureCode> {
        self.rename(&self.names.container, &self.names.predecessor()).await?;
        if !self.rename(&self.names.successor(), &self.names.container).await? {
            return Err(FailureCode::InstanceGone);
        }
        self.settle().await
    }

    /// False where there is nothing to rename.
    async fn rename(&self, from: &str, to: &str) -> Result<bool, FailureCode> {
        let options = RenameContainerOptions { name: to.to_owned() };
        match self.engine.docker.rename_container(from, options).await {
            Ok(()) => Ok(true),
            Err(error) if is_missing(&error) => Ok(false),
            Err(error) => Err(classify(&error)),
        }
    }

    /// Makes an image of what the guest has written, and says how many bytes of it are the guest's.
    async fn image_of(&self, current: &ContainerInspectResponse, written: u64) -> Result<(String, u64), FailureCode> {
        let labels = current.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
        let number = |label: &str| labels.get(label).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let (carried, granted) = (number(LABEL_CARRIED), number(LABEL_DISK).saturating_mul(1 << 20));
        let docker = &self.engine.docker;
        let base = current.image.clone().unwrap_or_default();
        let layers = docker.inspect_image(&base).await.map_err(|error| classify(&error))?;
        let layers = layers.root_fs.and_then(|fs| fs.layers).map_or(0, |layers| layers.len());
        let sum = carried.saturating_add(written);
        if layers >= MOST_LAYERS || (carried > 0 && sum > granted / 8 * 7) {
            let image = self.written_out().await?;
            let bytes = docker.inspect_image(&image).await.map_err(|error| classify(&error))?.size.unwrap_or(0);
            let bytes = u64::try_from(bytes).unwrap_or(0);
            return Ok((image, bytes.saturating_sub(number(LABEL_IMAGE_BYTES))));
        }
        let options = CommitContainerOptionsBuilder::new().container(&self.names.container).pause(false).build();
        let docker = docker.clone().with_timeout(IMAGE_WITHIN);
        let made = docker.commit_container(options, ContainerConfig::default()).await;
        Ok((made.map_err(|error| classify(&error))?.id, sum))
    }

    /// An image of the whole file system, in one layer.
    async fn written_out(&self) -> Result<String, FailureCode> {
        let docker = self.engine.docker.clone().with_timeout(IMAGE_WITHIN);
        let label = |name: &str, value: &str| format!("LABEL {name}={value}");
        let changes = vec![label(LABEL_NODE, &self.engine.config.node_id), label(LABEL_LEASE, &self.lease)];
        let options = CreateImageOptionsBuilder::new().from_src("-").changes(changes).build();
        let source = docker.clone();
        let name = self.names.container.clone();
        let (sender, receiver) = tokio::sync::mpsc::channel(CHUNKS);
        // Beside the request it feeds: the engine's stream borrows its client, the request wants one of its own.
        let export = async move {
            let mut stream = std::pin::pin!(source.export_container(&name));
            while let Some(chunk) = stream.next().await {
                if sender.send(chunk.map_err(std::io::Error::other)).await.is_err() {
                    return;
                }
            }
        };
        let body = futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|chunk| (chunk, receiver))
        });
        let lines = docker.create_image(Some(options), Some(bollard::body_try_stream(body)), None);
        let (lines, ()) = tokio::join!(lines.try_collect::<Vec<_>>(), export);
        let lines = lines.map_err(|error| classify(&error))?;
        let id = lines.into_iter().rev().find_map(|line| line.status.filter(|text| text.starts_with("sha256:")));
        id.ok_or(FailureCode::EngineRefused)
    }

    /// The description of the successor: the container's own, but for image and devices.
    async fn successor_of(
        &self,
        current: ContainerInspectResponse,
        devices: &Devices,
        image: &str,
        carried: u64,
    ) -> Result<ContainerCreateBody, FailureCode> {
        let config = current.config.unwrap_or_default();
        let mut host = current.host_config.unwrap_or_default();
        let mut env = config.env.unwrap_or_default();
        env.retain(|variable| !variable.starts_with(VISIBLE_DEVICES));
        env.push(visible(devices));
        let mut labels = config.labels.unwrap_or_default();
        let granted = labels.get(LABEL_DISK).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        labels.insert(LABEL_CARRIED.to_owned(), carried.to_string());
        let observed_disk = labels.contains_key(LABEL_LOOP);
        attach(&mut host, devices, &self.engine.gpu_attachment(), &self.engine.config);
        let left = granted.saturating_mul(1 << 20).saturating_sub(carried);
        host.storage_opt = storage_limit(self.engine.driver_quota() && !observed_disk, left);
        let mut mounts = self.mounts(&host);
        let known: Vec<Option<String>> = mounts.iter().map(|mount| mount.target.clone()).collect();
        // Volumes that the engine named itself.
        for mount in current.mounts.unwrap_or_default() {
            if mount.typ.as_deref() == Some("volume") && !known.contains(&mount.destination) {
                let (target, source) = (mount.destination, mount.name);
                mounts.push(Mount { target, source, typ: Some(MountType::VOLUME), ..Mount::default() });
            }
        }
        host.mounts = Some(mounts);
        let networking_config = if host.network_mode.as_deref() == Some(&self.names.container) {
            Some(networking(&self.names, self.address().await?))
        } else {
            None
        };
        Ok(ContainerCreateBody {
            hostname: config.hostname,
            user: config.user,
            tty: config.tty,
            open_stdin: config.open_stdin,
            attach_stdin: config.attach_stdin,
            attach_stdout: config.attach_stdout,
            attach_stderr: config.attach_stderr,
            env: Some(env),
            cmd: config.cmd,
            entrypoint: config.entrypoint,
            healthcheck: config.healthcheck,
            image: Some(image.to_owned()),
            working_dir: config.working_dir,
            labels: Some(labels),
            stop_signal: config.stop_signal,
            stop_timeout: config.stop_timeout,
            host_config: Some(host),
            networking_config,
            ..ContainerCreateBody::default()
        })
    }

    /// The mounts as they were, with this node's helper.
    fn mounts(&self, host: &HostConfig) -> Vec<Mount> {
        let kept = host.mounts.iter().flatten().filter(|mount| mount.target.as_deref() != Some(HELPER_IN_INSTANCE));
        let mut mounts: Vec<Mount> = kept.cloned().collect();
        mounts.push(helper_mount(&self.engine.helper));
        mounts
    }

    /// The address in the lease's network.
    async fn address(&self) -> Result<Option<std::net::Ipv4Addr>, FailureCode> {
        let network = self.engine.docker.inspect_network(&self.names.container, None).await;
        let ranges = network.map_err(|error| classify(&error))?.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        Ok(ranges.into_iter().find_map(|range| range.subnet?.parse::<Cidr>().ok()).map(Cidr::guest))
    }

    /// Removes the images of this lease's moves, except this one and what it rests on.
    pub(crate) async fn remove_images(&self, except: Option<&str>) -> Result<(), FailureCode> {
        for _ in 0..REMOVAL_ROUNDS {
            let options = ListImagesOptionsBuilder::new().all(true).filters(&self.own()).build();
            let found = self.engine.docker.list_images(Some(options)).await.map_err(|error| classify(&error))?;
            let images: Vec<String> =
                found.into_iter().map(|image| image.id).filter(|id| Some(id.as_str()) != except).collect();
            let mut removed = 0;
            for image in &images {
                let options = RemoveImageOptionsBuilder::new().force(true).build();
                match self.engine.docker.remove_image(image, Some(options), None).await {
                    Ok(_) => removed += 1,
                    Err(error) if is_missing(&error) => removed += 1,
                    // 409: another image rests on it, and takes it along when it goes.
                    Err(error) if status(&error) == Some(409) => {}
                    Err(error) => return Err(classify(&error)),
                }
            }
            if removed == 0 {
                break;
            }
        }
        Ok(())
    }
}

/// The devices a container has, by what decides on them.
fn granted(container: &ContainerInspectResponse) -> Devices {
    let env = container.config.as_ref().and_then(|config| config.env.as_ref());
    let gpus = env
        .into_iter()
        .flatten()
        .find_map(|variable| variable.strip_prefix(VISIBLE_DEVICES))
        .filter(|gpus| *gpus != "void")
        .map(|gpus| gpus.split(',').map(str::to_owned).collect())
        .unwrap_or_default();
    let nodes = container.host_config.as_ref().and_then(|host| host.devices.as_ref());
    let nodes = nodes.into_iter().flatten().filter_map(|node| node.path_on_host.clone().map(PathBuf::from)).collect();
    Devices { gpus, nodes }
}
