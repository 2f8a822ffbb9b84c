//! A home's router that maps ports for who asks: a real miniupnpd in its namespace.

use std::{
    path::Path,
    process::{Child, Stdio},
};

use super::{Internet, Place, inside};
use crate::{program::run, wait::until};

/// The program; it ends when this is dropped.
#[derive(Debug)]
pub struct Upnp {
    process: Child,
    _folder: tempfile::TempDir,
}

impl Internet {
    /// Has a home's router map ports.
    ///
    /// # Panics
    /// If that can't be had.
    #[must_use]
    pub fn maps_ports(&self, home: &Place) -> Upnp {
        let folder = tempfile::Builder::new().prefix("souk-test-").tempdir().unwrap();
        // Where it puts its rules.
        let table = "table inet filter {
                chain forward { type filter hook forward priority 0; policy accept; jump miniupnpd; }
                chain miniupnpd { }
                chain prerouting { type nat hook prerouting priority -100; policy accept; jump prerouting_miniupnpd; }
                chain prerouting_miniupnpd { }
                chain postrouting { type nat hook postrouting priority 90; policy accept; jump postrouting_miniupnpd; }
                chain postrouting_miniupnpd { }
            }";
        let outcome = run(inside(&home.end, Path::new("nft")).args(["-f", "-"]), table.as_bytes());
        assert_eq!(outcome.code, 0, "{}", outcome.err);
        let config = folder.path().join("conf");
        let text = "ext_ifname=wan\nlistening_ip=lan\nenable_natpmp=no\nenable_upnp=yes\nport=0\nsecure_mode=yes\nsystem_uptime=yes\n\
                    upnp_forward_chain=miniupnpd\nupnp_nat_chain=prerouting_miniupnpd\n\
                    upnp_nat_postrouting_chain=postrouting_miniupnpd\nuuid=8254df4b-978b-4445-8f65-31148dfecec5\n\
                    allow 1024-65535 192.168.1.0/24 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n";
        std::fs::write(&config, text).unwrap();
        let mut command = inside(&home.end, Path::new("miniupnpd"));
        command.args(["-d", "-f"]).arg(&config).arg("-P").arg(folder.path().join("pid"));
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let upnp = Upnp { process, _folder: folder };
        until("it listens", || {
            let sockets = run(inside(&home.end, Path::new("ss")).args(["-lun"]), &[]).out;
            sockets.contains(":1900").then_some(())
        });
        upnp
    }

    /// What a home's router maps now.
    ///
    /// # Panics
    /// If its rules can't be read.
    #[must_use]
    pub fn mapped(&self, home: &Place) -> String {
        run(inside(&home.end, Path::new("nft")).args(["list", "chain", "inet", "filter", "prerouting_miniupnpd"]), &[])
            .ok()
    }
}

impl Drop for Upnp {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
