//! Enrolment: the pages behind a one-time link, and the calls for programs. The link's token stands
//! behind a fragment: opening the link sends it to nobody, and uses nothing up.

mod api;
mod page;

use axum::Router;
use axum::http::StatusCode;
use portcullis_control::{EnrolError, Enrolments};

use crate::api::Told;

/// Calls below `/api/v1/enrol`.
pub(crate) fn calls() -> Router<Enrolments> {
    api::routes()
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
