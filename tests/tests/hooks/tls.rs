//! Webhooks over TLS: the machine's certificates decide whom an event is told.

use std::fs;

use souk_tests::world::World;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::{receiver::Receiver, signed_by};

#[test]
fn only_a_receiver_with_a_good_certificate_hears_of_it() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()));
    let config = ServerConfig::builder_with_provider(std::sync::Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let receiver = Receiver::on("127.0.0.1:0".parse().unwrap(), &[], Some(config));
    let world = World::new();
    let store = world.path().join("ca.pem");
    fs::write(&store, made.cert.pem()).unwrap();
    let mut node = world.node("node").env("SSL_CERT_FILE", store.to_str().unwrap()).start();
    let port = receiver.address.port();
    let _ = node.json(&["hook", "add", "all", &format!("https://localhost:{port}/hook"), "--name", "good"]);
    let _ = node.json(&["hook", "add", "all", &format!("https://127.0.0.1:{port}/hook"), "--name", "other-name"]);

    assert_eq!(node.json(&["hook", "test", "good"])["code"], 200);
    assert!(signed_by(&node, &receiver.got()[0]));
    let told = node.souk(&["hook", "test", "other-name"], &[]);
    assert_eq!(told.code, 1);
    assert!(told.out.contains("TLS: "), "{}", told.out);

    // In a store without it, it is a stranger.
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(&store, other.cert.pem()).unwrap();
    node.stop();
    node.start();
    let told = node.souk(&["hook", "test", "good"], &[]);
    assert!(told.code == 1 && told.out.contains("TLS: "), "{}", told.out);
    assert_eq!(receiver.got().len(), 1, "a stranger has heard of it");
}
