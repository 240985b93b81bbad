//! A control service that says what the test tells it to, over real mutual TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_proto::v1::enrollment_server::{Enrollment, EnrollmentServer};
use portcullis_proto::v1::gateway_control_server::{GatewayControl, GatewayControlServer};
use portcullis_proto::v1::{
    Applied, ControlMessage, Delta, EnrollRequest, EnrollResponse, GatewayMessage, Hello, Report,
    Snapshot, control_message, gateway_message,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::pki::Authority;

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Control {
    pub address: SocketAddr,
    streams: mpsc::Receiver<Gateway>,
    server: JoinHandle<()>,
}

/// One stream, from control's side.
pub struct Gateway {
    messages: Streaming<GatewayMessage>,
    answers: mpsc::Sender<Result<ControlMessage, Status>>,
}

impl Control {
    pub async fn start(authority: Arc<Authority>) -> Self {
        Self::start_at(authority, "127.0.0.1:0".parse().expect("address")).await
    }

    pub async fn start_at(authority: Arc<Authority>, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("bound");
        let address = listener.local_addr().expect("address");
        let issued = authority.issue("localhost");
        let chain = format!("{}{}", issued.certificate, authority.pem());
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(chain, issued.key))
            .client_ca_root(Certificate::from_pem(authority.pem()))
            .client_auth_optional(true);
        let (sender, streams) = mpsc::channel(8);
        let server = Server::builder()
            .tls_config(tls)
            .expect("TLS")
            .add_service(GatewayControlServer::new(Service(sender)))
            .add_service(EnrollmentServer::new(Enroll(authority)));
        let server = tokio::spawn(async move {
            server
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("served");
        });
        Self {
            address,
            streams,
            server,
        }
    }

    pub fn url(&self) -> String {
        format!("https://localhost:{}", self.address.port())
    }

    /// The next stream that a gateway opens, and its hello.
    pub async fn gateway(&mut self) -> (Gateway, Hello) {
        let opened = tokio::time::timeout(PATIENCE, self.streams.recv()).await;
        let mut gateway = opened.expect("a stream in time").expect("the service runs");
        match gateway.next().await {
            gateway_message::Message::Hello(hello) => (gateway, hello),
            other => panic!("{other:?} came before hello"),
        }
    }

    /// Gone, with every stream.
    pub async fn stop(self) {
        self.server.abort();
        let _ = self.server.await;
    }
}

impl Gateway {
    pub async fn snapshot(&mut self, snapshot: Snapshot) -> Applied {
        self.send(control_message::Message::Snapshot(snapshot))
            .await;
        self.applied().await
    }

    pub async fn delta(&mut self, delta: Delta) -> Applied {
        self.send(control_message::Message::Delta(delta)).await;
        self.applied().await
    }

    pub async fn send(&mut self, message: control_message::Message) {
        let message = ControlMessage {
            message: Some(message),
        };
        self.answers
            .send(Ok(message))
            .await
            .expect("the stream is open");
    }

    pub async fn applied(&mut self) -> Applied {
        loop {
            if let gateway_message::Message::Applied(applied) = self.next().await {
                return applied;
            }
        }
    }

    pub async fn report(&mut self, wanted: impl Fn(&Report) -> bool) -> Report {
        loop {
            match self.next().await {
                gateway_message::Message::Report(report) if wanted(&report) => return report,
                _ => {}
            }
        }
    }

    async fn next(&mut self) -> gateway_message::Message {
        let message = tokio::time::timeout(PATIENCE, self.messages.message()).await;
        let message = message
            .expect("a message in time")
            .expect("no error")
            .expect("a message");
        message.message.expect("a known message")
    }
}

struct Service(mpsc::Sender<Gateway>);

#[tonic::async_trait]
impl GatewayControl for Service {
    type SyncStream = ReceiverStream<Result<ControlMessage, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<GatewayMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        if request
            .peer_certs()
            .is_none_or(|certificates| certificates.is_empty())
        {
            return Err(Status::unauthenticated("no client certificate"));
        }
        let (answers, stream) = mpsc::channel(8);
        let gateway = Gateway {
            messages: request.into_inner(),
            answers,
        };
        self.0
            .send(gateway)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

struct Enroll(Arc<Authority>);

#[tonic::async_trait]
impl Enrollment for Enroll {
    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let request = request.into_inner();
        if request.token != "good" {
            return Err(Status::permission_denied("the token is not valid"));
        }
        Ok(Response::new(EnrollResponse {
            certificate_der: self.0.sign(&request.csr_der),
            ca_der: self.0.der().to_vec(),
            gateway: "gw1".into(),
            location: "office".into(),
        }))
    }
}
