//! What users do with their own devices and sessions: calls for programs and the script, and pages.

mod api;
mod devices;
mod sessions;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use portcullis_control::{SelfService, SelfServiceError};
use std::convert::Infallible;
use utoipa_axum::router::OpenApiRouter;

use crate::api::Told;
use crate::site::Site;

/// Calls below `/api/v1`.
pub(crate) fn calls() -> OpenApiRouter<Site> {
    api::routes()
}

/// Pages, and the scripts that they load.
pub(crate) fn pages() -> Router<Site> {
    devices::routes().merge(sessions::routes())
}

/// What a signed-in user may do.
struct Own(SelfService);

impl FromRequestParts<Site> for Own {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, site: &Site) -> Result<Self, Infallible> {
        Ok(Self(site.logins.self_service()))
    }
}

impl From<SelfServiceError> for Told {
    fn from(error: SelfServiceError) -> Self {
        let text = error.to_string();
        let (status, code) = match error {
            SelfServiceError::Login(error) => return error.into(),
            SelfServiceError::NoSession => (StatusCode::UNAUTHORIZED, "login_required"),
            SelfServiceError::Stale { .. } => (StatusCode::FORBIDDEN, "fresh_login_required"),
            SelfServiceError::UnknownDevice => (StatusCode::NOT_FOUND, "no_such_device"),
            SelfServiceError::UnknownSession => (StatusCode::NOT_FOUND, "no_such_session"),
            SelfServiceError::TooMany(_) => (StatusCode::CONFLICT, "too_many"),
            SelfServiceError::Key => (StatusCode::BAD_REQUEST, "bad_key"),
            SelfServiceError::NoGateway => (StatusCode::SERVICE_UNAVAILABLE, "no_gateway"),
            SelfServiceError::Invalid(_) => (StatusCode::BAD_REQUEST, "bad_request"),
        };
        Self {
            status,
            code,
            text,
            retry_after_s: None,
        }
    }
}
