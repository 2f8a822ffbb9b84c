//! Disks in files: they hold what was granted and no byte more, of bytes and of inodes, and go without a trace.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::io::Write as _;
use std::path::Path;

use souk_runtime::LoopDisks;
use support::{SOCKET, have, run};

/// Unmounts what a failed test leaves.
struct Folder(tempfile::TempDir);

impl Drop for Folder {
    fn drop(&mut self) {
        support::unmount_under(self.0.path());
    }
}

fn fill(path: &Path) -> (u64, std::io::Error) {
    let mut file = std::fs::File::create(path).unwrap();
    let piece = vec![7_u8; 1 << 16];
    let mut bytes = 0;
    loop {
        match file.write(&piece) {
            Ok(count) => bytes += count as u64,
            Err(error) => return (bytes, error),
        }
    }
}

#[tokio::test]
async fn a_disk_holds_what_was_granted_and_not_much_more() {
    if !have("docker") || !have("loop") {
        return;
    }
    let folder = Folder(tempfile::tempdir().unwrap());
    let disks = LoopDisks::new(folder.0.path(), Path::new(SOCKET), true);
    for mib in [8_u64, 64, 300] {
        let name = format!("d{mib}");
        disks.create(&name, mib << 20).await.unwrap();
        let at = disks.mount(&name).await.unwrap();
        assert_eq!(disks.mount(&name).await.unwrap(), at);
        let file = folder.0.path().join(format!("{name}.ext4"));
        let meta = std::fs::metadata(&file).unwrap();
        assert!(std::os::unix::fs::MetadataExt::blocks(&meta) * 512 >= meta.len(), "the space is set aside");
        let (bytes, error) = fill(&at.join("big"));
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        assert!(bytes >= mib << 20 && bytes < (mib + 16) << 20, "{mib} MiB were granted, {bytes} bytes fit");
        let fill = disks.fill(&name).await.unwrap();
        assert!(fill.used_bytes >= bytes && fill.free_bytes < 1 << 20, "{fill:?}");
    }
    // The number of files is bounded, too.
    std::fs::remove_file(disks.mount_point("d8").join("big")).unwrap();
    let full = (0..100_000).find_map(|number| {
        std::fs::File::create(disks.mount_point("d8").join(number.to_string())).err().map(|error| (number, error))
    });
    let (files, error) = full.unwrap();
    assert!(error.kind() == std::io::ErrorKind::StorageFull && files > 900, "{files} {error}");

    // What is on it outlives an unmount; it is bound elsewhere, and there one place follows another.
    disks.unmount("d64").await.unwrap();
    disks.unmount("d64").await.unwrap();
    assert!(!disks.mount_point("d64").join("big").exists());
    let at = disks.mount("d64").await.unwrap();
    assert!(at.join("big").exists());
    std::fs::create_dir(at.join("part")).unwrap();
    std::fs::write(at.join("part/file"), "x").unwrap();
    let (first, second) = (folder.0.path().join("first place"), folder.0.path().join("second"));
    let keep = folder.0.path().join("kept");
    for target in [&first, &second] {
        std::fs::create_dir(target).unwrap();
        disks.bind("d64", "part", target, &keep).await.unwrap();
        disks.bind("d64", "part", target, &keep).await.unwrap();
        assert!(target.join("file").exists());
    }
    assert!(!first.join("file").exists());
    disks.unbind("d64", &first).await.unwrap();
    disks.unbind("d64", &second).await.unwrap();
    assert!(!second.join("file").exists());
    disks.bind("d64", "part", &first, &keep).await.unwrap();

    assert!(disks.list().contains(&String::from("d300")));
    for mib in [8, 64, 300] {
        disks.destroy(&format!("d{mib}")).await.unwrap();
        disks.destroy(&format!("d{mib}")).await.unwrap();
    }
    let loops = run("losetup", &["-a"]);
    assert!(!loops.contains(folder.0.path().to_str().unwrap()), "{loops}");
    let left: Vec<_> = disks.list().into_iter().filter(|name| name.starts_with('d')).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn no_room_is_said_and_leaves_nothing() {
    if !have("docker") || !have("loop") {
        return;
    }
    let folder = Folder(tempfile::tempdir().unwrap());
    let disks = LoopDisks::new(folder.0.path(), Path::new(SOCKET), true);
    let error = disks.create("huge", 1 << 43).await.unwrap_err();
    assert!(matches!(error, souk_runtime::LoopDiskError::NoRoom { .. }), "{error}");
    assert!(disks.list().is_empty());
}
