#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use proptest::prelude::*;
use serde_json::json;

use super::{
    Template, TemplateError, VERSION,
    store::{self, Store, StoreError},
};
use crate::api::types::RentRequest;

fn request(value: serde_json::Value) -> RentRequest {
    let mut whole = json!({ "ask": "", "image": "" });
    whole.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
    serde_json::from_value(whole).unwrap()
}

fn full() -> Template {
    let text = json!({
        "souk_template": VERSION,
        "description": "trains",
        "image": "pytorch/pytorch",
        "entrypoint": ["/usr/bin/env"],
        "command": ["python", "train.py"],
        "user": "worker",
        "workdir": "/workspace",
        "env": { "EPOCHS": "3", "TOKEN": null },
        "egress": "internet",
        "disk_mb": 50_000,
        "query": "gpu_ram>=24",
        "order": "dph",
        "rental": "bid",
        "term_ms": 3_600_000,
    });
    Template::read(text.to_string().as_bytes()).unwrap()
}

#[test]
fn the_id_is_of_the_content_and_not_of_its_spelling() {
    let template = full();
    let canonical = template.canonical();
    assert_eq!(Template::read(&canonical).unwrap(), template);
    assert_eq!(template.id().to_string(), blake3::hash(&canonical).to_hex().to_string());
    // Written once and for all: whoever has such a file computes this id.
    let small = Template { souk_template: 1, image: "debian:12".to_owned(), ..Template::default() };
    assert_eq!(small.canonical(), b"{\n  \"souk_template\": 1,\n  \"image\": \"debian:12\"\n}\n");
    let spelled = br#"{"image":"debian:12", "env":{},"souk_template":1,"jupyter":false,"command":null}"#;
    assert_eq!(Template::read(spelled).unwrap().id(), small.id());
    let other = Template { disk_mb: Some(1), ..small.clone() };
    assert_ne!(other.id(), small.id());
}

#[test]
fn what_the_renter_says_goes_before_what_the_template_says() {
    let mut bare = request(json!({}));
    assert_eq!(full().complete(&mut bare), ["TOKEN"]);
    assert_eq!((bare.image.as_str(), bare.disk_mb), ("pytorch/pytorch", Some(50_000)));
    assert_eq!(bare.command.as_deref().unwrap(), ["python", "train.py"]);
    assert_eq!(bare.env.0, [("EPOCHS".to_owned(), "3".to_owned())]);

    let mut own = request(json!({
        "image": "debian:12", "command": ["true"], "env": [["TOKEN", "x"], ["EPOCHS", "4"]], "disk_mb": 1, "user": "me",
    }));
    assert!(full().complete(&mut own).is_empty());
    assert_eq!((own.image.as_str(), own.disk_mb, own.user.as_deref()), ("debian:12", Some(1), Some("me")));
    assert_eq!(own.entrypoint.unwrap(), ["/usr/bin/env"]);
    assert_eq!(own.command.unwrap(), ["true"]);
    assert_eq!(own.env.0.len(), 2);

    // Another program gets none of the template's arguments, and Jupyter neither of both.
    let mut program = request(json!({ "entrypoint": ["/bin/sh"] }));
    let _ = full().complete(&mut program);
    assert_eq!((program.entrypoint.unwrap().as_slice(), program.command), (["/bin/sh".to_owned()].as_slice(), None));
    let mut page = request(json!({ "jupyter": true }));
    let _ = full().complete(&mut page);
    assert!(page.jupyter && page.command.is_none() && page.entrypoint.is_none());
    let lab = || Template { jupyter: true, command: None, entrypoint: None, ..full() };
    let mut command = request(json!({ "command": ["true"] }));
    let _ = lab().complete(&mut command);
    assert!(!command.jupyter);
    let mut neither = request(json!({}));
    let _ = lab().complete(&mut neither);
    assert!(neither.jupyter && neither.command.is_none());
}

#[test]
fn a_rental_and_its_template_say_the_same() {
    let mut rental = request(json!({}));
    let template = full();
    let _ = template.clone().complete(&mut rental);
    let back = Template::of(rental, template.env.clone()).unwrap();
    let aimed = Template {
        description: template.description.clone(),
        query: template.query.clone(),
        order: template.order.clone(),
        ..back
    };
    assert_eq!(aimed, template);
    for (name, value) in [("price_hour", "1"), ("max_price_hour", "1"), ("max_spend", "1"), ("label", "x")] {
        let money = request(json!({ "image": "debian:12", name: value }));
        assert!(matches!(Template::of(money, Default::default()), Err(TemplateError::Renters(_))), "{name}");
    }
}

#[test]
fn conditions_are_joined_and_never_torn() {
    let with = |query: &str| Template { query: Some(query.to_owned()), ..full() };
    assert_eq!(with("a=1 or b=2").query_with("c=3 or d=4"), "(a=1 or b=2) (c=3 or d=4)");
    assert_eq!(with("a=1").query_with(" "), "a=1");
    assert_eq!(with(" ").query_with("c=3"), "c=3");
    assert!(souk_protocol::query::Query::parse(&with("num_gpus=1 or num_gpus=2").query_with("dph<1")).is_ok());
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    let wrong = [
        json!([]),
        json!({ "image": "debian:12" }),
        json!({ "souk_template": 2, "image": "debian:12" }),
        json!({ "souk_template": "1", "image": "debian:12" }),
        json!({ "souk_template": 1 }),
        json!({ "souk_template": 1, "image": "" }),
        json!({ "souk_template": 1, "image": "a b" }),
        json!({ "souk_template": 1, "image": "debian:12\u{1b}" }),
        json!({ "souk_template": 1, "image": "debian:12", "surprise": 1 }),
        json!({ "souk_template": 1, "image": "debian:12", "price_hour": "1" }),
        json!({ "souk_template": 1, "image": "debian:12", "description": "a\nb" }),
        json!({ "souk_template": 1, "image": "debian:12", "description": "x".repeat(2000) }),
        json!({ "souk_template": 1, "image": "debian:12", "env": { "A=B": "1" } }),
        json!({ "souk_template": 1, "image": "debian:12", "env": { "A\u{1b}[2J": null } }),
        json!({ "souk_template": 1, "image": "debian:12", "env": { "A": "\u{0}" } }),
        json!({ "souk_template": 1, "image": "debian:12", "command": vec!["x"; 2000] }),
        json!({ "souk_template": 1, "image": "debian:12", "command": ["x".repeat(70_000)] }),
        json!({ "souk_template": 1, "image": "debian:12", "jupyter": true, "command": ["x"] }),
        json!({ "souk_template": 1, "image": "debian:12", "workdir": "relative" }),
        json!({ "souk_template": 1, "image": "debian:12", "query": "gpu_ram>=" }),
        json!({ "souk_template": 1, "image": "debian:12", "disk_mb": 0 }),
        json!({ "souk_template": 1, "image": "debian:12", "term_ms": 1 }),
    ];
    for value in wrong {
        let text = value.to_string();
        assert!(Template::read(text.as_bytes()).is_err(), "{text}");
    }
    let twice = br#"{"souk_template":1,"image":"debian:12","image":"debian:13"}"#;
    assert!(matches!(Template::read(twice), Err(TemplateError::Malformed(_))));
    let newer = br#"{"souk_template":7,"image":{"of":"another kind"}}"#;
    assert_eq!(Template::read(newer), Err(TemplateError::Version(7)));
    let long = vec![b' '; super::FILE_BYTES + 1];
    assert_eq!(Template::read(&long), Err(TemplateError::TooLong));
    assert!(Template::read("[".repeat(100_000).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd_and_what_is_read_is_read_again(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..400, to in any::<u8>()) {
        let _ = Template::read(&bytes);
        let mut text = full().canonical();
        let place = at % text.len();
        text[place] = to;
        if let Ok(template) = Template::read(&text) {
            let canonical = template.canonical();
            prop_assert_eq!(Template::read(&canonical).unwrap().canonical(), canonical);
        }
    }
}

#[test]
fn templates_are_kept_and_found() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::of(dir.path());
    assert!(store.list().unwrap().is_empty());
    let template = full();
    let path = store.keep("train", &template, false).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let id = template.id().to_string();
    for what in ["train", &id, &id[..6], path.to_str().unwrap()] {
        assert_eq!(store.find(what).unwrap(), template, "{what}");
    }
    for what in ["other", "0000", &id[..3], "../train", "./train.json", "/dev/zero", "/"] {
        assert!(store.find(what).is_err(), "{what}");
    }
    // The same again changes nothing; another needs a word.
    let other = Template { disk_mb: Some(1), ..template.clone() };
    store.keep("train", &template, false).unwrap();
    assert!(matches!(store.keep("train", &other, false), Err(StoreError::Taken(_))));
    store.keep("train", &other, true).unwrap();
    assert_eq!(store.find("train").unwrap(), other);
    for name in ["", ".hidden", "-x", "a/b", "..", "x.json", "a b", &"x".repeat(65)] {
        assert!(matches!(store.keep(name, &template, false), Err(StoreError::Name(_))), "{name}");
    }
    // What lies there besides spoils nothing.
    fs::write(dir.path().join("templates/broken.json"), "{").unwrap();
    fs::write(dir.path().join("templates/note.txt"), "x").unwrap();
    let names: Vec<_> = store.list().unwrap().into_iter().map(|kept| (kept.name, kept.template.is_ok())).collect();
    assert_eq!(names, [("broken".to_owned(), false), ("train".to_owned(), true)]);
    assert!(matches!(store.find("broken"), Err(StoreError::Template { .. })));
    store.remove("train").unwrap();
    assert!(matches!(store.remove("train"), Err(StoreError::Missing(_))));
    assert!(store::read(Path::new("/nonexistent/x.json")).is_err());
}
