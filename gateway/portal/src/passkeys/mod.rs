//! Passkeys: the calls that the script and programs make, and the page to manage them.

mod api;
mod page;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use portcullis_control::{PasskeyError, PasskeyView, Passkeys};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

use crate::api::{Told, too_often};
use crate::site::Site;
use crate::view::rfc3339;

pub(crate) use page::passkeys_script;

/// Calls below `/api/v1`.
pub(crate) fn calls() -> OpenApiRouter<Site> {
    api::routes()
}

/// Pages, and the script that they load.
pub(crate) fn pages() -> Router<Site> {
    page::routes()
}

/// The passkeys, where there are any: where there are none, the request is refused with this.
struct On(Passkeys);

impl FromRequestParts<Site> for On {
    type Rejection = Told;

    async fn from_request_parts(_: &mut Parts, site: &Site) -> Result<Self, Told> {
        site.passkeys.clone().map(Self).ok_or_else(|| Told {
            status: StatusCode::NOT_FOUND,
            code: "passkeys_off",
            text: "passkeys are off: the portal has no name ([portal] name in its configuration)"
                .to_owned(),
            retry_after_s: None,
        })
    }
}

/// A passkey in JSON.
#[derive(Serialize, ToSchema)]
pub(crate) struct PasskeyJson {
    id: String,
    name: String,
    created_at: String,
    last_used_at: Option<String>,
    blocked: bool,
}

impl From<PasskeyView> for PasskeyJson {
    fn from(passkey: PasskeyView) -> Self {
        Self {
            id: passkey.id,
            name: passkey.name,
            created_at: rfc3339(passkey.created_ms),
            last_used_at: passkey.last_used_ms.map(rfc3339),
            blocked: passkey.blocked,
        }
    }
}

impl From<PasskeyError> for Told {
    fn from(error: PasskeyError) -> Self {
        let text = error.to_string();
        let (status, code) = match error {
            PasskeyError::Login(error) => return error.into(),
            PasskeyError::Busy { retry_after } => {
                return Self {
                    status: StatusCode::TOO_MANY_REQUESTS,
                    code: "delayed",
                    text,
                    retry_after_s: Some(retry_after.as_secs().max(1)),
                };
            }
            PasskeyError::Often { retry_after } => return too_often(text, retry_after),
            PasskeyError::LastWay { .. } => (StatusCode::CONFLICT, "last_way"),
            PasskeyError::NoPasskey => (StatusCode::NOT_FOUND, "no_passkey"),
            PasskeyError::NoSession => (StatusCode::UNAUTHORIZED, "login_required"),
            PasskeyError::Stale { .. } => (StatusCode::FORBIDDEN, "fresh_login_required"),
            PasskeyError::UnknownCeremony => (StatusCode::NOT_FOUND, "unknown_ceremony"),
            PasskeyError::NotVerified => (StatusCode::UNAUTHORIZED, "not_verified"),
            PasskeyError::Refused => (StatusCode::UNAUTHORIZED, "refused"),
            PasskeyError::Copied => (StatusCode::FORBIDDEN, "passkey_blocked"),
            PasskeyError::Taken => (StatusCode::CONFLICT, "taken"),
            PasskeyError::NotFirst => (StatusCode::CONFLICT, "not_first"),
            PasskeyError::TooMany(_) => (StatusCode::CONFLICT, "too_many"),
            PasskeyError::UnknownPasskey => (StatusCode::NOT_FOUND, "unknown_passkey"),
            PasskeyError::Invalid(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            PasskeyError::Begin(cause) => {
                tracing::error!(%cause, "a passkey could not be asked for");
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
