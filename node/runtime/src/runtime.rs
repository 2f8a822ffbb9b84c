//! The face of the runtime: what a node asks of whatever runs its instances, and the Docker engine's answer to it.
//!
//! Commands are taken at once or refused at once; what became of them comes as reports, in order per lease. All of them may be
//! repeated: a second `prepare` of the same spec, a `start` of what runs, a `destroy` of what is gone each end in the same report
//! as the first.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};

use crate::config::{RuntimeConfig, RuntimeInfo};
use crate::dial::DialError;
use crate::engine::Engine;
use crate::error::{ImageError, RuntimeError};
use crate::exec::{ExecSession, ExecSpec};
use crate::image::{self, ResolvedImage};
use crate::incoming::{self, Duplex};
use crate::instance::Instance;
use crate::login::Login;
use crate::logs::{LogOptions, LogStream};
use crate::name::Names;
use crate::notice::MAX_NOTICE_BYTES;
use crate::report::{Exit, RuntimeReport};
use crate::shared::Shared;
use crate::snapshot::SnapshotSpec;
use crate::spec::{Devices, InstanceSpec, SpecError, check_lease_id};
use crate::supervisor;
use crate::usage::{Meter, TunnelMeter, UnixNanos, Usage};
use crate::volume;
use crate::worker::Command;

/// Reports not yet read. When full, workers wait (pull progress is dropped): facts are never lost to a slow reader.
pub const REPORTS: usize = 1024;

/// The answer to a question that takes time.
pub type RuntimeFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The state an instance was found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum InstanceState {
    /// There is none.
    Gone,
    /// Made, never started.
    Created,
    /// Its processes run.
    Running {
        /// Since when.
        since: UnixNanos,
    },
    /// Its processes ended.
    Exited(Exit),
}

/// An instance found at start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The lease.
    pub lease: String,
    /// The state it is in. Later changes come as reports.
    pub state: InstanceState,
    /// The digest of the spec it was made from.
    pub spec_digest: Option<String>,
}

/// What a node asks of a runtime, whatever it runs instances with.
pub trait Runtime: Send + Sync {
    /// What it can do now.
    fn info(&self) -> RuntimeInfo;

    /// Finds what an image name stands for, within the host's policy.
    fn resolve_image<'a>(&'a self, reference: &'a str) -> RuntimeFuture<'a, Result<ResolvedImage, ImageError>>;

    /// Fetches the image and makes the instance: `PullProgress`…, then `Prepared` or `Failed`.
    ///
    /// # Errors
    /// A spec out of bounds, a full queue, a runtime shut down.
    fn prepare(&self, spec: InstanceSpec) -> Result<(), RuntimeError>;

    /// Starts it: `Started` or `Failed`. While it runs already, nothing is reported anew.
    ///
    /// # Errors
    /// A full queue, a runtime shut down.
    fn start(&self, lease: &str) -> Result<(), RuntimeError>;

    /// Starts it with these devices and no others, as [`Runtime::start`] does. Where it has run on others it moves there: with its
    /// files, environment, network and volumes, but not its log. It must not run on others meanwhile.
    ///
    /// # Errors
    /// As [`Runtime::start`], and where a device isn't named as devices are.
    fn start_on(&self, lease: &str, devices: Devices) -> Result<(), RuntimeError>;

    /// Writes the text to [`crate::NOTICE_IN_INSTANCE`] inside, or removes that file. Nothing is reported; where the instance doesn't
    /// run, nothing is done. The next start removes it, too.
    ///
    /// # Errors
    /// As [`Runtime::start`], and a text of more than [`crate::MAX_NOTICE_BYTES`].
    fn notice(&self, lease: &str, text: Option<String>) -> Result<(), RuntimeError>;

    /// SIGTERM to every process of it, SIGKILL after the grace (counted in whole seconds, rounded up): `Exited` or `NotRunning`.
    ///
    /// # Errors
    /// As [`Runtime::start`].
    fn stop(&self, lease: &str, grace_ms: u64) -> Result<(), RuntimeError>;

    /// SIGKILL now: `Exited` or `NotRunning`. Overtakes a stop and ends a pull.
    ///
    /// # Errors
    /// As [`Runtime::start`].
    fn kill(&self, lease: &str) -> Result<(), RuntimeError>;

    /// Removes it with its disk, network and meter: `Destroyed`. Overtakes everything queued before it that takes long.
    ///
    /// # Errors
    /// As [`Runtime::start`].
    fn destroy(&self, lease: &str) -> Result<(), RuntimeError>;

    /// At start: finds the instances of these leases, and removes what this node left behind for any other.
    fn adopt<'a>(&'a self, leases: &'a [String]) -> RuntimeFuture<'a, Result<Vec<Adopted>, RuntimeError>>;

    /// The output of its command.
    fn logs<'a>(&'a self, lease: &'a str, options: LogOptions) -> RuntimeFuture<'a, Result<LogStream, RuntimeError>>;

    /// Runs one more command in it. The command ends with the session.
    fn exec<'a>(&'a self, lease: &'a str, spec: ExecSpec) -> RuntimeFuture<'a, Result<ExecSession, RuntimeError>>;

    /// Runs the instance's side of a copy of files, as this user or the instance's own: also in an instance that was stopped, which then
    /// runs for the sessions of this kind alone, with nothing of its own, and neither reports nor bills. Of a volume the paths are below
    /// [`crate::VOLUME_IN_COPY`].
    fn files<'a>(
        &'a self,
        lease: &'a str,
        user: Option<String>,
    ) -> RuntimeFuture<'a, Result<ExecSession, RuntimeError>>;

    /// Connects to a TCP port from inside a running instance: of itself by `localhost`, or of what it may reach.
    fn dial<'a>(&'a self, lease: &'a str, host: &'a str, port: u16) -> RuntimeFuture<'a, Result<TcpStream, DialError>>;

    /// As [`Runtime::dial`], for datagrams to one port.
    fn dial_udp<'a>(
        &'a self,
        lease: &'a str,
        host: &'a str,
        port: u16,
    ) -> RuntimeFuture<'a, Result<UdpSocket, DialError>>;

    /// Takes the image of an instance that is being prepared from its renter, who was authenticated by the caller: the receiving side of
    /// a [`crate::handover`]. What goes wrong there is told over the stream.
    fn receive_image<'a>(&'a self, lease: &'a str, stream: &'a mut dyn Duplex) -> RuntimeFuture<'a, ()>;

    /// Makes an image of its disk, running or not, and hands it over: the sending side of a [`crate::handover`], after the image's name.
    /// What goes wrong is told over the stream.
    fn snapshot<'a>(&'a self, lease: &'a str, spec: SnapshotSpec, stream: &'a mut dyn Duplex) -> RuntimeFuture<'a, ()>;

    /// Bytes over its network since it was made; never shrinks, restarts included.
    fn usage<'a>(&'a self, lease: &'a str) -> RuntimeFuture<'a, Result<Usage, RuntimeError>>;

    /// Where bytes are counted that pass through the node: part of its [`Runtime::usage`]. Of a lease without an instance, a meter
    /// nobody reads.
    fn tunnel(&self, lease: &str) -> Arc<TunnelMeter>;
}

/// Instances as containers of a Docker engine. A handle: clones are cheap and mean the same runtime.
#[derive(Debug, Clone)]
pub struct DockerRuntime {
    shared: Arc<Shared>,
}

impl DockerRuntime {
    /// Connects to the engine, loads the firewall, and starts watching.
    ///
    /// # Errors
    /// A configuration that contradicts itself, an engine that can't be reached, a data directory that can't be written. A
    /// firewall that can't be loaded is no error: [`RuntimeInfo::egress`] then offers no network.
    pub async fn connect(config: RuntimeConfig) -> Result<(Self, mpsc::Receiver<RuntimeReport>), RuntimeError> {
        let engine = Engine::connect(config).await?;
        let (sender, reports) = mpsc::channel(REPORTS);
        let shared = Shared::new(engine, sender);
        shared.tasks.spawn(supervisor::watch(Arc::clone(&shared)));
        Ok((Self { shared }, reports))
    }

    /// Stops watching. Instances run on; the next node adopts them. Where there are none, the firewall's table goes, too.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        let engine = &self.shared.engine;
        if engine.leases().await.is_ok_and(|leases| leases.is_empty())
            && let Err(error) = engine.firewall.unload().await
        {
            tracing::debug!(%error, "the firewall's table stays");
        }
    }

    /// Makes a volume of so many bytes, unless there is one of this name: `Ready` or `NotMade`.
    ///
    /// # Errors
    /// A name that can't be a lease's, a full queue, a runtime shut down.
    pub fn create_volume(&self, lease: &str, bytes: u64) -> Result<(), RuntimeError> {
        check_lease_id(lease)?;
        self.shared.volume(volume::Command::Create { name: lease.to_owned(), bytes })
    }

    /// Looks for a volume and makes it attachable: `Ready`, `Missing` or `NotMounted`.
    ///
    /// # Errors
    /// As [`DockerRuntime::create_volume`].
    pub fn adopt_volume(&self, lease: &str) -> Result<(), RuntimeError> {
        check_lease_id(lease)?;
        self.shared.volume(volume::Command::Adopt(lease.to_owned()))
    }

    /// Removes a volume with all that is in it: `Destroyed`. What still has it open keeps its bytes until it ends.
    ///
    /// # Errors
    /// As [`DockerRuntime::create_volume`].
    pub fn destroy_volume(&self, lease: &str) -> Result<(), RuntimeError> {
        check_lease_id(lease)?;
        self.shared.volume(volume::Command::Destroy(lease.to_owned()))
    }

    /// Removes the volumes there are that are none of these.
    ///
    /// # Errors
    /// A full queue, a runtime shut down.
    pub fn keep_volumes(&self, leases: &[String]) -> Result<(), RuntimeError> {
        let orphans = self.shared.engine.volumes.list().into_iter().filter(|name| !leases.contains(name));
        orphans.map(volume::Command::Remove).try_for_each(|command| self.shared.volume(command))
    }

    /// As [`Runtime::resolve_image`], with a renter's login.
    ///
    /// # Errors
    /// As there; [`crate::FailureCode::LoginRefused`] where the registry doesn't take the login.
    pub async fn resolve_image_as(&self, reference: &str, login: &Login) -> Result<ResolvedImage, ImageError> {
        image::resolve(&self.shared.engine, reference, Some(login)).await
    }

    /// Gives the login for a lease's image. Kept in memory until the image is there, the lease is destroyed, or it is forgotten.
    pub fn give_login(&self, lease: &str, login: Login) {
        self.shared.engine.logins.give(lease, login);
    }

    /// Forgets a lease's login.
    pub fn forget_login(&self, lease: &str) {
        self.shared.engine.logins.forget(lease);
    }

    async fn adopt_all(&self, leases: &[String]) -> Result<Vec<Adopted>, RuntimeError> {
        let engine = &self.shared.engine;
        for orphan in engine.leases().await.map_err(RuntimeError::Engine)? {
            if leases.contains(&orphan)
                || self.shared.worker(&orphan).is_some()
                || self.shared.volume_runs.needs(&orphan)
            {
                continue;
            }
            tracing::info!(lease = %orphan, "removing what an ended lease left behind");
            let instance = Instance::new(Arc::clone(engine), &orphan);
            instance.remove().await.map_err(RuntimeError::Engine)?;
            let names = &instance.names;
            Meter::open(&engine.config.data_dir, &names.short, &names.bridge, Arc::default()).remove();
        }
        self.remove_lost_disks(leases).await?;
        incoming::discard_others(engine, leases).await;
        let mut adopted = Vec::with_capacity(leases.len());
        for lease in leases {
            let (answer, found) = oneshot::channel();
            self.shared.send(lease, Command::Adopt(answer))?;
            let found = found.await.map_err(|_| RuntimeError::Closed)?;
            adopted.push(found.map_err(RuntimeError::Engine)?);
        }
        if !self.shared.looked.swap(true, Ordering::Relaxed) {
            for running in adopted.iter().filter(|a| matches!(a.state, InstanceState::Running { .. })) {
                let name = self.instance(&running.lease)?.names.container;
                self.shared.tasks.spawn(crate::exec::hang_up_inherited(Arc::clone(&self.shared), name));
            }
        }
        Ok(adopted)
    }

    /// Deletes disks that no lease has: of a node that was cut off before it made the container.
    async fn remove_lost_disks(&self, leases: &[String]) -> Result<(), RuntimeError> {
        let engine = &self.shared.engine;
        // Listed first: what is made meanwhile has a worker by then.
        let disks = engine.disks.list();
        let known = engine.leases().await.map_err(RuntimeError::Engine)?;
        let short = |lease: &String| Names::new(&engine.config.node_id, lease).short;
        let kept: Vec<String> = known.iter().chain(leases).chain(self.shared.leases().iter()).map(short).collect();
        for name in disks.iter().filter(|name| !kept.contains(name)) {
            tracing::info!(%name, "removing a disk that no lease has");
            if let Err(error) = engine.disks.destroy(name).await {
                tracing::warn!(%error, %name, "a lost disk stays");
            }
        }
        Ok(())
    }

    fn instance(&self, lease: &str) -> Result<Instance, RuntimeError> {
        check_lease_id(lease)?;
        Ok(Instance::new(Arc::clone(&self.shared.engine), lease))
    }
}

impl Runtime for DockerRuntime {
    fn info(&self) -> RuntimeInfo {
        self.shared.engine.info()
    }

    fn resolve_image<'a>(&'a self, reference: &'a str) -> RuntimeFuture<'a, Result<ResolvedImage, ImageError>> {
        Box::pin(image::resolve(&self.shared.engine, reference, None))
    }

    fn prepare(&self, spec: InstanceSpec) -> Result<(), RuntimeError> {
        spec.check()?;
        let lease = spec.lease.clone();
        self.shared.send(&lease, Command::Prepare(Box::new(spec)))
    }

    fn start(&self, lease: &str) -> Result<(), RuntimeError> {
        self.shared.send(lease, Command::Start(None))
    }

    fn start_on(&self, lease: &str, devices: Devices) -> Result<(), RuntimeError> {
        devices.check()?;
        self.shared.send(lease, Command::Start(Some(devices)))
    }

    fn notice(&self, lease: &str, text: Option<String>) -> Result<(), RuntimeError> {
        if text.as_ref().is_some_and(|text| text.len() > MAX_NOTICE_BYTES || text.contains('\0')) {
            return Err(SpecError::Text { field: "the notice" }.into());
        }
        self.shared.send(lease, Command::Notice(text))
    }

    fn stop(&self, lease: &str, grace_ms: u64) -> Result<(), RuntimeError> {
        self.shared.send(lease, Command::Stop { grace_ms })
    }

    fn kill(&self, lease: &str) -> Result<(), RuntimeError> {
        self.shared.send(lease, Command::Kill)
    }

    fn destroy(&self, lease: &str) -> Result<(), RuntimeError> {
        self.shared.send(lease, Command::Destroy)
    }

    fn adopt<'a>(&'a self, leases: &'a [String]) -> RuntimeFuture<'a, Result<Vec<Adopted>, RuntimeError>> {
        Box::pin(self.adopt_all(leases))
    }

    fn logs<'a>(&'a self, lease: &'a str, options: LogOptions) -> RuntimeFuture<'a, Result<LogStream, RuntimeError>> {
        Box::pin(async move { crate::logs::open(&self.instance(lease)?, options).await })
    }

    fn exec<'a>(&'a self, lease: &'a str, spec: ExecSpec) -> RuntimeFuture<'a, Result<ExecSession, RuntimeError>> {
        Box::pin(async move { crate::exec::open(&self.shared, &self.instance(lease)?, spec).await })
    }

    fn files<'a>(
        &'a self,
        lease: &'a str,
        user: Option<String>,
    ) -> RuntimeFuture<'a, Result<ExecSession, RuntimeError>> {
        Box::pin(async move {
            let instance = self.instance(lease)?;
            if self.shared.engine.volumes.exists(lease) {
                return crate::volume_files::open(&self.shared, lease, user).await;
            }
            crate::files_only::open(&self.shared, &instance, user).await
        })
    }

    fn dial<'a>(&'a self, lease: &'a str, host: &'a str, port: u16) -> RuntimeFuture<'a, Result<TcpStream, DialError>> {
        Box::pin(async move {
            let instance = self.instance(lease).map_err(|_| DialError::NotRunning)?;
            crate::dial::tcp(&self.shared, &instance, host, port).await
        })
    }

    fn dial_udp<'a>(
        &'a self,
        lease: &'a str,
        host: &'a str,
        port: u16,
    ) -> RuntimeFuture<'a, Result<UdpSocket, DialError>> {
        Box::pin(async move {
            let instance = self.instance(lease).map_err(|_| DialError::NotRunning)?;
            crate::dial::udp(&self.shared, &instance, host, port).await
        })
    }

    fn snapshot<'a>(&'a self, lease: &'a str, spec: SnapshotSpec, stream: &'a mut dyn Duplex) -> RuntimeFuture<'a, ()> {
        let instance = Instance::new(Arc::clone(&self.shared.engine), lease);
        Box::pin(async move { crate::snapshot::take(&instance, &spec, stream).await })
    }

    fn receive_image<'a>(&'a self, lease: &'a str, stream: &'a mut dyn Duplex) -> RuntimeFuture<'a, ()> {
        Box::pin(incoming::take(&self.shared.engine, lease, stream))
    }

    fn usage<'a>(&'a self, lease: &'a str) -> RuntimeFuture<'a, Result<Usage, RuntimeError>> {
        Box::pin(async move {
            let (answer, usage) = oneshot::channel();
            self.shared.send(lease, Command::Usage(answer))?;
            usage.await.map_err(|_| RuntimeError::Closed)
        })
    }

    fn tunnel(&self, lease: &str) -> Arc<TunnelMeter> {
        self.shared.worker(lease).map_or_else(Arc::default, |worker| Arc::clone(&worker.wake.tunnel))
    }
}
