//! The market task's side of the container runtime: orders to it, its reports, and what it is asked beside the task.
//!
//! Owns no state of its own. Without an engine orders are let go: when it answers, every lease is looked at again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use souk_protocol::{
    LeaseId,
    lease::{EndReason, LeaseState},
    machine::io::{Input, RuntimeOrder, RuntimeReport, Token},
    negotiation::{ImagePin, Reject, RejectCode, is_sent},
};
use souk_runtime::{
    DockerRuntime, InstanceEvent, Login, Runtime, RuntimeError, RuntimeReport as ContainerReport, inventory,
};

use super::task::{Internal, Market};
use crate::{
    config::Images,
    host::{idle, images, instances},
};

/// Between a failure that passes and the next look at what is there.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

impl Market {
    /// Reaches for the container engine, now or a little later.
    pub(super) fn connect_runtime(&self, after: Duration) {
        let Some(host) = &self.host else { return };
        let (config, internal) = (host.runtime_config(), self.internal.clone());
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let result = match DockerRuntime::connect(config).await {
                Ok((runtime, reports)) => {
                    // Guests' disks are where the engine keeps them.
                    let root = runtime.info().disk_root;
                    match tokio::task::spawn_blocking(move || inventory::take(&root)).await {
                        Ok(stock) => Internal::Runtime(Box::new(runtime), reports, Box::new(stock)),
                        Err(error) => Internal::NoRuntime(format!("this machine can't be looked at: {error}")),
                    }
                }
                Err(error) => Internal::NoRuntime(format!("{:#}", anyhow::Error::from(error))),
            };
            internal.send(result).await.ok();
        });
    }

    pub(super) fn container(&mut self, report: ContainerReport) {
        match report {
            ContainerReport::Instance { lease, event } => {
                if let Some(slot) = idle::slot_of(&lease) {
                    return self.idle_report(slot, &event);
                }
                let Ok(lease) = lease.parse() else { return };
                if !matches!(event, InstanceEvent::PullProgress(_) | InstanceEvent::DiskUse { .. })
                    && self.engine.host().leases().contains_key(&lease)
                {
                    *self.reported.entry(lease).or_default() += 1;
                }
                if matches!(&event, InstanceEvent::Failed(f) if instances::passes(f.code)) {
                    self.look_later();
                }
                if let InstanceEvent::DiskUse { used_bytes, limit_bytes } = event {
                    self.hooks.disk(lease, used_bytes, limit_bytes);
                }
                if matches!(event, InstanceEvent::Prepared { .. } | InstanceEvent::Started { .. }) {
                    self.open_inside(lease);
                } else if matches!(event, InstanceEvent::Destroyed) {
                    self.endpoints.close(&lease);
                }
                if let Some(report) = instances::report(event) {
                    self.input(Input::Runtime { lease, report });
                }
            }
            ContainerReport::Volume { lease, event } => {
                let Ok(lease) = lease.parse() else { return };
                match instances::volume(event) {
                    Some(report) => self.input(Input::Runtime { lease, report }),
                    None => self.look_later(),
                }
            }
            ContainerReport::EngineDown => {
                tracing::warn!("the container engine does not answer any more");
                self.runtime_problem = Some("the container engine does not answer".to_owned());
                self.hooks.mark_machine();
                self.input(Input::RuntimeUp(false));
            }
            ContainerReport::EngineUp => {
                tracing::info!("the container engine is back");
                self.runtime_problem = None;
                self.hooks.mark_machine();
                self.offer_machine();
                self.input(Input::RuntimeUp(true));
            }
        }
    }

    /// Gives an order to the runtime; `order` is what holds it back until the slots are clear.
    pub(super) fn give(&mut self, lease: LeaseId, order: RuntimeOrder) {
        let Some(runtime) = &self.runtime else { return };
        let id = lease.to_string();
        let taken = match order {
            RuntimeOrder::Prepare { draft, workload, devices } => {
                let me = self.engine.me().to_string();
                let key = self.endpoints.key(&lease);
                if let Some(login) = self.logins.given(draft.renter, draft.workload) {
                    runtime.give_login(&id, login);
                }
                runtime.prepare(instances::spec(&me, &draft, lease, &workload, &devices, &key))
            }
            RuntimeOrder::Start { devices } => runtime.start_on(&id, instances::devices(&devices)),
            RuntimeOrder::Notice(text) => {
                if let Err(error) = runtime.notice(&id, text) {
                    tracing::warn!(%lease, "the notice was not written: {:#}", anyhow::Error::from(error));
                }
                Ok(())
            }
            RuntimeOrder::Stop(grace) => runtime.stop(&id, grace.0),
            RuntimeOrder::Destroy => runtime.destroy(&id),
            RuntimeOrder::Adopt { .. } => {
                self.adopt = true;
                Ok(())
            }
            RuntimeOrder::CreateVolume { disk_mb } => runtime.create_volume(&id, disk_mb.saturating_mul(1_000_000)),
            RuntimeOrder::AdoptVolume => {
                self.adopt = true;
                runtime.adopt_volume(&id)
            }
            RuntimeOrder::DestroyVolume => runtime.destroy_volume(&id),
        };
        if matches!(taken, Err(RuntimeError::Busy)) {
            return self.look_later();
        }
        if let Err(error) = taken {
            tracing::error!(%lease, "{:#}", anyhow::Error::from(error));
            let note = "the host's runtime refused the instance".to_owned();
            let report = RuntimeReport::Failed { reason: EndReason::CreateFailed, note };
            self.input(Input::Runtime { lease, report });
        }
    }

    /// Has the public ports of all hosted leases that aren't over listened on, and no others.
    pub(super) fn want_public_ports(&self) {
        let leases = self.engine.host().leases().iter().filter(|(_, lease)| !lease.state().is_ended());
        let leases: BTreeMap<LeaseId, _> =
            leases.filter_map(|(id, lease)| Some((*id, lease.draft().public.as_ref()?.ports.clone()))).collect();
        self.public.send_if_modified(|wanted| {
            let same = wanted.leases == leases && wanted.runtime.is_some() == self.runtime.is_some();
            wanted.leases = leases;
            wanted.runtime = self.runtime.clone().map(|runtime| runtime as Arc<dyn Runtime>);
            !same
        });
    }

    /// Looks at all instances again a little later: what was ordered is ordered anew by what is found.
    fn look_later(&self) {
        let internal = self.internal.clone();
        tokio::spawn(async move {
            tokio::time::sleep(LOOK_AGAIN).await;
            internal.send(Internal::LookAgain).await.ok();
        });
    }

    /// Looks for the containers of all leases, and removes what no lease accounts for.
    pub(super) fn adopt_all(&self) {
        let Some(runtime) = self.runtime.clone() else { return };
        let internal = self.internal.clone();
        let hosted = self.engine.host().leases();
        let of = |volumes: bool| -> Vec<String> {
            let ids =
                hosted.iter().filter(|(_, l)| l.draft().is_volume() == volumes && !(volumes && l.state().is_ended()));
            ids.map(|(id, _)| id.to_string()).collect()
        };
        let leases = of(false);
        // By what there is now: a volume made from here on is no orphan.
        if let Err(error) = runtime.keep_volumes(&of(true)) {
            tracing::warn!("volumes that are over were not removed: {:#}", anyhow::Error::from(error));
            self.look_later();
        }
        let asked = self.reported.clone();
        tokio::spawn(async move {
            match runtime.adopt(&leases).await {
                Ok(found) => {
                    internal.send(Internal::Adopted(found, asked)).await.ok();
                }
                Err(error) => {
                    tracing::warn!("instances could not be looked for: {:#}", anyhow::Error::from(error));
                    tokio::time::sleep(LOOK_AGAIN).await;
                    internal.send(Internal::LookAgain).await.ok();
                }
            }
        });
    }

    pub(super) fn resolve(&self, token: Token, reference: String, digest: Option<String>, login: Option<Login>) {
        let (internal, runtime) = (self.internal.clone(), self.runtime.clone());
        let rules = self.host.as_ref().map(|host| host.config().host.images.clone()).unwrap_or_default();
        tokio::spawn(async move {
            let result = resolve_image(runtime.as_deref(), &rules, (&reference, digest), login.as_ref()).await;
            internal.send(Internal::Image { token, result }).await.ok();
        });
    }

    pub(super) fn ask_traffic(&self) {
        let Some(runtime) = &self.runtime else { return };
        let running = self.engine.host().leases().iter().filter(|(_, l)| l.state() == LeaseState::Running);
        for (lease, _) in running {
            let (lease, runtime, internal) = (*lease, Arc::clone(runtime), self.internal.clone());
            tokio::spawn(async move {
                if let Ok(usage) = runtime.usage(&lease.to_string()).await {
                    internal.send(Internal::Traffic { lease, usage }).await.ok();
                }
            });
        }
    }
}

pub(super) async fn resolve_image(
    runtime: Option<&DockerRuntime>,
    rules: &Images,
    (reference, digest): (&str, Option<String>),
    login: Option<&Login>,
) -> Result<ImagePin, Reject> {
    let Some(runtime) = runtime else {
        return Err(Reject::passing(RejectCode::Unavailable, "the host's container engine does not answer right now"));
    };
    if is_sent(reference) {
        images::check_sent(rules)?;
        let digest = digest.filter(|digest| souk_runtime::reference::is_digest(digest));
        let missing = || Reject::lasting(RejectCode::Image, "an image that is sent is named by its digest");
        return Ok(ImagePin { reference: reference.to_owned(), digest: digest.ok_or_else(missing)? });
    }
    let wanted = match digest {
        Some(digest) if !reference.contains('@') => format!("{reference}@{digest}"),
        Some(_) | None => reference.to_owned(),
    };
    images::check(rules, &wanted)?;
    let found = match login {
        Some(login) => runtime.resolve_image_as(&wanted, login).await,
        None => runtime.resolve_image(&wanted).await,
    };
    match found {
        Ok(image) => Ok(ImagePin { reference: reference.to_owned(), digest: image.pin.digest }),
        Err(error) => Err(Reject::lasting(RejectCode::Image, error.to_string())),
    }
}
