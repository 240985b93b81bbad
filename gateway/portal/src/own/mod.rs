//! What users do with their own devices, sessions and factors: calls for programs and the script, and pages.

pub(crate) mod api;
mod devices;
mod factors;
mod factors_api;
mod sessions;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use portcullis_control::{SelfService, SelfServiceError};
use std::convert::Infallible;
use utoipa_axum::router::OpenApiRouter;

use crate::api::{Told, too_often};
use crate::site::Site;

pub(crate) use devices::{DEVICES, QR, script};
pub(crate) use sessions::session_script;

/// Calls below `/api/v1`.
pub(crate) fn calls() -> OpenApiRouter<Site> {
    api::routes().merge(factors_api::routes())
}

/// Pages, and the scripts that they load.
pub(crate) fn pages() -> Router<Site> {
    devices::routes()
        .merge(sessions::routes())
        .merge(factors::routes())
}

/// What a signed-in user may do.
pub(crate) struct Own(pub(crate) SelfService);

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
            SelfServiceError::Often { retry_after } => return too_often(text, retry_after),
            SelfServiceError::Password(_) => (StatusCode::BAD_REQUEST, "weak_password"),
            SelfServiceError::Code => (StatusCode::UNAUTHORIZED, "refused"),
            SelfServiceError::Invitation => (StatusCode::NOT_FOUND, "no_invitation"),
            SelfServiceError::NoSetup => (StatusCode::CONFLICT, "no_setup"),
            SelfServiceError::UnknownProvider => (StatusCode::NOT_FOUND, "not_linked"),
            SelfServiceError::LastWay { .. } => (StatusCode::CONFLICT, "last_way"),
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
