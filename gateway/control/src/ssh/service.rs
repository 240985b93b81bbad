//! The socket that local users call.

use std::fs;
use std::future::Future;
use std::path::Path;

use nix::unistd::{Uid, User};
use portcullis_proto::v1;
use portcullis_proto::v1::ssh_server::{Ssh, SshServer};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status};

use super::{HeldStream, SshSessions};
use crate::error::ControlError;

/// A device's name, an address and an id.
const MAX_MESSAGE: usize = 4096;

/// Serves local users until `shutdown` resolves, then removes the socket.
pub(crate) async fn serve(
    sessions: SshSessions,
    path: &Path,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ControlError> {
    // Everybody may connect: whoever does is known.
    let incoming = UnixListenerStream::new(crate::admin::bind(path, 0o666).await?);
    let stopping = sessions.clone();
    let served = Server::builder()
        .concurrency_limit_per_connection(4)
        .add_service(SshServer::new(sessions).max_decoding_message_size(MAX_MESSAGE))
        .serve_with_incoming_shutdown(incoming, async move {
            shutdown.await;
            // First of all: connections that break from now on are no holder's doing.
            stopping.stop();
        })
        .await;
    let _ = fs::remove_file(path);
    served.map_err(|source| ControlError::Serve {
        what: "SSH sessions",
        source,
    })
}

#[tonic::async_trait]
impl Ssh for SshSessions {
    type HoldStream = HeldStream;

    async fn hold(
        &self,
        request: Request<v1::HoldRequest>,
    ) -> Result<Response<Self::HoldStream>, Status> {
        let peer = request.extensions().get::<UdsConnectInfo>();
        let uid = peer.and_then(|peer| peer.peer_cred).map(|peer| peer.uid());
        let uid = uid.ok_or_else(|| Status::permission_denied("the caller is not known"))?;
        if uid == 0 {
            let text = "root has no account at Portcullis: call as the user whose session it is";
            return Err(Status::permission_denied(text));
        }
        // A look at the user database may wait for a server.
        let user = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)));
        let user = user
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        let user = user.ok().flatten();
        let user = user.ok_or_else(|| Status::permission_denied("the caller has no name"))?;
        let stream = SshSessions::hold(self, &user.name, request.get_ref()).await?;
        Ok(Response::new(stream))
    }
}
