//! A token for a certificate.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_proto::v1::enrollment_server::Enrollment;
use portcullis_proto::v1::{EnrollRequest, EnrollResponse};
use tokio::sync::Semaphore;
use tokio::time::{Duration, Instant};
use tonic::transport::server::TlsConnectInfo;
use tonic::{Request, Response, Status};

use super::incoming::ConnectInfo;
use crate::ca::CaError;
use crate::core::Core;
use crate::error::OperationError;
use crate::ops::gateways::TOKEN_REFUSED;

/// Enrolments at once.
const AT_ONCE: usize = 4;
/// Enrolments in one [`WINDOW`], of everybody together.
const IN_WINDOW: u32 = 60;
const WINDOW: Duration = Duration::from_secs(10);

/// The one service that answers without a client certificate.
pub(super) struct Enroller {
    core: Arc<Core>,
    places: Semaphore,
    /// When the window began, and calls in it.
    window: Mutex<Option<(Instant, u32)>>,
}

impl Enroller {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            places: Semaphore::new(AT_ONCE),
            window: Mutex::default(),
        }
    }

    /// Counts a call; false when there are too many.
    fn admits(&self, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let (began, calls) = match *window {
            Some((began, calls)) if now < began + WINDOW => (began, calls),
            _ => (now, 0),
        };
        *window = Some((began, calls.saturating_add(1)));
        calls < IN_WINDOW
    }
}

#[tonic::async_trait]
impl Enrollment for Enroller {
    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let busy = || Status::resource_exhausted("too many enrolments at once: try again soon");
        let from = remote_address(&request);
        if !self.admits(Instant::now()) {
            return Err(busy());
        }
        let _place = self.places.try_acquire().map_err(|_| busy())?;
        let request = request.into_inner();
        let enrolled = match self.core.enroll(&request.token, &request.csr_der).await {
            Ok(enrolled) => enrolled,
            Err(error) => {
                tracing::warn!(?from, %error, "enrolment refused");
                return Err(told(&error));
            }
        };
        tracing::info!(gateway = enrolled.gateway, ?from, "gateway enrolled");
        Ok(Response::new(EnrollResponse {
            certificate_der: enrolled.certificate_der,
            ca_der: self.core.ca.certificate().to_vec(),
            gateway: enrolled.gateway,
            location: enrolled.location,
        }))
    }
}

/// What a caller who may be anybody is told; the log says more.
fn told(error: &OperationError) -> Status {
    match error {
        OperationError::Precondition(_) => Status::failed_precondition(TOKEN_REFUSED),
        OperationError::Ca(CaError::Request(_)) => {
            Status::invalid_argument("the certificate signing request is not valid")
        }
        _ => Status::unavailable("enrolment is not possible now; control's log says why"),
    }
}

fn remote_address<T>(request: &Request<T>) -> Option<SocketAddr> {
    let connection = request.extensions().get::<TlsConnectInfo<ConnectInfo>>()?;
    connection.get_ref().tcp.remote_addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    #[test]
    fn strangers_learn_nothing_of_the_store() {
        let error = StoreError::Unreachable {
            place: "postgres db.internal".into(),
            reason: "no route".into(),
        };
        let status = told(&error.into());
        assert!(!status.message().contains("internal"), "{status}");
        let status = told(&OperationError::Precondition("gateway gw7 is …".into()));
        assert_eq!(status.message(), TOKEN_REFUSED);
    }
}
