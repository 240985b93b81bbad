//! The administrators' Unix socket. Its mode keeps others out; the credentials of every
//! connection are checked all the same.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use portcullis_proto::v1::admin_server::AdminServer;
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use super::AdminService;
use crate::core::Core;
use crate::error::ControlError;

/// A policy file, and room around it.
const MAX_MESSAGE: usize = 32 << 20;

/// Serves administrators until `shutdown` resolves, then removes the socket.
pub(crate) async fn serve(
    core: Arc<Core>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ControlError> {
    let path = core.config.admin_socket.clone();
    let listener = bind(&path, 0o600).await?;
    let incoming = UnixListenerStream::new(listener).filter(|connection| match connection {
        Ok(connection) => trusted(connection),
        Err(_) => true,
    });
    let served = Server::builder()
        .add_service(AdminServer::new(AdminService(core)).max_decoding_message_size(MAX_MESSAGE))
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await;
    let _ = fs::remove_file(&path);
    served.map_err(|source| ControlError::Serve {
        what: "administrators",
        source,
    })
}

/// Takes a socket's place, also from one that nobody listens at any more.
pub(crate) async fn bind(path: &Path, mode: u32) -> Result<UnixListener, ControlError> {
    let failed = |call| {
        move |source| ControlError::Socket {
            call,
            path: path.into(),
            source,
        }
    };
    if let Some(directory) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(failed("make a place for"))?;
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("look at")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            let error = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(failed("put a socket in place of the file")(error));
        }
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => return Err(ControlError::SocketInUse(path.into())),
            // Nobody listens any more: left behind by a process that was killed.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed("remove the stale"))?;
            }
            Err(error) => return Err(failed("probe")(error)),
        },
    }
    let listener = UnixListener::bind(path).map_err(failed("bind"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed("protect"))?;
    Ok(listener)
}

/// Root, or the user that control runs as.
fn trusted(connection: &UnixStream) -> bool {
    match connection.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw() => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "refused a connection to the admin socket");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "refused a connection without credentials to the admin socket");
            false
        }
    }
}
