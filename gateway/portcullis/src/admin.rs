//! The admin client: gRPC over control's root-only Unix socket.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, Result};
use hyper_util::rt::TokioIo;
use portcullis_proto::v1::admin_client::AdminClient;
use thiserror::Error;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

/// Nobody answers at the socket.
#[derive(Debug, Error)]
pub(crate) enum SocketError {
    #[error(
        "there is no {}: is portcullis running? Start `portcullis up` or `portcullis control`, or name its socket with --socket",
        .0.display()
    )]
    Missing(PathBuf),
    #[error("nobody listens at {}: portcullis has stopped; start it again", .0.display())]
    Stale(PathBuf),
    #[error("no permission for {}: admin commands are for root (use sudo)", .0.display())]
    Denied(PathBuf),
    #[error("cannot connect to {}: {source}", .path.display())]
    Other { path: PathBuf, source: io::Error },
}

impl SocketError {
    fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing(path),
            io::ErrorKind::ConnectionRefused => Self::Stale(path),
            io::ErrorKind::PermissionDenied => Self::Denied(path),
            _ => Self::Other { path, source },
        }
    }
}

/// Connects to control.
pub(crate) async fn connect(socket: &Path) -> Result<AdminClient<Channel>> {
    // Long lists are long answers.
    Ok(AdminClient::new(channel(socket).await?).max_decoding_message_size(1 << 30))
}

/// Connects to one of control's sockets.
pub(crate) async fn channel(socket: &Path) -> Result<Channel> {
    // The connection is made here, where its error is still an `io::Error`, and handed over.
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| SocketError::new(socket, error))?;
    let stream = Mutex::new(Some(TokioIo::new(stream)));
    let connector = service_fn(move |_| {
        let stream = stream.lock().ok().and_then(|mut stream| stream.take());
        async move { stream.ok_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted)) }
    });
    Endpoint::from_static("http://control")
        .connect_with_connector(connector)
        .await
        .context("control does not answer at its socket")
}
