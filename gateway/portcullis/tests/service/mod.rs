//! A control service in a directory of its own, and a gateway that only says who it is.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use portcullis_client::PublicKey;
use portcullis_proto::v1::gateway_control_client::GatewayControlClient;
use portcullis_proto::v1::{ControlMessage, GatewayMessage, Hello, gateway_message};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// Plenty, for a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the binary to its end.
pub(crate) fn portcullis(arguments: &[&str], stdin: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments)
        .env_remove("PORTCULLIS_SOCKET")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early reads nothing.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `portcullis control` on SQLite; stopped and removed when dropped.
pub(crate) struct Service {
    directory: TempDir,
    address: String,
    child: Option<Child>,
}

impl Service {
    /// The configuration alone.
    pub(crate) fn configure(address: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().display();
        let config = format!(
            "[control]\ndatabase = \"sqlite://{root}/portcullis.db\"\nstate_dir = \"{root}/state\"\n\
             admin_socket = \"{root}/admin.sock\"\nlisten = \"{address}\"\n\
             [agent]\nstate_dir = \"{root}/agent\"\n"
        );
        fs::write(directory.path().join("portcullis.toml"), config).unwrap();
        Self {
            directory,
            address: address.to_owned(),
            child: None,
        }
    }

    pub(crate) fn start() -> Self {
        // Freed at once: nobody else is given this port in the moment until the service takes it.
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let mut service = Self::configure(&free.to_string());
        service.restart();
        service
    }

    pub(crate) fn restart(&mut self) {
        let log = fs::File::create(self.path("control.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args([
                "--log",
                "debug",
                "control",
                "--config",
                &self.path("portcullis.toml"),
            ])
            .stdout(fs::File::create(self.path("control.out")).unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let started = Instant::now();
        while self.run(&["status"], "").code != 0 {
            let log = fs::read_to_string(self.path("control.log")).unwrap_or_default();
            assert!(
                started.elapsed() < PATIENCE,
                "control does not start: {log}"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends it the way a service manager does; its exit code.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut child = self.child.take()?;
        let pid = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
        child.wait().unwrap().code()
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    pub(crate) fn run(&self, arguments: &[&str], stdin: &str) -> Ran {
        let socket = self.path("admin.sock");
        portcullis(&[&["--socket", &socket], arguments].concat(), stdin)
    }

    /// A command that has to succeed, and its JSON answer.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(&[&["--output", "json"], arguments].concat(), "");
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// A location `office` and a user `ada`.
    pub(crate) fn add_office(&self) {
        self.json(&[
            "location",
            "add",
            "office",
            "--pool",
            "10.77.0.0/24",
            "--pool",
            "fd77::/64",
            "--endpoint",
            "vpn.example.org:51820",
            "--route",
            "10.9.0.0/24",
        ]);
        let ran = self.run(
            &["user", "add", "ada", "--password-stdin"],
            "correct horse battery\n",
        );
        assert_eq!(ran.code, 0, "{}", ran.stderr);
    }

    pub(crate) fn log_and_database_contain(&self, text: &str) -> bool {
        let names = ["control.log", "portcullis.db", "portcullis.db-wal"];
        let contains = |bytes: Vec<u8>| {
            bytes
                .windows(text.len())
                .any(|window| window == text.as_bytes())
        };
        names
            .iter()
            .any(|name| fs::read(self.path(name)).is_ok_and(contains))
    }

    /// Adds and enrols a gateway with the real command, and connects as it.
    pub(crate) fn connect_gateway(&self, name: &str) -> Gateway {
        let added = self.json(&["gateway", "add", name]);
        let text = |field: &str| added[field].as_str().unwrap().to_owned();
        let url = format!("https://{}", self.address);
        let config = self.path("portcullis.toml");
        let enroll = |token: &str, fingerprint: &str| {
            self.run(
                &[
                    "gateway",
                    "enroll",
                    "--config",
                    &config,
                    "--control",
                    &url,
                    "--token",
                    token,
                    "--ca-fingerprint",
                    fingerprint,
                ],
                "",
            )
        };
        let other_ca = format!("sha256:{}", "0".repeat(64));
        assert_eq!(enroll(&text("token"), &other_ca).code, 1);
        assert_eq!(enroll("guess", &text("ca_fingerprint")).code, 1);
        let enrolled = enroll(&text("token"), &text("ca_fingerprint"));
        assert_eq!(enrolled.code, 0, "{}", enrolled.stderr);
        assert_eq!(
            enroll(&text("token"), &text("ca_fingerprint")).code,
            1,
            "the token works once"
        );
        let gateway = Gateway::connect(&url, &self.directory.path().join("agent"));
        let started = Instant::now();
        while self.json(&["gateway", "show", name])["public_key"].is_null() {
            assert!(
                started.elapsed() < PATIENCE,
                "control never learned the gateway's key"
            );
            thread::sleep(Duration::from_millis(20));
        }
        gateway
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A gateway's stream that says hello and never acknowledges anything.
pub(crate) struct Gateway {
    runtime: Runtime,
    _sender: mpsc::Sender<GatewayMessage>,
    _received: Streaming<ControlMessage>,
}

impl Gateway {
    const KEY: [u8; 32] = [9; 32];

    fn connect(url: &str, state_dir: &Path) -> Self {
        let enrolment = portcullis_agent::identity::Enrolment::load(state_dir).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&enrolment.ca))
            .identity(Identity::from_pem(
                &enrolment.certificate,
                enrolment.key.as_bytes(),
            ));
        let endpoint = Endpoint::from_shared(url.to_owned())
            .unwrap()
            .tls_config(tls)
            .unwrap();
        let (sender, outgoing) = mpsc::channel(4);
        let hello = Hello {
            protocol: 1,
            public_key: Self::KEY.to_vec(),
            ..Hello::default()
        };
        let hello = GatewayMessage {
            message: Some(gateway_message::Message::Hello(hello)),
        };
        let runtime = Runtime::new().unwrap();
        let received = runtime.block_on(async {
            sender.send(hello).await.unwrap();
            let mut client = GatewayControlClient::new(endpoint.connect().await.unwrap());
            client
                .sync(ReceiverStream::new(outgoing))
                .await
                .unwrap()
                .into_inner()
        });
        Self {
            runtime,
            _sender: sender,
            _received: received,
        }
    }

    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey::from(Self::KEY)
    }

    pub(crate) fn disconnect(self) {
        drop(self._received);
        drop(self._sender);
        self.runtime.shutdown_timeout(Duration::from_secs(1));
    }
}
