//! Receivers of webhooks: real HTTP servers on loopback, well-behaved and not.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// A server that remembers what it got, and answers with these statuses first, then with 200.
pub struct Receiver {
    pub address: SocketAddr,
    got: Arc<Mutex<Vec<Received>>>,
}

impl Receiver {
    pub fn start(statuses: &[u16]) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), statuses, None)
    }

    pub fn on(address: SocketAddr, statuses: &[u16], tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let got: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (seen, statuses) = (Arc::clone(&got), statuses.to_vec());
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (seen, statuses, tls) = (Arc::clone(&seen), statuses.clone(), tls.clone());
                    tokio::spawn(async move {
                        match tls {
                            Some(tls) => {
                                if let Ok(stream) = tls.accept(stream).await {
                                    serve(stream, seen, statuses).await;
                                }
                            }
                            None => serve(stream, seen, statuses).await,
                        }
                    });
                }
            });
        });
        Self { address, got }
    }

    pub fn got(&self) -> Vec<Received> {
        self.got.lock().unwrap().clone()
    }

    pub fn events(&self) -> Vec<String> {
        self.got().iter().map(|r| r.json()["event"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    seen: Arc<Mutex<Vec<Received>>>,
    statuses: Vec<u16>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (seen, statuses) = (Arc::clone(&seen), statuses.clone());
        async move {
            let text = |v: &hyper::header::HeaderValue| v.to_str().unwrap_or_default().to_owned();
            let headers = request.headers().iter().map(|(k, v)| (k.as_str().to_owned(), text(v))).collect();
            let path = request.uri().to_string();
            let body = request.into_body().collect().await.map(|b| b.to_bytes().to_vec()).unwrap_or_default();
            let n = {
                let mut seen = seen.lock().unwrap();
                seen.push(Received { path, headers, body });
                seen.len()
            };
            let status = statuses.get(n - 1).copied().unwrap_or(200);
            let answer = Response::builder().status(status).body(Full::new(Bytes::from_static(b"thank you"))).unwrap();
            Ok::<_, Infallible>(answer)
        }
    });
    http1::Builder::new().serve_connection(TokioIo::new(stream), service).await.ok();
}

/// What a receiver that is no server does with each connection, after it has read some of the request.
pub fn rogue(speak: fn(&mut dyn Write)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (ready, is_ready) = mpsc::channel();
    thread::spawn(move || {
        ready.send(()).unwrap();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            thread::spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let mut some = [0; 1024];
                let _ = stream.read(&mut some);
                speak(&mut stream);
            });
        }
    });
    is_ready.recv().unwrap();
    address
}
