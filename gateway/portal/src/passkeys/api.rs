//! The calls.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::routing::{get, patch, post};
use axum::{Extension, Json, Router};
use portcullis_control::{
    Challenge, LoginId, PasskeyChange, PublicKeyCredential, RegisterPublicKeyCredential, level_name,
};
use serde::{Deserialize, Serialize};

use super::{On, PasskeyJson};
use crate::api::ApiError;
use crate::guard::DeviceAddr;
use crate::site::Site;
use crate::view::SessionJson;

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/passkeys", get(list))
        .route("/passkeys/register/begin", post(begin_registration))
        .route("/passkeys/register/finish", post(finish_registration))
        .route("/passkeys/{id}", patch(rename).delete(remove))
        .route("/login/passkey/begin", post(begin_login))
        .route("/login/passkey/finish", post(finish_login))
        .route("/login/{attempt}/passkey/begin", post(begin_step))
        .route("/login/{attempt}/passkey/finish", post(finish_step))
}

/// `publicKey`, for `navigator.credentials`, and what to give back with its answer.
#[derive(Serialize)]
struct Begun<T> {
    ceremony: String,
    expires_in_s: u64,
    #[serde(flatten)]
    options: T,
}

impl<T> From<Challenge<T>> for Begun<T> {
    fn from(challenge: Challenge<T>) -> Self {
        Self {
            ceremony: challenge.ceremony.as_str().to_owned(),
            expires_in_s: challenge.expires_in.as_secs(),
            options: challenge.options,
        }
    }
}

#[derive(Serialize)]
struct List {
    passkeys: Vec<PasskeyJson>,
    /// The level of the fresh login that a change needs first; null when it needs none.
    change_needs: Option<&'static str>,
}

async fn list(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<Json<List>, ApiError> {
    let list = passkeys.list(from).await?;
    Ok(Json(List {
        passkeys: list.passkeys.into_iter().map(Into::into).collect(),
        change_needs: list.change_needs.map(level_name),
    }))
}

async fn begin_registration(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<Json<Begun<impl Serialize>>, ApiError> {
    Ok(Json(Begun::from(passkeys.begin_registration(from).await?)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    ceremony: String,
    name: String,
    credential: RegisterPublicKeyCredential,
    /// End the user's sessions on other devices.
    #[serde(default)]
    end_other_sessions: bool,
}

#[derive(Serialize)]
struct Changed {
    passkey: PasskeyJson,
    /// Sessions on other devices that were ended with it.
    ended_sessions: usize,
    /// Not every gateway has acknowledged their end yet.
    pending: bool,
}

impl From<PasskeyChange> for Changed {
    fn from(change: PasskeyChange) -> Self {
        Self {
            passkey: change.passkey.into(),
            ended_sessions: change.ended,
            pending: change.pending,
        }
    }
}

async fn finish_registration(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    body: Result<Json<Registration>, JsonRejection>,
) -> Result<(StatusCode, Json<Changed>), ApiError> {
    let Json(registration) = body?;
    let added = passkeys
        .finish_registration(
            from,
            &registration.ceremony.into(),
            &registration.name,
            &registration.credential,
            registration.end_other_sessions,
        )
        .await?;
    Ok((StatusCode::CREATED, Json(added.into())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rename {
    name: String,
}

async fn rename(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(id): Path<String>,
    body: Result<Json<Rename>, JsonRejection>,
) -> Result<Json<PasskeyJson>, ApiError> {
    let Json(rename) = body?;
    Ok(Json(passkeys.rename(from, &id, &rename.name).await?.into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Removal {
    #[serde(default)]
    end_other_sessions: bool,
}

async fn remove(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(id): Path<String>,
    Query(removal): Query<Removal>,
) -> Result<Json<Changed>, ApiError> {
    let removed = passkeys.remove(from, &id, removal.end_other_sessions);
    Ok(Json(removed.await?.into()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Assertion {
    ceremony: String,
    credential: PublicKeyCredential,
}

async fn begin_login(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<Json<Begun<impl Serialize>>, ApiError> {
    Ok(Json(Begun::from(passkeys.begin_login(from, None).await?)))
}

async fn finish_login(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    body: Result<Json<Assertion>, JsonRejection>,
) -> Result<Json<SessionJson>, ApiError> {
    let Json(assertion) = body?;
    let ceremony = assertion.ceremony.into();
    let session = passkeys.finish_login(from, None, &ceremony, &assertion.credential);
    Ok(Json(session.await?.into()))
}

async fn begin_step(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
) -> Result<Json<Begun<impl Serialize>>, ApiError> {
    let attempt = LoginId::from(attempt);
    let begun = passkeys.begin_login(from, Some(&attempt)).await?;
    Ok(Json(Begun::from(begun)))
}

async fn finish_step(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
    body: Result<Json<Assertion>, JsonRejection>,
) -> Result<Json<SessionJson>, ApiError> {
    let Json(assertion) = body?;
    let (attempt, ceremony) = (LoginId::from(attempt), assertion.ceremony.into());
    let session = passkeys.finish_login(from, Some(&attempt), &ceremony, &assertion.credential);
    Ok(Json(session.await?.into()))
}
