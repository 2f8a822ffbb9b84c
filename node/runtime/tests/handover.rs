//! What a receiver of an image does with senders that are cut off, and with those that lie.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, clippy::wildcard_enum_match_arm)]

use std::path::Path;

use sha2::{Digest as _, Sha256};
use souk_runtime::FailureCode;
use souk_runtime::handover::{
    HandoverError, LayerHead, Message, Received, Receiving, Want, Wanted, read, receive, write,
};
use tokio::io::DuplexStream;

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// A layer with one file of so many bytes.
fn layer(bytes: usize) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), vec![7; bytes]).unwrap();
    let tar = std::process::Command::new("tar").args(["-C", folder.path().to_str().unwrap(), "-c", "."]).output();
    tar.unwrap().stdout
}

fn config(layers: &[String]) -> Vec<u8> {
    let rootfs = serde_json::json!({ "type": "layers", "diff_ids": layers });
    serde_json::to_vec(&serde_json::json!({ "os": "linux", "architecture": "amd64", "rootfs": rootfs })).unwrap()
}

fn what(folder: &Path, config: &[u8]) -> Receiving {
    let (folder, digest) = (folder.to_owned(), digest(config));
    Receiving { folder, digest, most: 1 << 20, room: None, architecture: Some("amd64".into()) }
}

/// Receives from a sender that plays this part; gives what became of it, and the last words to the sender.
async fn played<F: Future<Output = ()>>(
    what: &Receiving,
    there: usize,
    part: impl FnOnce(DuplexStream) -> F,
) -> Result<Received, HandoverError> {
    let (mut here, sender) = tokio::io::duplex(64 * 1024);
    let receiving = async {
        let received = receive(&mut here, what, async |_: &[String]| there, |_| {}).await;
        drop(here);
        received
    };
    tokio::join!(receiving, part(sender)).0
}

async fn offer(stream: &mut DuplexStream, layers: &[String]) -> Vec<Wanted> {
    write(stream, &Message::Offer(layers.to_vec())).await.unwrap();
    match read(stream).await.unwrap() {
        Message::Want(Want { layers }) => layers,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_cut_goes_on_and_only_what_is_missing_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let (below, above) = (layer(10), layer(100_000));
    let layers = vec![digest(&below), digest(&above), digest(&above)];
    let config = config(&layers);
    let what = what(folder.path(), &config);
    let head = |from: u64| LayerHead { index: 1, from, bytes: above.len() as u64 };
    // The lowest is there already; the other is wanted once, and cut after 50,000 bytes.
    let cut = played(&what, 1, |mut stream| {
        let (layers, above) = (&layers, &above);
        async move {
            assert_eq!(offer(&mut stream, layers).await, [Wanted { index: 1, from: 0 }]);
            write(&mut stream, &Message::Layer(head(0))).await.unwrap();
            write(&mut stream, &Message::Raw(above[..50_000].to_vec())).await.unwrap();
        }
    });
    assert!(cut.await.unwrap_err().is_cut());
    let whole = played(&what, 1, |mut stream| {
        let (layers, above, config) = (&layers, &above, &config);
        async move {
            assert_eq!(offer(&mut stream, layers).await, [Wanted { index: 1, from: 50_000 }]);
            write(&mut stream, &Message::Layer(head(50_000))).await.unwrap();
            write(&mut stream, &Message::Raw(above[50_000..].to_vec())).await.unwrap();
            assert_eq!(read(&mut stream).await.unwrap(), Message::Got(1));
            write(&mut stream, &Message::Config(config.clone())).await.unwrap();
        }
    });
    let received = whole.await.unwrap();
    assert_eq!((received.there, received.config.layers), (1, layers.clone()));
    // A third time nothing is wanted but the configuration.
    let again = played(&what, 1, |mut stream| {
        let (layers, config) = (&layers, &config);
        async move {
            assert_eq!(offer(&mut stream, layers).await, []);
            write(&mut stream, &Message::Config(config.clone())).await.unwrap();
        }
    });
    assert!(again.await.is_ok());
}

#[tokio::test]
async fn lies_are_refused_and_leave_nothing() {
    let good = layer(1_000);
    let layers = vec![digest(&good)];
    let config = config(&layers);
    let other = layer(1_001);
    let sparse = {
        let mut tar = good.clone();
        // The kind of the first entry, with its checksum mended.
        tar[148..156].fill(b' ');
        tar[156] = b'S';
        let sum: u32 = tar[..512].iter().map(|byte| u32::from(*byte)).sum();
        tar[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        tar
    };
    let whole = |bytes: &[u8]| {
        vec![
            Message::Layer(LayerHead { index: 0, from: 0, bytes: bytes.len() as u64 }),
            Message::Raw(bytes.to_vec()),
            Message::Config(config.clone()),
        ]
    };
    let head = |index: usize, from: u64, bytes: u64| vec![Message::Layer(LayerHead { index, from, bytes })];
    let more = [head(0, 0, 100), vec![Message::Raw(good[..200].to_vec())]].concat();
    let bomb = [head(0, 0, 1 << 19), vec![Message::Deflated(vec![0xff; 100])]].concat();
    let cases: Vec<(&str, Vec<Message>, FailureCode)> = vec![
        ("another layer than its digest says", whole(&other), FailureCode::ImageCorrupt),
        ("a sparse file", whole(&sparse), FailureCode::ImageCorrupt),
        ("no archive", whole(&[1; 2_000]), FailureCode::ImageCorrupt),
        ("too large", head(0, 0, (1 << 20) + 1), FailureCode::ImageTooLarge),
        ("not wanted", head(1, 0, 10), FailureCode::ImageCorrupt),
        ("not from where it was wanted", head(0, 5, 10), FailureCode::ImageCorrupt),
        ("more than was said", more, FailureCode::ImageCorrupt),
        ("badly packed", bomb, FailureCode::ImageCorrupt),
        ("another image", vec![Message::Config(b"{}".to_vec())], FailureCode::ImageCorrupt),
        ("out of turn", vec![Message::Done], FailureCode::ImageCorrupt),
    ];
    for (name, messages, code) in cases {
        let folder = tempfile::tempdir().unwrap();
        let what = what(folder.path(), &config);
        let layers = layers.clone();
        let refused = played(&what, 0, |mut stream| async move {
            let _ = offer(&mut stream, &layers).await;
            for message in &messages {
                // The receiver may have hung up by then, with good reason.
                if write(&mut stream, message).await.is_err() {
                    break;
                }
            }
            let mut told = None;
            while let Ok(message) = read(&mut stream).await {
                told = Some(message);
            }
            assert!(matches!(told, Some(Message::Refused(told, _)) if told == code), "{name}: {told:?}");
        });
        assert_eq!(refused.await.unwrap_err().code(), code, "{name}");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        let kept = left.iter().filter(|file| !file.to_string_lossy().ends_with(".part")).count();
        assert_eq!(kept, 0, "{name}: {left:?}");
    }
}
