//! Enrolment in JSON.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::{Extension, Json};
use portcullis_control::{EnrolError, EnrolmentId, Enrolments, Secret};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{ApiError, Refusal};
use crate::public::PublicAddr;

pub(super) fn routes() -> OpenApiRouter<Enrolments> {
    OpenApiRouter::new()
        .routes(routes!(begin))
        .routes(routes!(password))
        .routes(routes!(totp))
}

impl From<EnrolError> for ApiError {
    fn from(error: EnrolError) -> Self {
        Self::Told(error.into())
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Begin {
    /// What stands behind the link's `#`.
    token: String,
}

#[derive(Serialize, ToSchema)]
struct Begun {
    /// To be given back with each further step.
    enrolment: String,
    user: String,
    next: &'static str,
    expires_in_s: u64,
}

/// Begin with a one-time link's token. The link stays good.
#[utoipa::path(post, path = "/api/v1/enrol", tag = "enrolment", request_body = Begin,
    responses((status = 200, body = Begun), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn begin(
    State(enrolments): State<Enrolments>,
    Extension(PublicAddr(from)): Extension<PublicAddr>,
    body: Result<Json<Begin>, JsonRejection>,
) -> Result<Json<Begun>, ApiError> {
    let Json(begin) = body?;
    let step = enrolments.begin(from, &Secret::from(begin.token)).await?;
    Ok(Json(Begun {
        enrolment: step.enrolment.as_str().to_owned(),
        user: step.user,
        next: "password",
        expires_in_s: step.expires_in.as_secs(),
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Password {
    enrolment: String,
    /// 8 to 256 characters.
    #[schema(min_length = 8, max_length = 256)]
    password: String,
}

#[derive(Serialize, ToSchema)]
struct Authenticator {
    next: &'static str,
    totp_uri: String,
    totp_secret: String,
}

/// Choose the password; answers the authenticator that is to be set up next.
#[utoipa::path(post, path = "/api/v1/enrol/password", tag = "enrolment", request_body = Password,
    responses((status = 200, body = Authenticator), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn password(
    State(enrolments): State<Enrolments>,
    body: Result<Json<Password>, JsonRejection>,
) -> Result<Json<Authenticator>, ApiError> {
    let Json(password) = body?;
    let enrolment = EnrolmentId::from(password.enrolment);
    let password = Secret::from(password.password);
    let new = enrolments.password(&enrolment, &password).await?;
    Ok(Json(Authenticator {
        next: "totp",
        totp_uri: new.uri.expose().to_owned(),
        totp_secret: new.secret.expose().to_owned(),
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Totp {
    enrolment: String,
    code: String,
}

#[derive(Serialize, ToSchema)]
struct Enrolled {
    user: String,
    /// Shown this once.
    recovery_codes: Vec<String>,
}

/// The last step: a code of the new authenticator. Uses the link up.
#[utoipa::path(post, path = "/api/v1/enrol/totp", tag = "enrolment", request_body = Totp,
    responses((status = 200, body = Enrolled), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn totp(
    State(enrolments): State<Enrolments>,
    Extension(PublicAddr(from)): Extension<PublicAddr>,
    body: Result<Json<Totp>, JsonRejection>,
) -> Result<Json<Enrolled>, ApiError> {
    let Json(totp) = body?;
    let enrolment = EnrolmentId::from(totp.enrolment);
    let done = enrolments.confirm(from, &enrolment, &totp.code).await?;
    let codes = done.recovery_codes.iter();
    Ok(Json(Enrolled {
        user: done.user,
        recovery_codes: codes.map(|code| code.expose().to_owned()).collect(),
    }))
}
