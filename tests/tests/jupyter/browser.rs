//! A headless Chromium, driven by the W3C's WebDriver protocol.
//!
//! Owns the driver's process and the browser's profile. Both end with it.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    process::{Child, Stdio},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use souk_tests::{program::mortal, wait::until};
use tokio::{net::TcpStream, runtime::Runtime};

/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// What the keyboard's keys are called there.
pub const SHIFT_ENTER: &str = "\u{e008}\u{e007}\u{e000}";
pub const ENTER: &str = "\u{e007}";

/// Something on a page.
pub struct Element(String);

/// A browser with one window.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    runtime: Runtime,
}

impl Browser {
    /// Starts one whose files lie below a folder.
    pub fn start(folder: &Path) -> Self {
        let (log, profile) = (folder.join("driver.log"), folder.join("profile"));
        fs::create_dir_all(&profile).unwrap();
        // In a process namespace of its own, that no browser outlives the driver.
        let mut command = mortal(Path::new("unshare"));
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "chromedriver", "--port=0"]);
        let out = File::create(&log).unwrap();
        let errors = out.try_clone().unwrap();
        let driver = command.stdin(Stdio::null()).stdout(out).stderr(errors).spawn().unwrap();
        let port = until("the driver listens", || {
            let text = fs::read_to_string(&log).ok()?;
            let (_, rest) = text.split_once("started successfully on port ")?;
            rest.split_once('.')?.0.parse::<u16>().ok()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut browser = Self { driver, address, session: String::new(), runtime };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1400,1000",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": "/usr/bin/chromium", "args": arguments },
        } } });
        let made = browser.call(Method::POST, "/session", &wanted).unwrap();
        browser.session = made["sessionId"].as_str().unwrap().to_owned();
        browser
    }

    fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let request = Request::builder().method(method.clone()).uri(path).header("host", "127.0.0.1");
        let body = if method == Method::POST { Bytes::from(body.to_string()) } else { Bytes::new() };
        let request = request.header("content-type", "application/json").body(Full::new(body)).unwrap();
        let answer = self.runtime.block_on(async {
            let stream = TcpStream::connect(self.address).await.map_err(|e| e.to_string())?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
            let connection = tokio::spawn(connection);
            let response = sender.send_request(request).await.map_err(|e| e.to_string())?;
            let bytes = response.into_body().collect().await.map_err(|e| e.to_string())?.to_bytes();
            connection.abort();
            serde_json::from_slice::<Value>(&bytes).map_err(|e| e.to_string())
        })?;
        let value = answer["value"].clone();
        if value["error"].is_string() { Err(value.to_string()) } else { Ok(value) }
    }

    fn of_session(&self, path: &str) -> String {
        format!("/session/{}/{path}", self.session)
    }

    /// Goes to a page and waits until it is loaded.
    pub fn go(&self, url: &str) {
        let _ = self.call(Method::POST, &self.of_session("url"), &json!({ "url": url })).unwrap();
    }

    /// Where it is.
    pub fn url(&self) -> String {
        let url = self.call(Method::GET, &self.of_session("url"), &Value::Null).unwrap();
        url.as_str().unwrap().to_owned()
    }

    /// The first element that an XPath means, if it is there.
    pub fn find(&self, xpath: &str) -> Option<Element> {
        let wanted = json!({ "using": "xpath", "value": xpath });
        let found = self.call(Method::POST, &self.of_session("element"), &wanted).ok()?;
        Some(Element(found[ELEMENT].as_str()?.to_owned()))
    }

    /// Clicks on it as soon as it is there and nothing covers it.
    pub fn click(&self, xpath: &str) {
        until(&format!("something to click at {xpath}"), || {
            let element = self.find(xpath)?;
            self.call(Method::POST, &self.of_session(&format!("element/{}/click", element.0)), &json!({})).ok()
        });
    }

    /// Types into it, once it takes keys.
    pub fn keys(&self, xpath: &str, text: &str) {
        until(&format!("something that takes keys at {xpath}"), || {
            let element = self.find(xpath)?;
            let path = self.of_session(&format!("element/{}/value", element.0));
            self.call(Method::POST, &path, &json!({ "text": text })).ok()
        });
    }

    /// What it says, if it is there.
    pub fn text(&self, xpath: &str) -> Option<String> {
        let element = self.find(xpath)?;
        let path = self.of_session(&format!("element/{}/text", element.0));
        Some(self.call(Method::GET, &path, &Value::Null).ok()?.as_str()?.to_owned())
    }

    /// A picture of the window, kept for whoever looks into a failure.
    pub fn picture(&self, path: &Path) {
        use base64::Engine as _;
        let picture = self.call(Method::GET, &self.of_session("screenshot"), &Value::Null);
        let bytes = picture.ok().and_then(|text| {
            let text = text.as_str()?.to_owned();
            base64::engine::general_purpose::STANDARD.decode(text).ok()
        });
        fs::write(path, bytes.unwrap_or_default()).ok();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(folder) = std::env::var_os("SOUK_TEST_PICTURES").filter(|_| !self.session.is_empty()) {
            self.picture(&Path::new(&folder).join("jupyter.png"));
        }
        self.call(Method::DELETE, &format!("/session/{}", self.session), &Value::Null).ok();
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}
