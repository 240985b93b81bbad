//! The calls.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::{Extension, Json};
use portcullis_control::{
    Challenge, LoginId, PasskeyChange, PublicKeyCredential, RegisterPublicKeyCredential, level_name,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{On, PasskeyJson};
use crate::api::{ApiError, Refusal};
use crate::guard::DeviceAddr;
use crate::site::Site;
use crate::view::SessionJson;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(begin_registration))
        .routes(routes!(finish_registration))
        .routes(routes!(rename, remove))
        .routes(routes!(begin_login))
        .routes(routes!(finish_login))
        .routes(routes!(begin_step))
        .routes(routes!(finish_step))
}

/// `publicKey`, for `navigator.credentials`, and what to give back with its answer.
#[derive(Serialize)]
struct Begun<T> {
    ceremony: String,
    expires_in_s: u64,
    #[serde(flatten)]
    options: T,
}

/// The same as the description has it.
#[derive(ToSchema)]
#[schema(as = Ceremony)]
#[expect(dead_code, reason = "describes what Begun is serialised to")]
struct BegunJson {
    /// To be given back with the answer.
    ceremony: String,
    expires_in_s: u64,
    /// For `navigator.credentials`, binary values as base64url.
    #[schema(value_type = Object)]
    #[schema(rename = "publicKey")]
    public_key: (),
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

#[derive(Serialize, ToSchema)]
#[schema(as = PasskeyList)]
struct List {
    passkeys: Vec<PasskeyJson>,
    /// The level of the fresh login that a change needs first; null when it needs none.
    change_needs: Option<&'static str>,
}

/// The user's passkeys.
#[utoipa::path(get, path = "/passkeys", tag = "passkeys",
    responses((status = 200, body = List), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
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

/// Begin to add a passkey. Needs a fresh login.
#[utoipa::path(post, path = "/passkeys/register/begin", tag = "passkeys",
    responses((status = 200, body = BegunJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn begin_registration(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<Json<Begun<impl Serialize>>, ApiError> {
    Ok(Json(Begun::from(passkeys.begin_registration(from).await?)))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Registration {
    ceremony: String,
    /// 1 to 64 characters on one line.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    /// What `navigator.credentials.create` made (WebAuthn Level 3, 5.1), binary values as base64url.
    #[schema(value_type = Object)]
    credential: RegisterPublicKeyCredential,
    /// End the user's sessions on other devices.
    #[serde(default)]
    end_other_sessions: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PasskeyChanged)]
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

/// Add the passkey.
#[utoipa::path(post, path = "/passkeys/register/finish", tag = "passkeys", request_body = Registration,
    responses((status = 201, body = Changed), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
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

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PasskeyRename)]
struct Rename {
    /// 1 to 64 characters on one line.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
}

/// Give a passkey another name.
#[utoipa::path(patch, path = "/passkeys/{id}", tag = "passkeys", params(("id" = String, Path)), request_body = Rename,
    responses((status = 200, body = PasskeyJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
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

/// Remove a passkey. Needs a fresh login.
#[utoipa::path(delete, path = "/passkeys/{id}", tag = "passkeys", params(("id" = String, Path), ("end_other_sessions" = Option<bool>, Query)),
    responses((status = 200, body = Changed), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn remove(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(id): Path<String>,
    removal: Result<Query<Removal>, QueryRejection>,
) -> Result<Json<Changed>, ApiError> {
    let Query(removal) = removal?;
    let removed = passkeys.remove(from, &id, removal.end_other_sessions);
    Ok(Json(removed.await?.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Assertion {
    ceremony: String,
    /// What `navigator.credentials.get` answered (WebAuthn Level 3, 5.1), binary values as base64url.
    #[schema(value_type = Object)]
    credential: PublicKeyCredential,
}

/// Begin a login with a passkey alone.
#[utoipa::path(post, path = "/login/passkey/begin", tag = "login",
    responses((status = 200, body = BegunJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn begin_login(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<Json<Begun<impl Serialize>>, ApiError> {
    Ok(Json(Begun::from(passkeys.begin_login(from, None).await?)))
}

/// Open the session.
#[utoipa::path(post, path = "/login/passkey/finish", tag = "login", request_body = Assertion,
    responses((status = 200, body = SessionJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
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

/// Go on with a passkey.
#[utoipa::path(post, path = "/login/{attempt}/passkey/begin", tag = "login", params(("attempt" = String, Path)),
    responses((status = 200, body = BegunJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn begin_step(
    On(passkeys): On,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
) -> Result<Json<Begun<impl Serialize>>, ApiError> {
    let attempt = LoginId::from(attempt);
    let begun = passkeys.begin_login(from, Some(&attempt)).await?;
    Ok(Json(Begun::from(begun)))
}

/// Open the session.
#[utoipa::path(post, path = "/login/{attempt}/passkey/finish", tag = "login", params(("attempt" = String, Path)), request_body = Assertion,
    responses((status = 200, body = SessionJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
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
