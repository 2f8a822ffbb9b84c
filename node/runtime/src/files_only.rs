//! Runs of a stopped instance for its files alone: the helper keeps the container alive, and nothing of the renter's starts.
//!
//! The order stands in a folder of the host, mounted read-only into the instance, where PID 1 looks before it starts anything. It is
//! written before the container starts and removed after it has ended, so a container that runs while the order stands is never
//! taken for a workload: a node that comes back after a crash ends it first.
//!
//! Owns the order and who still needs the run. It doesn't decide who may copy.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bollard::models::{ContainerInspectResponse, Mount, MountType};

use crate::{
    error::RuntimeError,
    exec::{self, ExecSession, ExecSpec},
    files_direct,
    helper::HELPER_IN_INSTANCE,
    instance::Instance,
    report::FailureCode,
    shared::Shared,
    worker::{Command, Wake},
};

/// Where the host's orders are inside an instance.
pub(crate) const ORDERS_IN_INSTANCE: &str = "/.souk/orders";
/// The order that only files are looked after. The helper knows it by this name.
const ORDER: &str = "files-only";
/// Tries to open a session while the instance starts and stops around it.
const TRIES: usize = 3;

/// Who needs a run for files. The last to go lets the worker look.
#[derive(Debug)]
pub(crate) struct FilesOnly {
    wake: Arc<Wake>,
}

/// How many need it, and whether there is such a run at all.
#[derive(Debug, Default)]
pub(crate) struct Users {
    users: AtomicUsize,
    /// From before the container starts until after it has ended.
    stands: std::sync::atomic::AtomicBool,
}

impl Users {
    pub(crate) fn stands(&self) -> bool {
        self.stands.load(Ordering::SeqCst)
    }

    pub(crate) fn set(&self, stands: bool) {
        self.stands.store(stands, Ordering::SeqCst);
    }

    pub(crate) fn nobody(&self) -> bool {
        self.users.load(Ordering::SeqCst) == 0
    }
}

impl FilesOnly {
    pub(crate) fn new(wake: &Arc<Wake>) -> Self {
        wake.files_only.users.fetch_add(1, Ordering::SeqCst);
        Self { wake: Arc::clone(wake) }
    }
}

impl Drop for FilesOnly {
    fn drop(&mut self) {
        self.wake.files_only.users.fetch_sub(1, Ordering::SeqCst);
        self.wake.look.notify_one();
    }
}

/// The folder of an instance's orders on the host.
fn folder(instance: &Instance) -> PathBuf {
    instance.engine.config.data_dir.join("orders").join(&instance.names.short)
}

/// The folder, mounted.
pub(crate) fn mount(folder: &Path) -> Mount {
    Mount {
        target: Some(ORDERS_IN_INSTANCE.to_owned()),
        source: Some(folder.display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(true),
        ..Mount::default()
    }
}

impl Instance {
    /// The folder of its orders, made where it isn't there.
    pub(crate) fn orders(&self) -> io::Result<PathBuf> {
        let folder = folder(self);
        fs::create_dir_all(&folder)?;
        // The helper reads it as whatever user the image has.
        for path in folder.ancestors().take(2) {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        Ok(folder)
    }

    /// Orders that the next start is for files alone.
    pub(crate) fn order_files_only(&self) -> io::Result<()> {
        fs::File::create(self.orders()?.join(ORDER))?.sync_all()
    }

    /// Whether the order stands.
    pub(crate) fn is_files_only(&self) -> bool {
        // What can't be looked at counts as ordered: ending a container too often does no harm, billing nothing for one does.
        folder(self).join(ORDER).try_exists().unwrap_or(true)
    }

    /// Takes the order back; fine where there is none.
    pub(crate) fn withdraw_files_only(&self) -> io::Result<()> {
        match fs::remove_file(folder(self).join(ORDER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes the folder with the instance.
    pub(crate) fn remove_orders(&self) {
        if let Err(error) = fs::remove_dir_all(folder(self))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, lease = %self.lease, "the folder of an instance's orders is left");
        }
    }
}

/// Whether a container has the mount: those of older nodes haven't, and would start their workload.
pub(crate) fn knows_orders(container: &ContainerInspectResponse) -> bool {
    let mounts = container.host_config.as_ref().and_then(|host| host.mounts.as_ref());
    mounts.into_iter().flatten().any(|mount| mount.target.as_deref() == Some(ORDERS_IN_INSTANCE))
}

/// The helper's side of a copy, in a running instance or a stopped one.
pub(crate) async fn open(
    shared: &Arc<Shared>,
    instance: &Instance,
    user: Option<String>,
) -> Result<ExecSession, RuntimeError> {
    let mut command = vec![HELPER_IN_INSTANCE.to_owned(), "files".to_owned()];
    let spec = ExecSpec { command: command.clone(), user, stdin: true, ..ExecSpec::default() };
    command.push(files_direct::ARGUMENT.to_owned());
    let direct = ExecSpec { command, ..spec.clone() };
    let mut last = RuntimeError::Engine(FailureCode::InstanceGone);
    for _ in 0..TRIES {
        match exec::open(shared, instance, direct.clone()).await {
            Err(RuntimeError::Engine(FailureCode::InstanceGone)) => {}
            Ok(session) => return files_direct::shorten(shared, instance, session).await,
            Err(error) => return Err(error),
        }
        let (answer, begun) = tokio::sync::oneshot::channel();
        shared.send(&instance.lease, Command::FilesOnly(answer))?;
        match begun.await.map_err(|_| RuntimeError::Closed)? {
            Ok(Some(needed)) => match exec::open_files_only(shared, instance, spec.clone(), needed).await {
                Err(error @ RuntimeError::Engine(FailureCode::InstanceGone)) => last = error,
                done => return done,
            },
            // It runs by itself by now.
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
    Err(last)
}
