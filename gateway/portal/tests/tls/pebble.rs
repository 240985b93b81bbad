//! Let's Encrypt's own test CA, with a DNS server in which every name is this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::{TestCa, write_private};

const ADVICE: &str = "pebble is missing: apt-get install pebble";

/// Ends its program with itself.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) struct Pebble {
    dir: PathBuf,
    ca: TestCa,
    ip: Ipv4Addr,
    _dns: Running,
    pebble: Running,
}

const DIRECTORY: u16 = 14000;
const MANAGEMENT: u16 = 15000;
const HTTP: u16 = 5002;
const TLS: u16 = 5001;
const DNS: u16 = 8053;
const DNS_MANAGEMENT: u16 = 8055;

/// A loopback address of its own: nobody else takes a port there in the meantime.
fn own_address() -> Ipv4Addr {
    static MADE: AtomicU8 = AtomicU8::new(1);
    let [high, low, ..] = std::process::id().to_le_bytes();
    Ipv4Addr::new(127, high | 1, low, MADE.fetch_add(1, Ordering::Relaxed))
}

impl Pebble {
    pub(crate) async fn start(dir: &Path) -> Self {
        let (ca, ip) = (TestCa::new(), own_address());
        let (certificate, key) = ca.give(&[&ip.to_string()], (2000, 2200));
        std::fs::write(dir.join("pebble.crt"), certificate).unwrap();
        write_private(&dir.join("pebble.key"), &key);
        std::fs::write(dir.join("pebble-ca.crt"), ca.pem()).unwrap();
        let dns = Command::new("pebble-challtestsrv")
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-defaultIPv4", &ip.to_string(), "-defaultIPv6", ""])
            .args(["-dns01", &format!("{ip}:{DNS}")])
            .args(["-management", &format!("{ip}:{DNS_MANAGEMENT}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect(ADVICE);
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("{ip}:{DIRECTORY}"),
            "managementListenAddress": format!("{ip}:{MANAGEMENT}"),
            "certificate": dir.join("pebble.crt"),
            "privateKey": dir.join("pebble.key"),
            "httpPort": HTTP,
            "tlsPort": TLS,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        std::fs::write(dir.join("pebble.json"), config.to_string()).unwrap();
        let this = Self {
            dir: dir.to_owned(),
            ca,
            ip,
            _dns: Running(dns),
            pebble: Running(run(dir, ip)),
        };
        this.ready().await;
        this
    }

    /// Another CA at the same place, which knows no account.
    pub(crate) async fn forget_everything(&mut self) {
        self.stop();
        self.pebble = Running(run(&self.dir, self.ip));
        self.ready().await;
    }

    pub(crate) fn stop(&mut self) {
        self.pebble.0.kill().unwrap();
        self.pebble.0.wait().unwrap();
    }

    async fn ready(&self) {
        for _ in 0..300 {
            if self.root_text().await.is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("pebble does not answer");
    }

    pub(crate) fn directory(&self) -> String {
        format!("https://{}:{DIRECTORY}/dir", self.ip)
    }

    /// Where it asks by plain HTTP.
    pub(crate) fn asks_at(&self) -> SocketAddr {
        (self.ip, HTTP).into()
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.join("pebble-ca.crt")
    }

    async fn root_text(&self) -> Option<String> {
        let root = reqwest::Certificate::from_der(&self.ca.certificate).unwrap();
        let client = reqwest::Client::builder().add_root_certificate(root);
        let url = format!("https://{}:{MANAGEMENT}/roots/0", self.ip);
        let answer = client.no_proxy().build().unwrap().get(url).send().await;
        answer.ok()?.error_for_status().ok()?.text().await.ok()
    }

    /// Of the certificates that it gives.
    pub(crate) async fn root(&self) -> CertificateDer<'static> {
        let text = self.root_text().await.unwrap();
        CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
    }

    /// A program that sets and clears records, and writes down what it was told.
    pub(crate) fn dns_command(&self) -> Vec<String> {
        let log = self.dir.join("dns.log");
        let text = format!(
            r#"#!/usr/bin/env python3
import json, sys, urllib.request
first, verb, record, value = sys.argv[1:]
with open({log:?}, "a") as log:
    print(first, verb, record, value, file=log)
body = {{"host": record + "."}}
if verb == "set":
    body["value"] = value
url = "http://{ip}:{DNS_MANAGEMENT}/" + {{"set": "set-txt", "clear": "clear-txt"}}[verb]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
opener.open(url, json.dumps(body).encode()).read()
"#,
            ip = self.ip,
        );
        let path = self.dir.join("dns-hook");
        write_private(&path, &text);
        vec![
            "/usr/bin/python3".into(),
            path.display().to_string(),
            "$HOME; first".into(),
        ]
    }

    pub(crate) fn dns_log(&self) -> String {
        std::fs::read_to_string(self.dir.join("dns.log")).unwrap()
    }
}

fn run(dir: &Path, ip: Ipv4Addr) -> Child {
    Command::new("pebble")
        .arg("-config")
        .arg(dir.join("pebble.json"))
        .arg("-dnsserver")
        .arg(format!("{ip}:{DNS}"))
        .env("PEBBLE_VA_NOSLEEP", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect(ADVICE)
}
