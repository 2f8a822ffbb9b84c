//! How fast a source and a sink are by themselves: `speed FOLDER FILES MEBIBYTES` copies so many small files, and one file of so
//! many MiB, within FOLDER over a socket pair, and prints rates and the most memory used.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, missing_docs)]

use std::{
    fs,
    io::Write as _,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use souk_transfer::{Progress, Summary, Target, sink, source, wire::Open};

fn copy(from: &Path, to: &Path) -> (Summary, f64) {
    let (near, far) = UnixStream::pair().unwrap();
    let path = to.as_os_str().as_encoded_bytes().to_vec();
    let target = Target::from(&Open { path, rename: true, ..Open::default() });
    let begun = Instant::now();
    let sink = std::thread::spawn(move || sink::run(far.try_clone().unwrap(), far, target, &Progress::default()));
    let path = from.as_os_str().as_encoded_bytes();
    let summary = source::run(near.try_clone().unwrap(), near, path, &[], &Arc::default()).unwrap();
    sink.join().unwrap().unwrap();
    (summary, begun.elapsed().as_secs_f64())
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().unwrap());
    let mut number = || arguments.next().unwrap().parse::<u64>().unwrap();
    let (files, mebibytes) = (number(), number());
    let (many, big) = (folder.join("many"), folder.join("big"));
    for file in 0..files {
        let folder = many.join(format!("{:04}", file / 1000));
        if file % 1000 == 0 {
            fs::create_dir_all(&folder).unwrap();
        }
        fs::write(folder.join(format!("file-{file:08}")), format!("{file:>1024}")).unwrap();
    }
    let mut out = fs::File::create(&big).unwrap();
    let mut block = vec![0_u8; 1 << 20];
    for index in 0..mebibytes {
        blake3::Hasher::new().update(&index.to_le_bytes()).finalize_xof().fill(&mut block);
        out.write_all(&block).unwrap();
    }
    drop(out);
    for again in ["first", "again"] {
        let (summary, seconds) = copy(&many, &folder.join("many-copy"));
        println!("{files} files of 1 KiB, {again}: {:.0}/s, {} unchanged", files as f64 / seconds, summary.unchanged);
        let (summary, seconds) = copy(&big, &folder.join("big-copy"));
        println!("{mebibytes} MiB, {again}: {:.0} MiB/s, {} moved", mebibytes as f64 / seconds, summary.moved);
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    println!("{}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
}
