//! A source and a sink against a liar: nothing is read or written outside, and each lie ends the copy with a typed error.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    io::Cursor,
    os::unix::{fs::symlink, net::UnixStream},
    path::Path,
    sync::Arc,
};

use souk_transfer::{
    Error, Progress, Target, sink, source,
    wire::{self, Message, Meta, Open},
};
use tempfile::TempDir;

const META: Meta = Meta { mode: 0o755, seconds: 1, nanoseconds: 0 };

fn target(path: &Path, name: &[u8]) -> Target {
    let path = path.as_os_str().as_encoded_bytes().to_vec();
    Target::from(&Open { path, name: name.to_vec(), rename: true, ..Open::default() })
}

/// What a sink does with these messages: its result and its answers.
fn take(messages: &[Message], target: Target) -> (Result<(), Error>, Vec<Message>, Progress) {
    let bytes: Vec<u8> = messages.iter().flat_map(Message::to_bytes).collect();
    let (mut answers, progress) = (Vec::new(), Progress::default());
    let done = sink::run(Cursor::new(bytes), &mut answers, target, &progress);
    let mut from = answers.as_slice();
    let mut told = Vec::new();
    while let Ok(message) = wire::read(&mut from) {
        told.push(message);
    }
    (done, told, progress)
}

fn file(name: &[u8], content: &[u8]) -> [Message; 1] {
    [Message::File(META, content.len() as u64, name.to_vec())]
}

fn two() -> (TempDir, TempDir) {
    (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap())
}

#[test]
fn a_link_that_came_before_is_not_followed() {
    let (inside, outside) = two();
    let away = outside.path().as_os_str().as_encoded_bytes().to_vec();
    let messages = [
        &[Message::Folder(META, Vec::new()), Message::Link(META, b"a".to_vec(), away)][..],
        &[Message::Folder(META, b"a".to_vec())],
        &file(b"evil", b"x"),
        &[Message::Leave, Message::Leave, Message::Finished],
    ]
    .concat();
    let (done, told, progress) = take(&messages, target(inside.path(), b""));
    done.unwrap();
    assert!(told.contains(&Message::Skip), "{told:?}");
    assert_eq!(progress.summary().problems, 1);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_file_takes_the_place_of_a_link_and_not_of_what_it_names() {
    let (inside, outside) = two();
    let kept = outside.path().join("kept");
    fs::write(&kept, "kept").unwrap();
    symlink(&kept, inside.path().join("f")).unwrap();
    // The part's name is a trap, too.
    let part = souk_transfer::part_name(b"f");
    symlink(&kept, inside.path().join(String::from_utf8(part).unwrap())).unwrap();
    let messages = [
        &[Message::Folder(META, Vec::new())][..],
        &file(b"f", b"evil"),
        &[Message::Data(b"evil".to_vec()), Message::End { changed: false }, Message::Leave, Message::Finished],
    ]
    .concat();
    let (done, told, _) = take(&messages, target(inside.path(), b""));
    done.unwrap();
    assert!(told.contains(&Message::Want), "{told:?}");
    assert_eq!(fs::read_to_string(&kept).unwrap(), "kept");
    assert_eq!(fs::read_to_string(inside.path().join("f")).unwrap(), "evil");
    assert!(!inside.path().join("f").is_symlink());
}

#[test]
fn the_part_is_not_written_through_a_second_name() {
    let (inside, outside) = two();
    let kept = outside.path().join("kept");
    fs::write(&kept, vec![7; 3 << 20]).unwrap();
    let part = String::from_utf8(souk_transfer::part_name(b"f")).unwrap();
    if fs::hard_link(&kept, inside.path().join(part)).is_err() {
        return;
    }
    let content = vec![9; 100];
    let messages = [
        &[Message::Folder(META, Vec::new())][..],
        &[Message::File(META, 100, b"f".to_vec()), Message::Data(content), Message::End { changed: false }],
        &[Message::Leave, Message::Finished],
    ]
    .concat();
    take(&messages, target(inside.path(), b"")).0.unwrap();
    assert_eq!(fs::read(&kept).unwrap(), vec![7; 3 << 20]);
}

#[test]
fn a_folder_where_a_file_was_asked_for_stays_below_its_name() {
    let (inside, _) = two();
    let messages = [
        &[Message::Folder(META, Vec::new())][..],
        &file(b".profile", b""),
        &[Message::End { changed: false }, Message::Leave, Message::Finished],
    ]
    .concat();
    take(&messages, target(inside.path(), b"model.bin")).0.unwrap();
    assert!(!inside.path().join(".profile").exists());
    assert!(inside.path().join("model.bin/.profile").exists());
}

#[test]
fn lies_end_the_copy() {
    let root = Message::Folder(META, Vec::new());
    let asked = Message::File(META, 4, b"f".to_vec());
    let data = |n| Message::Data(vec![0; n]);
    let end = Message::End { changed: false };
    let lies: Vec<Vec<Message>> = vec![
        vec![Message::Folder(META, b"named".to_vec())],
        vec![Message::Link(META, b"l".to_vec(), b"x".to_vec())],
        vec![Message::Leave],
        vec![data(1)],
        vec![root.clone(), root.clone()],
        vec![root.clone(), asked.clone(), data(5)],
        vec![root.clone(), asked.clone(), Message::Hole(u64::MAX)],
        vec![root.clone(), asked.clone(), data(1), Message::Hole(u64::MAX)],
        vec![root.clone(), asked.clone(), data(3), end],
        vec![root.clone(), asked.clone(), Message::Same(1)],
        vec![root.clone(), asked.clone(), Message::Same(u64::MAX)],
        vec![root.clone(), asked.clone(), data(1), Message::Equal],
        vec![root.clone(), Message::Finished],
        vec![root.clone(), asked.clone(), Message::Leave, Message::Finished],
        vec![root.clone(), Message::Want],
        std::iter::once(root.clone()).chain(std::iter::repeat_n(asked, 2000)).collect(),
        std::iter::once(root).chain(std::iter::repeat_n(Message::Folder(META, b"d".to_vec()), 300)).collect(),
    ];
    for lie in lies {
        let (inside, _) = two();
        let (done, told, _) = take(&lie, target(inside.path(), b""));
        assert!(matches!(done, Err(Error::Violation(_))), "{done:?} for {:?}", &lie[..lie.len().min(4)]);
        assert!(matches!(told.last(), Some(Message::Failed { .. })), "{told:?}");
    }
}

#[test]
fn a_source_refuses_a_sink_that_lies() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("f"), vec![1; 100]).unwrap();
    let lies: [&[Message]; 4] = [
        &[Message::Want, Message::Want],
        &[Message::Have(5, 1, vec![[0; 32]])],
        &[Message::Have(5, 1 << 20, vec![[0; 32]; 9])],
        &[Message::Finished],
    ];
    for lie in lies {
        let bytes: Vec<u8> = lie.iter().flat_map(Message::to_bytes).collect();
        let path = folder.path().as_os_str().as_encoded_bytes();
        let done = source::run(Cursor::new(bytes), Vec::new(), path, &[], &Arc::default());
        assert!(matches!(done, Err(Error::Violation(_) | Error::Cut(_))), "{done:?}");
    }
}

/// A copy between two folders of this machine.
fn copy(from: &Path, to: &Path) -> souk_transfer::Summary {
    let (near, far) = UnixStream::pair().unwrap();
    let target = target(to, b"");
    let sink = std::thread::spawn(move || sink::run(far.try_clone().unwrap(), far, target, &Progress::default()));
    let path = from.as_os_str().as_encoded_bytes();
    let summary = source::run(near.try_clone().unwrap(), near, path, &[], &Arc::default()).unwrap();
    sink.join().unwrap().unwrap();
    summary
}

#[test]
fn what_was_begun_is_gone_on_with_whatever_lies_there() {
    let (from, to) = two();
    let mut content: Vec<u8> = (0..5 << 20).map(|n: u32| (n % 251) as u8).collect();
    content.extend_from_slice(b"the end");
    fs::write(from.path().join("f"), &content).unwrap();
    let part = to.path().join(String::from_utf8(souk_transfer::part_name(b"f")).unwrap());
    // A beginning, one with a wrong byte, one that is longer than the file, and one beside an old file.
    let mut wrong = content[..3 << 20].to_vec();
    wrong[1_500_000] ^= 1;
    let long = [&content[..], &[5; 3 << 20]].concat();
    for (begun, most) in [(&content[..3 << 20], 3 << 20), (&wrong[..], 4 << 20), (&long[..], 10), (&[][..], 6 << 20)] {
        fs::remove_file(to.path().join("f")).ok();
        fs::write(&part, begun).unwrap();
        let summary = copy(from.path(), to.path());
        assert!(summary.moved < most, "{summary:?}");
        assert!(fs::read(to.path().join("f")).unwrap() == content);
        assert!(!part.exists());
    }
    let mut old = content.clone();
    old[4 << 20] ^= 1;
    fs::write(to.path().join("f"), &old).unwrap();
    fs::write(&part, &content[..2 << 20]).unwrap();
    let summary = copy(from.path(), to.path());
    assert!(summary.moved <= 1 << 20, "{summary:?}");
    assert!(fs::read(to.path().join("f")).unwrap() == content);
    // Longer and shorter than what is there.
    for length in [3 << 20, content.len()] {
        fs::write(from.path().join("f"), &content[..length]).unwrap();
        copy(from.path(), to.path());
        assert!(fs::read(to.path().join("f")).unwrap() == content[..length]);
    }
}
