//! Images from a real registry: pulls with progress, and refusals by policy.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, clippy::wildcard_enum_match_arm)]

mod support;

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use souk_runtime::{FailureCode, ImageError, ImagePin, InstanceEvent, Runtime, RuntimeConfig, RuntimeReport, Step};
use support::{DEADLINE, SOCKET, World, config, have, images, import, run};

struct Registry {
    server: Child,
    name: String,
    _folder: tempfile::TempDir,
}

impl Registry {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // A port that was free a moment ago; another program taking it makes the start below fail loudly.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let name = format!("127.0.0.1:{port}");
        let settings = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {name}\n",
            folder.path().join("data").display()
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, settings).unwrap();
        let server = Command::new("docker-registry")
            .args(["serve"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + DEADLINE;
        while TcpStream::connect(&name).is_err() {
            assert!(Instant::now() < end, "the registry doesn't start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { server, name, _folder: folder }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Makes an image of its own, pushes it, and lets the engine forget it.
async fn push(registry: &Registry) -> String {
    let mut random = vec![0; 6 << 20];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut random).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("random"), random).unwrap();
    std::fs::copy("/usr/bin/busybox", folder.path().join("busybox")).unwrap();
    let tar = Command::new("tar").args(["-C", folder.path().to_str().unwrap(), "-c", "."]).output().unwrap();
    let name = format!("{}/some/image:1", registry.name);
    import(SOCKET, &name, tar.stdout, &["CMD [\"/busybox\",\"echo\",\"pulled\"]"]).await;
    run("docker", &["push", "-q", &name]);
    run("docker", &["rmi", &name]);
    name
}

async fn world(registry: &Registry, change: impl Fn(&mut RuntimeConfig)) -> (World, tempfile::TempDir) {
    images(SOCKET).await;
    let data = tempfile::tempdir().unwrap();
    let mut config = config(SOCKET, data.path());
    config.registries.push(registry.name.clone());
    change(&mut config);
    (World::with(config).await, data)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn images_are_pulled_by_digest_with_progress() {
    if !have("docker") || !have("docker-registry") {
        return;
    }
    let registry = Registry::new();
    let name = push(&registry).await;
    let (mut world, _data) = world(&registry, |_| {}).await;
    let found = world.runtime.resolve_image(&name).await.unwrap();
    assert_eq!((found.pin.reference.as_str(), found.bytes), (name.as_str(), None));
    let mut spec = world.spec("pull", &[]).await;
    spec.command = None;
    spec.image = found.pin.clone();
    let (exit, out, _) = world.run(&spec).await;
    assert_eq!((exit.code, out.as_str()), (0, "pulled\n"));
    let progress: Vec<_> = world
        .seen
        .iter()
        .filter_map(|report| match report {
            RuntimeReport::Instance { event: InstanceEvent::PullProgress(progress), .. } => Some(*progress),
            _ => None,
        })
        .collect();
    let last = progress.last().unwrap();
    assert_eq!((last.layers, last.layers_done), (1, 1), "{progress:?}");
    assert!(last.bytes >= 6 << 20 && last.bytes_done == last.bytes, "{progress:?}");
    assert!(progress.windows(2).all(|pair| pair[0].bytes_done <= pair[1].bytes_done), "{progress:?}");

    // Now it is there: resolved with its size, made without a pull, even when the registry is gone.
    let again = world.runtime.resolve_image(&format!("{}@{}", name, found.pin.digest)).await.unwrap();
    assert!(again.bytes.unwrap() > 6 << 20);
    drop(registry);
    spec.lease.push('2');
    assert_eq!(world.run(&spec).await.0.code, 0);
    assert_eq!(
        world.runtime.resolve_image(&name).await,
        Err(ImageError::Unavailable(FailureCode::RegistryUnreachable))
    );
    run("docker", &["rmi", &format!("{}@{}", name.rsplit_once(':').unwrap().0, found.pin.digest)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_absent_forbidden_or_too_large_is_refused() {
    if !have("docker") || !have("docker-registry") {
        return;
    }
    let registry = Registry::new();
    let name = push(&registry).await;
    let (mut world, _data) = world(&registry, |config| config.max_image_mb = 5).await;
    let absent = format!("{}/some/other:1", registry.name);
    assert_eq!(world.runtime.resolve_image(&absent).await, Err(ImageError::Unavailable(FailureCode::ImageNotFound)));
    for elsewhere in ["127.0.0.2:5000/x", "localhost:1/x", "10.0.0.1/x", "ghcr.io/x/y"] {
        let refused = world.runtime.resolve_image(elsewhere).await;
        assert!(matches!(refused, Err(ImageError::RegistryRefused { .. })), "{elsewhere}: {refused:?}");
    }
    // A local image outside the owner's patterns isn't found by name, whatever the engine has.
    import(SOCKET, "souk-private/secret:1", support::root_fs(false), &[]).await;
    let secret = world.runtime.resolve_image("souk-private/secret:1").await;
    assert!(matches!(secret, Err(ImageError::Unavailable(_))), "{secret:?}");
    let id = run("docker", &["inspect", "-f", "{{.Id}}", "souk-private/secret:1"]);

    let large = world.runtime.resolve_image(&name).await.unwrap().pin;
    let pins = [
        (large, FailureCode::ImageTooLarge),
        (ImagePin { reference: absent, digest: format!("sha256:{}", "0".repeat(64)) }, FailureCode::ImageNotFound),
        (
            ImagePin { reference: "10.0.0.1/x".into(), digest: format!("sha256:{}", "0".repeat(64)) },
            FailureCode::ImageRefused,
        ),
        (ImagePin { reference: name.clone(), digest: id.trim().into() }, FailureCode::ImageNotFound),
        (ImagePin { reference: name, digest: "latest".into() }, FailureCode::SpecInvalid),
    ];
    for (pin, code) in pins {
        let mut spec = world.spec("refused", &["/busybox", "true"]).await;
        spec.image = pin.clone();
        world.runtime.prepare(spec.clone()).unwrap();
        let failure = world.failed(&spec.lease).await;
        assert_eq!((failure.step, failure.code), (Step::Pull, code), "{pin:?}");
    }
    run("docker", &["rmi", "souk-private/secret:1"]);
}
