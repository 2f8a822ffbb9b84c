//! Whether a disk in a file holds on this engine, tried when the node starts and when the engine comes back.
//!
//! A container is made that never runs, gets a small disk, and the engine itself is asked to write more into it than fits. That
//! shows all of it at once: loop devices, the right to mount, a layout known to the node, and mounts that reach the engine.

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures::TryStreamExt as _;

use crate::container::labels;
use crate::engine::Engine;
use crate::loopfs::LEAST_DISK_BYTES;
use crate::name::{LABEL_LEASE, LABEL_NODE, Names};

/// The name in place of a lease's. What a crash leaves goes as an ended lease's leftovers do.
const LEASE: &str = "disk-self-test";
/// Block size of a tar archive.
const BLOCK: usize = 512;
const FITS: usize = 1 << 20;
/// More than twice what is granted.
const TOO_MUCH: usize = (LEAST_DISK_BYTES as usize) * 5 / 2;

/// Tries it; the reason where it doesn't hold.
pub(crate) async fn try_disk(engine: &Engine) -> Result<(), String> {
    let names = Names::new(&engine.config.node_id, LEASE);
    clean_up(engine, &names, None).await;
    let image = empty_image(engine).await.map_err(|error| error.to_string())?;
    let result = write_too_much(engine, &names, &image).await;
    clean_up(engine, &names, Some(&image)).await;
    result
}

async fn empty_image(engine: &Engine) -> Result<String, bollard::errors::Error> {
    let label = |name: &str, value: &str| format!("LABEL {name}={value}");
    let changes = vec![label(LABEL_NODE, &engine.config.node_id), label(LABEL_LEASE, LEASE)];
    let options = CreateImageOptionsBuilder::new().from_src("-").changes(changes).build();
    let body = bollard::body_full(Bytes::from(vec![0_u8; 2 * BLOCK]));
    let lines: Vec<_> = engine.docker.create_image(Some(options), Some(body), None).try_collect().await?;
    let id = lines.into_iter().rev().find_map(|line| line.status.filter(|text| text.starts_with("sha256:")));
    id.ok_or_else(|| std::io::Error::other("the engine made no image").into())
}

async fn write_too_much(engine: &Engine, names: &Names, image: &str) -> Result<(), String> {
    let docker = &engine.docker;
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        entrypoint: Some(vec![String::from("/none")]),
        labels: Some(labels(&engine.config.node_id, LEASE)),
        network_disabled: Some(true),
        host_config: Some(HostConfig { network_mode: Some(String::from("none")), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let options = CreateContainerOptionsBuilder::new().name(&names.container).build();
    docker.create_container(Some(options), body).await.map_err(|error| error.to_string())?;
    engine.disks.create(&names.short, LEAST_DISK_BYTES).await.map_err(|error| error.to_string())?;
    let found = docker.inspect_container(&names.container, None::<InspectContainerOptions>).await;
    let found = found.map_err(|error| error.to_string())?;
    crate::disk::attach(engine, &names.short, &found).await.map_err(|error| error.to_string())?;
    let put = async |bytes| {
        let options = UploadToContainerOptionsBuilder::new().path("/").build();
        let archive = bollard::body_full(Bytes::from(archive(bytes)));
        docker.upload_to_container(&names.container, Some(options), archive).await
    };
    put(FITS).await.map_err(|error| format!("the engine can't write to a disk that has room: {error}"))?;
    match put(TOO_MUCH).await {
        Ok(()) => Err(String::from("the engine wrote past the end of a disk: it does not see this node's mounts")),
        Err(error) if error.to_string().contains("no space left") => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

async fn clean_up(engine: &Engine, names: &Names, image: Option<&str>) {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    // Absent most of the time; whatever else is wrong shows in what follows.
    let _ = engine.docker.remove_container(&names.container, Some(options)).await;
    if let Err(error) = engine.disks.destroy(&names.short).await {
        tracing::warn!(%error, "the disk of the self-test is left");
    }
    if let Some(image) = image {
        let options = RemoveImageOptionsBuilder::new().force(true).build();
        let _ = engine.docker.remove_image(image, Some(options), None).await;
    }
}

/// A tar archive with one file of so many zeros.
fn archive(bytes: usize) -> Vec<u8> {
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &[u8]| {
        for (to, from) in header.iter_mut().skip(at).zip(text) {
            *to = *from;
        }
    };
    put(0, b"souk-self-test");
    put(100, b"0000600\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{bytes:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    let mut header_with_sum = header;
    for (to, from) in header_with_sum.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
        *to = from;
    }
    let mut archive = header_with_sum.to_vec();
    archive.resize(BLOCK + bytes.next_multiple_of(BLOCK) + 2 * BLOCK, 0);
    archive
}
