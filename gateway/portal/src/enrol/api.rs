//! Enrolment in JSON.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::routing::post;
use axum::{Extension, Json, Router};
use portcullis_control::{EnrolError, EnrolmentId, Enrolments, Secret};
use serde::{Deserialize, Serialize};

use crate::api::ApiError;
use crate::public::PublicAddr;

pub(super) fn routes() -> Router<Enrolments> {
    Router::new()
        .route("/", post(begin))
        .route("/password", post(password))
        .route("/totp", post(totp))
}

impl From<EnrolError> for ApiError {
    fn from(error: EnrolError) -> Self {
        Self::Told(error.into())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    token: String,
}

#[derive(Serialize)]
struct Begun {
    enrolment: String,
    user: String,
    next: &'static str,
    expires_in_s: u64,
}

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Password {
    enrolment: String,
    password: String,
}

#[derive(Serialize)]
struct Authenticator {
    next: &'static str,
    totp_uri: String,
    totp_secret: String,
}

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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Totp {
    enrolment: String,
    code: String,
}

#[derive(Serialize)]
struct Enrolled {
    user: String,
    recovery_codes: Vec<String>,
}

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
