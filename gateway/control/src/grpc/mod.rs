//! The port that gateways dial: enrolment over TLS, and the stream over mutual TLS.

mod desired;
mod enrollment;
mod identity;
mod inbox;
mod incoming;
mod report;
mod stream;
mod sync;
mod trace;

pub(crate) use desired::open_services;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_proto::v1::enrollment_server::EnrollmentServer;
use portcullis_proto::v1::gateway_control_server::GatewayControlServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::core::Core;
use crate::error::ControlError;

const KEEPALIVE_EVERY: Duration = Duration::from_secs(10);
const KEEPALIVE_WITHIN: Duration = Duration::from_secs(20);
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Calls at once on one connection: a gateway needs one.
const STREAMS: u32 = 8;
/// A report on all peers of a large gateway.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;

/// Serves gateways on a listener until `shutdown` resolves.
pub(crate) async fn serve(
    core: Arc<Core>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ControlError> {
    // Streams hold a receiver: they end when this is dropped, at shutdown or with this future.
    let (serving, stopping) = watch::channel(());
    let shutdown = async move {
        shutdown.await;
        drop(serving);
    };
    let incoming = incoming::connections(listener);
    let control = GatewayControlServer::new(stream::GatewayStreams::new(core.clone(), stopping))
        .max_decoding_message_size(MAX_MESSAGE);
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_EVERY))
        .http2_keepalive_timeout(Some(KEEPALIVE_WITHIN))
        .max_concurrent_streams(STREAMS)
        .tls_config(tls(&core)?)
        .map_err(|source| ControlError::Serve {
            what: "gateways",
            source,
        })?
        .add_service(EnrollmentServer::new(enrollment::Enroller::new(core)))
        .add_service(control)
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
        .map_err(|source| ControlError::Serve {
            what: "gateways",
            source,
        })
}

/// A client certificate is optional here, because a gateway that enrols has none yet; the stream
/// demands one.
fn tls(core: &Core) -> Result<ServerTlsConfig, ControlError> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(String::from).into();
    let address = core.config.listen.ip();
    if !address.is_unspecified() {
        names.push(address.to_string());
    }
    names.extend(core.config.names.iter().cloned());
    names.sort();
    names.dedup();
    let server = core.ca.server(&names, core.now_ms())?;
    let ca = pem("CERTIFICATE", core.ca.certificate());
    let chain = pem("CERTIFICATE", &server.certificate) + &ca;
    Ok(ServerTlsConfig::new()
        .identity(Identity::from_pem(chain, pem("PRIVATE KEY", &server.key)))
        .client_ca_root(Certificate::from_pem(ca))
        .client_auth_optional(true)
        .timeout(HANDSHAKE_WITHIN))
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}
