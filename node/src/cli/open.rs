//! `souk open`: the page of an instance in the browser of this machine, until Ctrl-C.
//!
//! Owns the way to the page: a listener on loopback, and the file that takes a browser there. The address with its token is in no
//! argument of a program, where every user of this machine could read it.

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
    process::Stdio,
};

use serde_json::json;
use tempfile::NamedTempFile;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{
    Context,
    args::OpenArgs,
    error::Failure,
    forward,
    jupyter::{self, Ready},
    output,
};

pub(super) async fn open(context: &Context, args: &OpenArgs) -> Result<u8, Failure> {
    let client = context.client()?;
    let Ready { access, way } = jupyter::ready(context, &client, &args.id).await?;
    let at = (Ipv4Addr::LOCALHOST, args.port.unwrap_or(0));
    let listener = TcpListener::bind(at).await.map_err(|error| {
        Failure::new(format!("can't listen on {}: {error}", SocketAddr::from(at)))
            .hint("another port with --port N; without it, any that is free")
    })?;
    let local = listener.local_addr()?;
    let url = format!("http://{local}/?token={}", access.token);
    let serving = tokio::spawn(forward::connections(listener, way));
    let name = access.label.clone().unwrap_or_else(|| access.lease.short());
    let mut page = None;
    if context.json {
        output::json_line(&json!({ "url": url, "local": local, "port": access.port, "lease": access.lease }))?;
    } else if args.print {
        output::line(&url)?;
    } else {
        page = browse(&context.dir, &url).await;
        if page.is_some() {
            output::line(format!("Jupyter of {} is in the browser, at http://{local}/", output::plain(&name)))?;
        } else {
            output::note("no browser could be opened here; the page is at");
            output::line(&url)?;
        }
    }
    output::note("it stays reachable until Ctrl-C");
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        ended = serving => Err(ended.unwrap_or_else(|_| Failure::new("forwarding broke off"))),
        () = wait(SignalKind::interrupt()) => Ok(0),
        () = wait(SignalKind::terminate()) => Ok(143),
        () = wait(SignalKind::hangup()) => Ok(129),
    };
    drop(page);
    result
}

/// Opens the user's browser. The file that leads it to the page, if that worked; it is to stay for as long as the page does.
async fn browse(dir: &Path, url: &str) -> Option<NamedTempFile> {
    let there = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let program = if cfg!(target_os = "macos") {
        "open"
    } else if there("DISPLAY") || there("WAYLAND_DISPLAY") {
        "xdg-open"
    } else {
        return None;
    };
    let page = leading_to(dir, url).inspect_err(|error| tracing::debug!(%error, "no page could be written")).ok()?;
    let mut command = tokio::process::Command::new(program);
    command.arg(page.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let opened = command.status().await.is_ok_and(|status| status.success());
    opened.then_some(page)
}

/// A page that leads to another, for its owner's eyes only.
fn leading_to(dir: &Path, url: &str) -> std::io::Result<NamedTempFile> {
    let folder = dir.join("open");
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    let private = fs::Permissions::from_mode(0o600);
    let mut page = tempfile::Builder::new().suffix(".html").permissions(private).tempfile_in(folder)?;
    write!(
        page,
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><meta name=\"referrer\" content=\"no-referrer\">\
         <meta http-equiv=\"refresh\" content=\"0; url={url}\"><title>Jupyter</title></head>\
         <body><a href=\"{url}\">Jupyter</a></body></html>\n"
    )?;
    page.flush()?;
    Ok(page)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_page_with_the_token_is_for_its_owner_alone_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let page = leading_to(dir.path(), "http://127.0.0.1:1/?token=abc").unwrap();
        let path = page.path().to_owned();
        assert!(fs::read_to_string(&path).unwrap().contains("url=http://127.0.0.1:1/?token=abc\""));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(dir.path().join("open")).unwrap().permissions().mode() & 0o777, 0o700);
        drop(page);
        assert!(!path.exists());
    }
}
