//! A token for a certificate.

use std::sync::Arc;

use portcullis_proto::v1::enrollment_server::Enrollment;
use portcullis_proto::v1::{EnrollRequest, EnrollResponse};
use tonic::{Request, Response, Status};

use crate::core::Core;

/// The one service that answers without a client certificate.
pub(super) struct Enroller(Arc<Core>);

impl Enroller {
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self(core)
    }
}

#[tonic::async_trait]
impl Enrollment for Enroller {
    async fn enroll(
        &self,
        request: Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let from = request.remote_addr();
        let request = request.into_inner();
        let enrolled = match self.0.enroll(&request.token, &request.csr_der).await {
            Ok(enrolled) => enrolled,
            Err(error) => {
                tracing::warn!(?from, %error, "enrolment refused");
                return Err(error.into());
            }
        };
        tracing::info!(gateway = enrolled.gateway, ?from, "gateway enrolled");
        Ok(Response::new(EnrollResponse {
            certificate_der: enrolled.certificate_der,
            ca_der: self.0.ca.certificate().to_vec(),
            gateway: enrolled.gateway,
            location: enrolled.location,
        }))
    }
}
