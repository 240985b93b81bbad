//! Enrolment in JSON.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::{Extension, Json};
use portcullis_control::{
    CreationChallengeResponse, EnrolError, EnrolmentId, Enrolments, NewDevice,
    RegisterPublicKeyCredential, Secret,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{ApiError, Refusal};
use crate::own::api::Added;
use crate::passkeys::PasskeyJson;
use crate::public::PublicAddr;

pub(super) fn routes() -> OpenApiRouter<Enrolments> {
    OpenApiRouter::new()
        .routes(routes!(begin))
        .routes(routes!(password))
        .routes(routes!(totp))
        .routes(routes!(begin_passkey))
        .routes(routes!(finish_passkey))
        .routes(routes!(add_device))
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
    /// Names the account with what may still be added.
    enrolment: String,
    /// Whether a first passkey may be added, in a browser on a page of the portal's name.
    passkey: bool,
    /// The location at which a first device may be added; null: at none.
    device_at: Option<String>,
    expires_in_s: u64,
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
        enrolment: done.newcomer.id.as_str().to_owned(),
        passkey: done.newcomer.passkey,
        device_at: done.newcomer.device_at,
        expires_in_s: done.newcomer.expires_in.as_secs(),
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FirstPasskey {
    enrolment: String,
}

/// `publicKey`, for `navigator.credentials`.
#[derive(ToSchema)]
#[schema(as = FirstPasskeyOptions)]
#[expect(dead_code, reason = "describes what webauthn-rs serialises")]
struct OptionsJson {
    /// Binary values as base64url.
    #[schema(value_type = Object)]
    #[schema(rename = "publicKey")]
    public_key: (),
}

/// Begin the account's first passkey.
#[utoipa::path(post, path = "/api/v1/enrol/passkey/begin", tag = "enrolment", request_body = FirstPasskey,
    responses((status = 200, body = OptionsJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn begin_passkey(
    State(enrolments): State<Enrolments>,
    body: Result<Json<FirstPasskey>, JsonRejection>,
) -> Result<Json<CreationChallengeResponse>, ApiError> {
    let Json(first) = body?;
    let newcomer = EnrolmentId::from(first.enrolment);
    Ok(Json(enrolments.begin_passkey(&newcomer).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FirstCredential {
    enrolment: String,
    /// 1 to 64 characters on one line.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// What `navigator.credentials.create` made (WebAuthn Level 3, 5.1), binary values as base64url.
    #[schema(value_type = Object)]
    credential: RegisterPublicKeyCredential,
}

/// Add the first passkey.
#[utoipa::path(post, path = "/api/v1/enrol/passkey/finish", tag = "enrolment", request_body = FirstCredential,
    responses((status = 201, body = PasskeyJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn finish_passkey(
    State(enrolments): State<Enrolments>,
    Extension(PublicAddr(from)): Extension<PublicAddr>,
    body: Result<Json<FirstCredential>, JsonRejection>,
) -> Result<(StatusCode, Json<PasskeyJson>), ApiError> {
    let Json(first) = body?;
    let newcomer = EnrolmentId::from(first.enrolment);
    let added = enrolments
        .finish_passkey(from, &newcomer, &first.name, &first.credential)
        .await?;
    Ok((StatusCode::CREATED, Json(added.into())))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct FirstDevice {
    enrolment: String,
    /// 1 to 64 characters on one line.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// Base64. The private key stays where it was made.
    public_key: String,
    /// Removed after so many hours; left out: it stays.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 24)]
    hours: Option<u32>,
}

/// Add the first device, once.
#[utoipa::path(post, path = "/api/v1/enrol/device", tag = "enrolment", request_body = FirstDevice,
    responses((status = 201, body = Added), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn add_device(
    State(enrolments): State<Enrolments>,
    body: Result<Json<FirstDevice>, JsonRejection>,
) -> Result<(StatusCode, Json<Added>), ApiError> {
    let Json(first) = body?;
    let newcomer = EnrolmentId::from(first.enrolment);
    let new = NewDevice {
        name: &first.name,
        public_key: &first.public_key,
        hours: first.hours,
    };
    let added = enrolments.add_device(&newcomer, new).await?;
    Ok((StatusCode::CREATED, Json(added.into())))
}
