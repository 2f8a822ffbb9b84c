//! Copies under real trouble: full disks, a tree that is swapped for links meanwhile, endless trees, huge holes, odd names.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    ffi::OsStr,
    fs,
    io::Cursor,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, MetadataExt as _, symlink},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use souk_transfer::{
    Error, Limits, Progress, Summary, Target, sink, source,
    wire::{Message, Meta, Open},
};

const META: Meta = Meta { mode: 0o755, seconds: 1, nanoseconds: 0 };

fn target(path: &Path) -> Target {
    Target::from(&Open { path: path.as_os_str().as_bytes().to_vec(), rename: true, ..Open::default() })
}

/// A copy within this machine: what the source and what the sink made of it.
fn copy(from: &Path, target: Target) -> (Result<Summary, Error>, Result<(), Error>) {
    let (near, far) = UnixStream::pair().unwrap();
    let sink = std::thread::spawn(move || sink::run(far.try_clone().unwrap(), far, target, &Progress::default()));
    let sent = source::run(near.try_clone().unwrap(), near, from.as_os_str().as_bytes(), &[], &Arc::default());
    (sent, sink.join().unwrap())
}

/// A small file system of its own, gone with the test.
struct Small(PathBuf);

impl Small {
    fn mounted(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let options = format!("size={size}");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "souk-test"]).arg(at).output();
        if done.is_ok_and(|out| out.status.success()) {
            return Some(Self(at.to_owned()));
        }
        #[allow(clippy::print_stderr)]
        {
            eprintln!("skipped: no file system can be mounted here");
        }
        let required = std::env::var("SOUK_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split(',').any(|part| part == "mount"), "a part that must be there is not: mount");
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk_is_said_on_both_sides_and_what_has_arrived_counts() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("a-first"), "whole").unwrap();
    fs::write(from.join("big"), vec![7; 20 << 20]).unwrap();
    let Some(small) = Small::mounted(&folder.path().join("small"), "8m") else { return };
    let (sent, taken) = copy(&from, target(&small.0.join("to")));
    assert!(matches!(taken, Err(Error::Full(_))), "{taken:?}");
    let sent = sent.unwrap_err();
    assert!(matches!(sent, Error::Full(_)), "{sent:?}");
    assert!(sent.to_string().starts_with("the disk is full (writing big)"), "{sent}");
    assert!(!small.0.join("to/big").exists(), "it has its name too early");
    // With more room it goes on.
    let done = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&small.0).status().unwrap();
    assert!(done.success());
    let (sent, taken) = copy(&from, target(&small.0.join("to")));
    taken.unwrap();
    let moved = sent.unwrap().moved;
    assert!(moved < 18 << 20, "all of it was sent again: {moved}");
    assert_eq!(fs::read(small.0.join("to/big")).unwrap(), vec![7; 20 << 20]);
    assert_eq!(fs::read(small.0.join("to/a-first")).unwrap(), b"whole");
}

#[test]
fn a_reserve_of_the_disk_is_left_free() {
    let folder = tempfile::tempdir().unwrap();
    let from = folder.path().join("from");
    fs::write(&from, vec![7; 20 << 20]).unwrap();
    let Some(small) = Small::mounted(&folder.path().join("small"), "16m") else { return };
    let limits = Limits { reserve: true, ..Limits::default() };
    let (sent, _) = copy(&from, target(&small.0.join("to")).limited(limits));
    let sent = sent.unwrap_err();
    assert!(sent.to_string().contains("left free"), "{sent}");
    let stat = rustix::fs::statvfs(&small.0).unwrap();
    assert!(stat.f_bavail > 0, "nothing is left");
}

#[test]
fn what_has_no_end_is_ended_by_the_limits() {
    let folder = tempfile::tempdir().unwrap();
    let limits = Limits { entries: 1000, bytes: 1 << 20, reserve: false };
    let root = Message::Folder(META, Vec::new());
    let nested = [Message::Folder(META, b"d".to_vec()), Message::Leave];
    let links = |n: u32| Message::Link(META, format!("l{n}").into_bytes(), b"x".to_vec());
    let bombs: [Vec<Message>; 3] = [
        std::iter::once(root.clone()).chain(nested.into_iter().cycle().take(4000)).collect(),
        std::iter::once(root.clone()).chain((0..2000).map(links)).collect(),
        [root, Message::File(META, u64::MAX, b"f".to_vec())]
            .into_iter()
            .chain(std::iter::repeat_n(Message::Data(vec![1; 100_000]), 20))
            .collect(),
    ];
    for (number, bomb) in bombs.iter().enumerate() {
        let to = folder.path().join(number.to_string());
        let bytes: Vec<u8> = bomb.iter().flat_map(Message::to_bytes).collect();
        let done = sink::run(Cursor::new(bytes), Vec::new(), target(&to).limited(limits), &Progress::default());
        assert!(matches!(done, Err(Error::TooMuch(_))), "{number}: {done:?}");
        assert!(fs::read_dir(&to).unwrap().count() <= 1000);
    }
}

#[test]
fn a_terabyte_of_hole_costs_nothing_and_stays_one() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let file = fs::File::create(&from).unwrap();
    file.set_len(1 << 40).unwrap();
    for at in [0, 1 << 39, (1 << 40) - 3] {
        file.write_all_at(b"end", at).unwrap();
    }
    let (sent, taken) = copy(&from, target(&to));
    taken.unwrap();
    assert!(sent.unwrap().moved < 1 << 20);
    let copied = fs::metadata(&to).unwrap();
    assert_eq!(copied.len(), 1 << 40);
    assert!(copied.blocks() < 2048, "{} blocks", copied.blocks());
    let mut three = [0; 3];
    fs::File::open(&to).unwrap().read_exact_at(&mut three, 1 << 39).unwrap();
    assert_eq!(&three, b"end");
}

#[test]
fn names_of_any_bytes_pass() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    fs::create_dir(&from).unwrap();
    let mut names: Vec<Vec<u8>> = (1..=255_u8).filter(|b| ![b'/', b'.'].contains(b)).map(|b| vec![b]).collect();
    names.extend([
        b"caf\xe9".to_vec(),
        "日本語".into(),
        b"-rf".to_vec(),
        b"...".to_vec(),
        vec![b'n'; 255],
        b"a\nb".to_vec(),
    ]);
    for name in &names {
        fs::write(from.join(OsStr::from_bytes(name)), name).unwrap();
    }
    copy(&from, target(&to)).1.unwrap();
    for name in &names {
        assert_eq!(&fs::read(to.join(OsStr::from_bytes(name))).unwrap(), name);
    }
    assert_eq!(fs::read_dir(&to).unwrap().count(), names.len());
}

/// Swaps a folder for a link to somewhere else and back until told to stop; how often.
fn swapper(folder: PathBuf, aside: PathBuf, away: PathBuf, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let (real, link) = (aside.join("real"), aside.join("link"));
        symlink(&away, &link).unwrap();
        let mut swaps = 0;
        while !stop.load(Relaxed) {
            for (out, into) in [(&real, &link), (&link, &real)] {
                fs::rename(&folder, out).ok();
                fs::rename(into, &folder).ok();
                swaps += 1;
            }
        }
        swaps
    })
}

#[test]
fn a_folder_swapped_for_a_link_during_the_copy_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::create_dir(&secret).unwrap();
    for file in 0..20 {
        fs::write(secret.join(format!("f{file}")), "SECRET").unwrap();
    }
    let before = fs::metadata(&secret).unwrap().mtime_nsec();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    for tree in [&from, &to] {
        fs::create_dir_all(tree.join("sub")).unwrap();
    }
    for file in 0..20 {
        fs::write(from.join("sub").join(format!("f{file}")), format!("{file:>100}")).unwrap();
    }
    for (name, swapped) in [("aside from", from.join("sub")), ("aside to", to.join("sub"))] {
        let stop = Arc::new(AtomicBool::new(false));
        let aside = folder.path().join(name);
        fs::create_dir(&aside).unwrap();
        let swapping = swapper(swapped.clone(), aside.clone(), secret.clone(), Arc::clone(&stop));
        for _ in 0..60 {
            // Whether it succeeds is luck; where it reads and writes is not.
            let _ = copy(&from, target(&to));
        }
        stop.store(true, Relaxed);
        assert!(swapping.join().unwrap() > 0);
        let found = Command::new("grep").args(["-rls", "SECRET"]).arg(&to).output().unwrap();
        assert!(found.stdout.is_empty(), "read outside: {}", String::from_utf8_lossy(&found.stdout));
        for file in 0..20 {
            assert_eq!(fs::read(secret.join(format!("f{file}"))).unwrap(), b"SECRET", "written outside");
        }
        assert_eq!(fs::read_dir(&secret).unwrap().count(), 20, "put outside");
        assert_eq!(fs::metadata(&secret).unwrap().mtime_nsec(), before, "touched outside");
        // As it was, for the other side's turn.
        for tree in [&from, &to] {
            if tree.join("sub").is_symlink() {
                fs::remove_file(tree.join("sub")).unwrap();
            }
            fs::create_dir_all(tree.join("sub")).unwrap();
        }
    }
}

#[test]
fn many_files_pass_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    let files = 20_000;
    for file in 0..files {
        if file % 1000 == 0 {
            fs::create_dir_all(from.join((file / 1000).to_string())).unwrap();
        }
        fs::File::create(from.join((file / 1000).to_string()).join(file.to_string())).unwrap();
    }
    let used = || {
        let status = fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    };
    let before = used();
    let (sent, taken) = copy(&from, target(&to));
    taken.unwrap();
    let summary = sent.unwrap();
    assert_eq!((summary.entries, summary.problems), (files + files / 1000 + 1, 0));
    let grown = used().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
}
