//! The calls on one's own factors.

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::{Extension, Json};
use portcullis_control::{LinkedProvider, Secret, SetSince, level_name};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Own;
use super::api::Ended;
use crate::api::{ApiError, Refusal};
use crate::guard::DeviceAddr;
use crate::site::Site;
use crate::view::rfc3339;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(factors))
        .routes(routes!(password))
        .routes(routes!(begin_totp))
        .routes(routes!(confirm_totp))
        .routes(routes!(recovery_codes))
        .routes(routes!(unlink))
}

/// A factor that there is.
#[derive(Serialize, ToSchema)]
#[schema(as = FactorSet)]
struct Set {
    /// Null: by a version that did not note it.
    set_at: Option<String>,
}

impl From<SetSince> for Set {
    fn from(since: SetSince) -> Self {
        Self {
            set_at: since.at_ms.map(rfc3339),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Linked {
    name: String,
    linked_at: String,
}

impl From<LinkedProvider> for Linked {
    fn from(provider: LinkedProvider) -> Self {
        Self {
            name: provider.name,
            linked_at: rfc3339(provider.linked_ms),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Factors {
    /// Null: there is none.
    password: Option<Set>,
    /// Null: there is none.
    totp: Option<Set>,
    recovery_codes_left: u64,
    /// Those that are not blocked.
    passkeys: usize,
    /// Accounts at providers of single sign-on.
    providers: Vec<Linked>,
    /// The level of the fresh login that a change needs first; null when it needs none.
    change_needs: Option<&'static str>,
}

/// The user's factors.
#[utoipa::path(get, path = "/factors", tag = "factors",
    responses((status = 200, body = Factors), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn factors(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<Json<Factors>, ApiError> {
    let factors = own.factors(from).await?;
    Ok(Json(Factors {
        password: factors.password.map(Into::into),
        totp: factors.totp.map(Into::into),
        recovery_codes_left: factors.recovery_codes,
        passkeys: factors.passkeys,
        providers: factors.providers.into_iter().map(Into::into).collect(),
        change_needs: factors.change_needs.map(level_name),
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    /// 8 to 256 characters.
    #[schema(min_length = 8, max_length = 256)]
    password: String,
    /// End the user's sessions on other devices.
    #[serde(default)]
    end_other_sessions: bool,
}

/// Change the password. Needs a fresh login.
#[utoipa::path(post, path = "/factors/password", tag = "factors", request_body = NewPassword,
    responses((status = 200, body = Ended), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn password(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    body: Result<Json<NewPassword>, JsonRejection>,
) -> Result<Json<Ended>, ApiError> {
    let Json(new) = body?;
    let password = Secret::from(new.password);
    let ended = own.change_password(from, &password, new.end_other_sessions);
    Ok(Json(ended.await?.into()))
}

/// An authenticator to be.
#[derive(Serialize, ToSchema)]
struct Setup {
    /// For a QR code.
    totp_uri: String,
    /// The same secret in base32.
    totp_secret: String,
    /// A code has to be given by then.
    expires_in_s: u64,
}

/// Begin to set up an authenticator: the one before stays until a code of the new one is given. Needs a
/// fresh login.
#[utoipa::path(post, path = "/factors/totp", tag = "factors",
    responses((status = 201, body = inline(Setup)), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn begin_totp(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<(StatusCode, Json<Setup>), ApiError> {
    let setup = own.begin_totp(from).await?;
    let answer = Setup {
        totp_uri: setup.authenticator.uri.expose().to_owned(),
        totp_secret: setup.authenticator.secret.expose().to_owned(),
        expires_in_s: setup.expires_in.as_secs(),
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    /// Of the new authenticator.
    code: String,
    /// End the user's sessions on other devices.
    #[serde(default)]
    end_other_sessions: bool,
}

/// Take the new authenticator for the account's.
#[utoipa::path(post, path = "/factors/totp/confirm", tag = "factors", request_body = Confirmation,
    responses((status = 200, body = Ended), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn confirm_totp(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    body: Result<Json<Confirmation>, JsonRejection>,
) -> Result<Json<Ended>, ApiError> {
    let Json(confirmation) = body?;
    let end_others = confirmation.end_other_sessions;
    let ended = own.confirm_totp(from, &confirmation.code, end_others);
    Ok(Json(ended.await?.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Wish {
    /// End the user's sessions on other devices.
    #[serde(default)]
    end_other_sessions: bool,
}

#[derive(Serialize, ToSchema)]
struct RecoveryCodes {
    /// Shown this once.
    recovery_codes: Vec<String>,
    ended_sessions: usize,
    /// Not every gateway has acknowledged their end yet.
    pending: bool,
}

/// New recovery codes; all earlier ones are void. Needs a fresh login.
#[utoipa::path(post, path = "/factors/recovery-codes", tag = "factors", request_body = inline(Wish),
    responses((status = 201, body = RecoveryCodes), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn recovery_codes(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    body: Result<Json<Wish>, JsonRejection>,
) -> Result<(StatusCode, Json<RecoveryCodes>), ApiError> {
    let Json(wish) = body?;
    let new = own.new_recovery_codes(from, wish.end_other_sessions);
    let new = new.await?;
    let codes = new.codes.iter().map(|code| code.expose().to_owned());
    let answer = RecoveryCodes {
        recovery_codes: codes.collect(),
        ended_sessions: new.ended.ended,
        pending: new.ended.pending,
    };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Unlink the account at a provider, and end the sessions that it has opened. Needs a fresh login.
#[utoipa::path(delete, path = "/factors/sso/{provider}", tag = "factors",
    params(("provider" = String, Path), ("end_other_sessions" = Option<bool>, Query)),
    responses((status = 200, body = Ended), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn unlink(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(provider): Path<String>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Json<Ended>, ApiError> {
    let Query(wish) = wish?;
    let ended = own.unlink_provider(from, &provider, wish.end_other_sessions);
    Ok(Json(ended.await?.into()))
}
