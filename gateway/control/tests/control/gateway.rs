//! A gateway as control sees one: enrols, streams, keeps in memory what a kernel would hold.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use portcullis_control::Control;
use portcullis_proto::digest::{PeerEntry, StateDigest, session_tag};
use portcullis_proto::v1::control_message::Message;
use portcullis_proto::v1::enrollment_client::EnrollmentClient;
use portcullis_proto::v1::gateway_control_client::GatewayControlClient;
use portcullis_proto::v1::gateway_message::Message as FromGateway;
use portcullis_proto::v1::{
    Applied, ControlMessage, EnrollRequest, GatewayMessage, Hello, LocationConfig, Peer, Policy,
    Report,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Status, Streaming};

use crate::fixture::key;

/// Serves a control's gateways on a port of its own, until dropped.
pub(crate) struct Served {
    pub(crate) port: u16,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    pub(crate) async fn start(control: &Control) -> Self {
        let listener = control.bind_gateways().await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let control = control.clone();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            control.serve_gateways_on(listener, stopped).await.unwrap();
        });
        Self {
            port,
            stop: Some(stop),
            task,
        }
    }

    /// As at the end of the process.
    pub(crate) async fn stop(mut self) {
        let _ = self.stop.take().expect("running").send(());
        (&mut self.task).await.unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a gateway keeps on disk.
#[derive(Clone)]
pub(crate) struct Enrolled {
    certificate: String,
    key: String,
    ca: String,
}

pub(crate) async fn enroll(control: &Control, port: u16, token: &str) -> Result<Enrolled, Status> {
    let ca = pem("CERTIFICATE", &control.ca_certificate());
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let channel = connect(
        port,
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ca)),
    );
    let mut client = EnrollmentClient::new(channel.await.unwrap());
    let request = EnrollRequest {
        token: token.into(),
        csr_der: request.der().to_vec(),
    };
    let answer = client.enroll(request).await?.into_inner();
    assert_eq!(answer.ca_der, control.ca_certificate().to_vec());
    Ok(Enrolled {
        certificate: pem("CERTIFICATE", &answer.certificate_der),
        key: key.serialize_pem(),
        ca,
    })
}

async fn connect(port: u16, tls: ClientTlsConfig) -> Result<Channel, tonic::transport::Error> {
    Endpoint::from_shared(format!("https://localhost:{port}"))?
        .tls_config(tls)?
        .connect()
        .await
}

/// What the kernel would hold.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) revision: u64,
    pub(crate) store_id: String,
    pub(crate) location: Option<LocationConfig>,
    pub(crate) policy: Option<Policy>,
    pub(crate) peers: BTreeMap<Vec<u8>, Peer>,
}

pub(crate) struct Gateway {
    enrolled: Enrolled,
    pub(crate) state: State,
    /// Messages since the connection: 's' for a snapshot, 'd' for a delta.
    pub(crate) heard: String,
    /// What else control wanted, since the connection.
    pub(crate) asked: Vec<Message>,
    /// What to get wrong on purpose.
    pub(crate) lie: bool,
    /// Its WireGuard key.
    pub(crate) key: [u8; 32],
    stream: Option<(mpsc::Sender<GatewayMessage>, Streaming<ControlMessage>)>,
}

impl Gateway {
    pub(crate) fn new(enrolled: Enrolled) -> Self {
        let (state, heard) = Default::default();
        Self {
            enrolled,
            state,
            heard,
            asked: Vec::new(),
            lie: false,
            key: key("gateway"),
            stream: None,
        }
    }

    pub(crate) async fn connect(&mut self, port: u16) -> Result<(), Status> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(&self.enrolled.ca))
            .identity(Identity::from_pem(
                &self.enrolled.certificate,
                &self.enrolled.key,
            ));
        self.connect_with(port, tls).await
    }

    /// Without any client certificate.
    pub(crate) async fn connect_anonymously(&mut self, port: u16) -> Result<(), Status> {
        let ca = Certificate::from_pem(&self.enrolled.ca);
        self.connect_with(port, ClientTlsConfig::new().ca_certificate(ca))
            .await
    }

    async fn connect_with(&mut self, port: u16, tls: ClientTlsConfig) -> Result<(), Status> {
        // What the agent takes in one message.
        let mut client = GatewayControlClient::new(connect(port, tls).await.unwrap())
            .max_decoding_message_size(512 << 20);
        let (sender, outbound) = mpsc::channel(16);
        let hello = Hello {
            protocol: portcullis_proto::PROTOCOL,
            abi_version: 1,
            resume_from: self.state.revision,
            store_id: self.state.store_id.clone(),
            public_key: self.key.to_vec(),
            agent_version: "test".into(),
        };
        send(&sender, FromGateway::Hello(hello)).await;
        let inbound = client
            .sync(ReceiverStream::new(outbound))
            .await?
            .into_inner();
        self.heard.clear();
        self.asked.clear();
        self.stream = Some((sender, inbound));
        Ok(())
    }

    pub(crate) fn disconnect(&mut self) {
        self.stream = None;
    }

    /// Takes in the next message without acknowledging it. The error is what ended the stream.
    pub(crate) async fn hear(&mut self) -> Result<(), String> {
        let (_, inbound) = self.stream.as_mut().expect("connected");
        let message = tokio::time::timeout(Duration::from_secs(10), inbound.message());
        let message = message
            .await
            .expect("a message in time")
            .map_err(|e| e.to_string())?;
        match message.and_then(|message| message.message) {
            Some(Message::Snapshot(snapshot)) => {
                self.heard.push('s');
                self.state = State {
                    revision: snapshot.revision,
                    store_id: snapshot.store_id,
                    location: snapshot.location,
                    policy: snapshot.policy,
                    peers: snapshot
                        .peers
                        .into_iter()
                        .map(|p| (p.public_key.clone(), p))
                        .collect(),
                };
                Ok(())
            }
            Some(Message::Delta(delta)) => {
                self.heard.push('d');
                assert_eq!(delta.from_revision, self.state.revision);
                self.state.revision = delta.revision;
                if delta.location.is_some() {
                    self.state.location = delta.location;
                }
                for key in delta.removed {
                    self.state.peers.remove(&key);
                }
                self.state
                    .peers
                    .extend(delta.peers.into_iter().map(|p| (p.public_key.clone(), p)));
                Ok(())
            }
            // Nothing that a kernel holds.
            Some(message @ (Message::SetTrace(_) | Message::Explain(_))) => {
                self.asked.push(message);
                Ok(())
            }
            Some(Message::Refused(refused)) => Err(refused.reason),
            None => Err("closed".into()),
        }
    }

    pub(crate) async fn acknowledge(&mut self) {
        let mut digest = self.state.digest();
        if self.lie {
            digest[0] ^= 1;
        }
        let applied = Applied {
            revision: self.state.revision,
            digest: digest.to_vec(),
        };
        self.say(FromGateway::Applied(applied)).await;
    }

    /// Takes in and acknowledges messages until this revision is reached.
    pub(crate) async fn follow_to(&mut self, revision: u64) {
        while self.state.revision < revision {
            self.hear().await.unwrap();
            self.acknowledge().await;
        }
    }

    pub(crate) async fn report(&mut self, report: Report) {
        self.say(FromGateway::Report(report)).await;
    }

    pub(crate) async fn say(&mut self, message: FromGateway) {
        let (sender, _) = self.stream.as_ref().expect("connected");
        send(sender, message).await;
    }
}

impl State {
    pub(crate) fn digest(&self) -> [u8; 32] {
        let mut digest = StateDigest::default();
        for peer in self.peers.values() {
            let allowed_ips: Vec<(IpAddr, u8)> = peer
                .allowed_ips
                .iter()
                .map(|cidr| cidr.split_once('/').unwrap())
                .map(|(address, prefix)| (address.parse().unwrap(), prefix.parse().unwrap()))
                .collect();
            digest.add(&PeerEntry {
                public_key: peer.public_key.as_slice().try_into().unwrap(),
                preshared_key: peer.preshared_key.as_slice().try_into().ok(),
                allowed_ips: &allowed_ips,
                persistent_keepalive_s: u16::try_from(peer.persistent_keepalive_s).unwrap(),
                session: peer.session.as_ref().map(session_tag),
                policy: peer.policy,
            });
        }
        digest.add_policy(self.policy.as_ref().map_or(0, |policy| policy.id));
        digest.to_bytes()
    }
}

async fn send(sender: &mpsc::Sender<GatewayMessage>, message: FromGateway) {
    sender
        .send(GatewayMessage {
            message: Some(message),
        })
        .await
        .unwrap();
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}
