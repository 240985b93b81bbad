//! Which gateway a verified client certificate belongs to.

use subtle::ConstantTimeEq as _;
use tonic::transport::server::TlsConnectInfo;
use tonic::{Request, Status};

use super::incoming::ConnectInfo;
use crate::ca::{certificate_hash, subject};
use crate::core::Core;
use crate::error::OperationError;
use crate::store::gateways::{self, GatewayRow};

/// The gateway behind a request. TLS has verified that our CA signed the certificate; here it is
/// compared with the store, so that removed gateways and replaced certificates are refused.
pub(super) async fn gateway<T>(core: &Core, request: &Request<T>) -> Result<GatewayRow, Status> {
    let refused =
        || Status::unauthenticated("a client certificate of an enrolled gateway is needed");
    let connection = request.extensions().get::<TlsConnectInfo<ConnectInfo>>();
    let connection = connection.ok_or_else(refused)?;
    let certificates = connection.peer_certs().ok_or_else(refused)?;
    let certificate = certificates.first().ok_or_else(refused)?;
    let id = subject(certificate).ok_or_else(refused)?;
    let gateway = find(core, &id).await?.filter(|gateway| gateway.id == id);
    let gateway =
        gateway.ok_or_else(|| Status::permission_denied("this gateway has been removed"))?;
    let hash = certificate_hash(certificate);
    let enrolled = gateway.certificate.as_deref().unwrap_or_default();
    if bool::from(hash.as_bytes().ct_eq(enrolled.as_bytes())) {
        connection.get_ref().welcome();
        return Ok(gateway);
    }
    Err(Status::permission_denied(
        "this certificate was replaced by a newer enrolment",
    ))
}

async fn find(core: &Core, id: &str) -> Result<Option<GatewayRow>, OperationError> {
    let mut read = core.store.read().await?;
    let gateway = gateways::find(read.sql(), id).await?;
    read.end().await?;
    Ok(gateway)
}
