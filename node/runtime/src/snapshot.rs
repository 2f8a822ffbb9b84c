//! An instance's disk as an image: what its guest has written as one more layer over the image it was made from.
//!
//! The image's configuration is that of the lease's own image with the new layers, written here: what the engine would write holds the
//! instance's environment. The engine's own image only carries the layers, bears no name and no lease's labels, and goes as soon as
//! they are handed on.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{ContainerConfig, ImageInspect};
use bollard::query_parameters::{CommitContainerOptionsBuilder, RemoveImageOptions};
use serde_json::{Map, Value, json};

use crate::cache::{Readers, sent_key};
use crate::error::{classify, is_missing};
use crate::handover::{HandoverError, ImageConfig, Message, Received, Sending, load, send, write};
use crate::image::stored;
use crate::incoming::Duplex;
use crate::instance::{Instance, ObservedState};
use crate::name::{LABEL_IMAGE, LABEL_LEASE, LABEL_NODE};
use crate::report::FailureCode;

/// How long the engine may take to make an image of what a guest has written.
const COMMIT_WITHIN: Duration = Duration::from_secs(3600);

/// What is wanted of a snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotSpec {
    /// The renter, as [`crate::ImageSource::Sent`] names it.
    pub owner: String,
    /// Keep it here for the renter, as an image that it has sent; else hand it over.
    pub keep: bool,
}

/// Makes a snapshot and hands it over, or keeps it. The first message names it; what goes wrong is told over the stream.
pub(crate) async fn take(instance: &Instance, spec: &SnapshotSpec, mut stream: &mut dyn Duplex) {
    let made = make(instance).await;
    let result = match &made {
        Ok((image, config)) => hand_over(instance, spec, (image, config), &mut stream).await,
        Err(code) => Err(HandoverError::Failed(*code)),
    };
    if let Ok((image, _)) = &made {
        // Without force: where it was kept, its layers are another image's, too.
        let removed = instance.engine.docker.remove_image(image, None::<RemoveImageOptions>, None).await;
        if let Err(error) = removed
            && !is_missing(&error)
        {
            tracing::warn!(%error, lease = %instance.lease, "the engine's image of a snapshot stays");
        }
    }
    if let Err(error) = result
        && !matches!(error, HandoverError::Stream(_) | HandoverError::Refused { .. })
    {
        tracing::info!(%error, lease = %instance.lease, "a snapshot was not handed over");
        let code = error.code();
        write(&mut stream, &Message::Refused(code, code.sentence().to_owned())).await.ok();
    }
}

async fn make(instance: &Instance) -> Result<(String, ImageConfig), FailureCode> {
    let docker = &instance.engine.docker;
    let base = base(instance).await?;
    let found = instance.observe(false).await?.ok_or(FailureCode::InstanceGone)?;
    // A running guest stands still meanwhile, so that its files are of one moment.
    let pause = matches!(found.state, ObservedState::Running { .. });
    let options = CommitContainerOptionsBuilder::new().container(&instance.names.container).pause(pause).build();
    let labels = [LABEL_LEASE, LABEL_NODE].map(|label| (label.to_owned(), String::new()));
    let config = ContainerConfig { labels: Some(HashMap::from(labels)), ..ContainerConfig::default() };
    let slow = docker.clone().with_timeout(COMMIT_WITHIN);
    let image = slow.commit_container(options, config).await.map_err(|error| classify(&error))?.id;
    let layers = stored(docker.inspect_image(&image).await.map_err(|error| classify(&error))?).layers;
    let config = ImageConfig::parse(configuration(&base, &layers))?;
    Ok((image, config))
}

/// The image that the lease names, as the engine has it. What an instance that has moved rests on is another, with its environment.
async fn base(instance: &Instance) -> Result<ImageInspect, FailureCode> {
    let found = instance.inspect(&instance.names.container, false).await?.ok_or(FailureCode::InstanceGone)?;
    let named = found.config.and_then(|config| config.labels).and_then(|mut labels| labels.remove(LABEL_IMAGE));
    let id = named.or(found.image).unwrap_or_default();
    instance
        .engine
        .docker
        .inspect_image(&id)
        .await
        .map_err(|error| if is_missing(&error) { FailureCode::ImageNotFound } else { classify(&error) })
}

/// A configuration as other engines read it.
fn configuration(base: &ImageInspect, layers: &[String]) -> Vec<u8> {
    let mut config = Map::new();
    if let Some(of) = &base.config
        && let Ok(Value::Object(all)) = serde_json::to_value(of)
    {
        let kept = [
            "User",
            "ExposedPorts",
            "Env",
            "Entrypoint",
            "Cmd",
            "Volumes",
            "WorkingDir",
            "Labels",
            "StopSignal",
            "Shell",
        ];
        config.extend(all.into_iter().filter(|(key, value)| kept.contains(&key.as_str()) && !value.is_null()));
    }
    let sets = |config: &mut Map<String, Value>, key: &str| {
        // Lists in what the engine's interface tells, sets in what an image says.
        if let Some(Value::Array(names)) = config.get(key) {
            let set: Map<String, Value> =
                names.iter().filter_map(|name| Some((name.as_str()?.to_owned(), json!({})))).collect();
            config.insert(key.to_owned(), Value::Object(set));
        }
    };
    sets(&mut config, "ExposedPorts");
    sets(&mut config, "Volumes");
    let history: Vec<Value> = layers.iter().map(|_| json!({ "created_by": "souk snapshot" })).collect();
    let whole = json!({
        "architecture": base.architecture.clone().unwrap_or_default(),
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": layers },
        "history": history,
    });
    serde_json::to_vec(&whole).unwrap_or_default()
}

async fn hand_over(
    instance: &Instance,
    spec: &SnapshotSpec,
    (image, config): (&str, &ImageConfig),
    stream: &mut &mut dyn Duplex,
) -> Result<(), HandoverError> {
    let engine = &instance.engine;
    write(stream, &Message::Named(config.digest.clone())).await?;
    if spec.keep {
        let folder = crate::incoming::folder(engine, &instance.lease);
        let whole = Received { config: config.clone(), there: config.layers.len() };
        let id = load(&engine.docker, folder, &whole, None).await.map_err(HandoverError::Failed)?;
        let found = engine.docker.inspect_image(&id).await.map_err(|error| HandoverError::Failed(classify(&error)))?;
        let key = sent_key(&spec.owner, &config.digest);
        engine.cache.note(&key, &stored(found), Readers::Only(spec.owner.clone()));
        return write(stream, &Message::Done).await;
    }
    let found = engine.docker.inspect_image(image).await.map_err(|error| HandoverError::Failed(classify(&error)))?;
    let spool = engine.config.data_dir.join("sent");
    tokio::fs::create_dir_all(&spool).await.map_err(HandoverError::Files)?;
    let what = Sending {
        docker: &engine.docker,
        image,
        layers: config.layers.clone(),
        digest: config.digest.clone(),
        config: Some(config.bytes.clone()),
        bytes: stored(found).bytes,
        spool: &spool,
    };
    send(stream, what, |_| {}).await.map(|_| ())
}
