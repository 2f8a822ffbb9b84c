//! Posting an event as <https://www.standardwebhooks.com> has it, signed with the node's Ed25519 key.
//!
//! A receiver is not trusted with more than the event: redirects are not followed, an answer is read to its first 4 KiB, and all
//! of it has ten seconds. TLS certificates are checked against the machine's own store.

use std::{io, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use souk_protocol::{Keypair, NodeId};
use tokio::{net::TcpStream, sync::OnceCell, time::Instant};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName},
};
use tokio_util::task::AbortOnDropHandle;
use url::{Host, Url};

use super::{Attempt, KEPT, Verdict};
use crate::{
    clock::now,
    hooks::{event::EventId, target::SecretUrl},
    market::command::ByteStream,
};

/// How long an attempt may take in all.
pub const WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a response's head.
const HEAD_BYTES: usize = 16 * 1024;
/// Headers of a response.
const HEADERS: usize = 64;
/// The longest time that a receiver's `Retry-After` is given.
const RETRY_AFTER: Duration = Duration::from_secs(3600);

/// The public key as receivers' libraries take it.
#[must_use]
pub fn public_key(node: &NodeId) -> String {
    format!("whpk_{}", STANDARD.encode(node.0))
}

/// Posts events.
#[derive(Debug)]
pub struct Poster {
    key: Keypair,
    tls: OnceCell<TlsConnectorOf>,
}

/// A connector, without a `Debug` of its own.
struct TlsConnectorOf(TlsConnector);

impl std::fmt::Debug for TlsConnectorOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector")
    }
}

impl Poster {
    /// One that signs with this key.
    #[must_use]
    pub const fn new(key: Keypair) -> Self {
        Self { key, tls: OnceCell::const_new() }
    }

    /// Posts an event's bytes.
    pub async fn post(&self, url: &SecretUrl, event: EventId, body: &str) -> Attempt {
        let deadline = Instant::now() + WITHIN;
        let answered = tokio::time::timeout_at(deadline, self.ask(url.reveal(), event, body)).await;
        match answered {
            Ok(Ok(response)) => judge(response, deadline).await,
            Ok(Err(why)) => Attempt::failed(why),
            Err(_) => Attempt::failed(format!("no answer within {} s", WITHIN.as_secs())),
        }
    }

    async fn ask(&self, url: &Url, event: EventId, body: &str) -> Result<Answer, String> {
        let stream = self.connect(url).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| told(&e))?;
        // Ends with the attempt, whatever the receiver does.
        let connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = self.request(url, event, body).map_err(|e| format!("the request can't be made: {e}"))?;
        let response = sender.send_request(request).await.map_err(|e| told(&e))?;
        Ok(Answer { response, _connection: connection })
    }

    fn request(&self, url: &Url, event: EventId, body: &str) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let seconds = now().0 / 1000;
        let signature = self.key.sign_webhook(&event.0, seconds, body.as_bytes());
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let mut request = Request::post(path)
            .header(header::HOST, host)
            .header(header::USER_AGENT, concat!("souk/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .header("webhook-id", event.to_string())
            .header("webhook-timestamp", seconds.to_string())
            .header("webhook-signature", format!("v1a,{}", STANDARD.encode(signature)));
        if !url.username().is_empty() || url.password().is_some() {
            let pair = format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default()));
            request = request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
        }
        request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
    }

    async fn connect(&self, url: &Url) -> Result<ByteStream, String> {
        let port = url.port_or_known_default().unwrap_or(443);
        let (name, stream) = match url.host() {
            Some(Host::Domain(name)) => {
                (ServerName::try_from(name.to_owned()).ok(), TcpStream::connect((name, port)).await)
            }
            Some(Host::Ipv4(ip)) => {
                (Some(ServerName::from(std::net::IpAddr::V4(ip))), TcpStream::connect((ip, port)).await)
            }
            Some(Host::Ipv6(ip)) => {
                (Some(ServerName::from(std::net::IpAddr::V6(ip))), TcpStream::connect((ip, port)).await)
            }
            None => return Err("the URL names no host".to_owned()),
        };
        let stream = stream.map_err(|e| format!("can't connect: {}", e.kind()))?;
        if url.scheme() != "https" {
            return Ok(Box::new(stream));
        }
        let name = name.ok_or("the URL's host is not a name that a certificate could have")?;
        let tls = self.tls.get_or_try_init(connector).await?;
        let stream = tls.0.connect(name, stream).await.map_err(|e| format!("TLS: {e}"))?;
        Ok(Box::new(stream))
    }
}

/// A response whose connection lives as long as it is read.
struct Answer {
    response: hyper::Response<Incoming>,
    _connection: AbortOnDropHandle<Result<(), hyper::Error>>,
}

/// The machine's certificates are read once, at the first webhook over TLS.
async fn connector() -> Result<TlsConnectorOf, String> {
    let load = || {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (taken, _) = roots.add_parsable_certificates(found.certs);
        if taken == 0 {
            return Err(
                "this machine has no CA certificates to check a receiver by (apt install ca-certificates)".to_owned()
            );
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnectorOf(TlsConnector::from(Arc::new(config))))
    };
    tokio::task::spawn_blocking(load).await.map_err(|e| e.to_string())?
}

async fn judge(answer: Answer, deadline: Instant) -> Attempt {
    let Answer { response, _connection } = answer;
    let status = response.status();
    let after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let (verdict, outcome) = match status {
        s if s.is_success() => (Verdict::Delivered, format!("answered {}", s.as_u16())),
        StatusCode::GONE => (Verdict::Gone, "answered 410: the receiver wants nothing any more".to_owned()),
        s if s.is_redirection() => {
            (Verdict::Again(None), format!("answered {}: redirects are not followed", s.as_u16()))
        }
        s => {
            let wait = after.map(|secs| Duration::from_secs(secs).min(RETRY_AFTER));
            (Verdict::Again(wait), format!("answered {}", s.as_u16()))
        }
    };
    let mut said = Vec::new();
    let mut body = response.into_body();
    // The head has decided; what is said beside it is for people, and may stop anywhere.
    while said.len() < KEPT {
        let Ok(Some(Ok(frame))) = tokio::time::timeout_at(deadline, body.frame()).await else { break };
        if let Ok(data) = frame.into_data() {
            said.extend_from_slice(&data[..data.len().min(KEPT - said.len())]);
        }
    }
    let output = String::from_utf8_lossy(&said).into_owned();
    Attempt { verdict, outcome, code: Some(i32::from(status.as_u16())), output }
}

/// Why there is no answer: our words, since the library's could quote what was sent.
fn told(error: &hyper::Error) -> String {
    use std::error::Error;
    if error.is_parse() {
        return "its answer is not HTTP, or its head is too large".to_owned();
    }
    match error.source().and_then(|s| s.downcast_ref::<io::Error>()) {
        Some(io) => format!("the connection broke: {}", io.kind()),
        None => "the connection ended without an answer".to_owned(),
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let coded = (*byte == b'%').then(|| bytes.get(at + 1..at + 3)).flatten();
        match coded.and_then(|digits| hex::decode(digits).ok()) {
            Some(value) => {
                plain.extend(value);
                at += 3;
            }
            None => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}
