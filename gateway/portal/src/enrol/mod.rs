//! Enrolment: the pages behind a one-time link, and the calls for programs. The link's token stands
//! behind a fragment: opening the link sends it to nobody, and uses nothing up.

mod api;
mod page;

use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use portcullis_control::{EnrolError, Enrolments};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use crate::api::Told;

/// What the description says beside the calls.
#[derive(OpenApi)]
#[openapi(info(
    title = "Portcullis enrolment",
    description = "Give an account a password and an authenticator, by a one-time link, then a first passkey \
        and a first device. Served outside of the tunnel."
))]
struct Description;

/// The calls below `/api/v1/enrol`, and `openapi.json`, which describes them.
pub(crate) fn calls() -> Router<Enrolments> {
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .merge(api::routes())
        .split_for_parts();
    let answer = Json(description);
    router.route("/api/v1/enrol/openapi.json", get(async || answer))
}

/// Pages, and the script that they load.
pub(crate) fn pages() -> Router<Enrolments> {
    page::routes()
}

impl From<EnrolError> for Told {
    fn from(error: EnrolError) -> Self {
        let text = error.to_string();
        let (status, code) = match error {
            EnrolError::Over => (StatusCode::NOT_FOUND, "link_over"),
            EnrolError::Password(_) => (StatusCode::BAD_REQUEST, "weak_password"),
            EnrolError::PasswordFirst => (StatusCode::CONFLICT, "password_first"),
            EnrolError::Code => (StatusCode::UNAUTHORIZED, "refused"),
            EnrolError::TooLate => (StatusCode::NOT_FOUND, "too_late"),
            EnrolError::Passkey(error) => return error.into(),
            EnrolError::Device(error) => return error.into(),
            EnrolError::Internal(cause) => {
                tracing::error!(%cause, "an enrolment failed for reasons of our own");
                return Self {
                    status: StatusCode::INTERNAL_SERVER_ERROR,
                    code: "internal",
                    text: "the portal has a problem; it is logged there".to_owned(),
                    retry_after_s: None,
                };
            }
        };
        Self {
            status,
            code,
            text,
            retry_after_s: None,
        }
    }
}
