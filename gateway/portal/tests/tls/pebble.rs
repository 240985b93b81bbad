//! Let's Encrypt's own test CA, with a DNS server in which every name is this machine.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
    directory_port: u16,
    management_port: u16,
    dns_port: u16,
    dns_management_port: u16,
    /// Where it asks by plain HTTP.
    pub(crate) http_port: u16,
    _dns: Running,
    pebble: Running,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Pebble {
    pub(crate) async fn start(dir: &Path) -> Self {
        let ca = TestCa::new();
        let (certificate, key) = ca.give(&["127.0.0.1"], (2000, 2200));
        std::fs::write(dir.join("pebble.crt"), certificate).unwrap();
        write_private(&dir.join("pebble.key"), &key);
        std::fs::write(dir.join("pebble-ca.crt"), ca.pem()).unwrap();
        let (dns_port, dns_management_port) = (free_port(), free_port());
        let dns = Command::new("pebble-challtestsrv")
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""])
            .args(["-dns01", &format!("127.0.0.1:{dns_port}")])
            .args(["-management", &format!("127.0.0.1:{dns_management_port}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect(ADVICE);
        let [directory_port, management_port, http_port] = [(); 3].map(|()| free_port());
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{directory_port}"),
            "managementListenAddress": format!("127.0.0.1:{management_port}"),
            "certificate": dir.join("pebble.crt"),
            "privateKey": dir.join("pebble.key"),
            "httpPort": http_port,
            "tlsPort": free_port(),
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        std::fs::write(dir.join("pebble.json"), config.to_string()).unwrap();
        let this = Self {
            dir: dir.to_owned(),
            ca,
            directory_port,
            management_port,
            dns_port,
            dns_management_port,
            http_port,
            _dns: Running(dns),
            pebble: Running(run(dir, dns_port)),
        };
        this.ready().await;
        this
    }

    /// Another CA at the same place, which knows no account.
    pub(crate) async fn forget_everything(&mut self) {
        self.stop();
        self.pebble = Running(run(&self.dir, self.dns_port));
        self.ready().await;
    }

    pub(crate) fn stop(&mut self) {
        self.pebble.0.kill().unwrap();
        self.pebble.0.wait().unwrap();
    }

    async fn ready(&self) {
        for _ in 0..100 {
            if self.root_text().await.is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("pebble does not answer");
    }

    pub(crate) fn directory(&self) -> String {
        format!("https://127.0.0.1:{}/dir", self.directory_port)
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.dir.join("pebble-ca.crt")
    }

    async fn root_text(&self) -> Option<String> {
        let root = reqwest::Certificate::from_der(&self.ca.certificate).unwrap();
        let client = reqwest::Client::builder().add_root_certificate(root);
        let url = format!("https://127.0.0.1:{}/roots/0", self.management_port);
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
url = "http://127.0.0.1:{port}/" + {{"set": "set-txt", "clear": "clear-txt"}}[verb]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({{}}))
opener.open(url, json.dumps(body).encode()).read()
"#,
            port = self.dns_management_port,
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

fn run(dir: &Path, dns_port: u16) -> Child {
    Command::new("pebble")
        .arg("-config")
        .arg(dir.join("pebble.json"))
        .arg("-dnsserver")
        .arg(format!("127.0.0.1:{dns_port}"))
        .env("PEBBLE_VA_NOSLEEP", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect(ADVICE)
}
