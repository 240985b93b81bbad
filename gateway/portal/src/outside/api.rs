//! The same in JSON. What names a login is in a cookie here too.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::response::{AppendHeaders, IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use portcullis_control::{
    LoginError, Outside, OutsideStep, PublicKeyCredential, RequestChallengeResponse, Secret,
};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{
    Asking, NO_DEVICE, NO_PHONE, WRONG_CODE, WRONG_PASSWORD, login_cookie, opened_cookies, told,
};
use crate::api::{ApiError, Code, Ended, Login, Refusal};
use crate::cookie::{self, SESSION};
use crate::phone::{Phoned, PromptJson};
use crate::view::SessionJson;

#[derive(OpenApi)]
#[openapi(info(
    title = "Portcullis portal, outside of the tunnel",
    description = "Sign in for one of your devices, and see and end the session that this opened. Who asks is told by \
        the cookies that the calls set: keep them."
))]
struct Description;

pub(super) fn routes() -> Router<Outside> {
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(login))
        .routes(routes!(totp))
        .routes(routes!(recovery))
        .routes(routes!(ask_phone))
        .routes(routes!(finish_phone))
        .routes(routes!(begin_passkey))
        .routes(routes!(finish_passkey))
        .routes(routes!(device))
        .routes(routes!(session, end))
        .split_for_parts();
    let answer = Json(description);
    router.route("/api/v1/openapi.json", get(async || answer))
}

/// What a step of a login is answered.
#[derive(Serialize, ToSchema)]
#[schema(as = OutsideStep)]
#[serde(untagged)]
enum Step {
    /// Any one of these.
    Factors {
        factors: Vec<String>,
        expires_in_s: u64,
    },
    /// The devices that a session may be opened for.
    Devices { devices: Vec<Device> },
}

#[derive(Serialize, ToSchema)]
#[schema(as = OutsideDevice)]
struct Device {
    id: String,
    name: String,
    location: String,
}

impl From<OutsideStep> for Step {
    fn from(step: OutsideStep) -> Self {
        match step {
            OutsideStep::Wants {
                factors,
                expires_in,
            } => Self::Factors {
                factors: factors.names(),
                expires_in_s: expires_in.as_secs(),
            },
            OutsideStep::Choose(choices) => {
                let device = |choice: portcullis_control::Choice| Device {
                    id: choice.id,
                    name: choice.device,
                    location: choice.location,
                };
                let devices = choices.into_iter().map(device).collect();
                Self::Devices { devices }
            }
        }
    }
}

/// Begin with name and password. Sets the cookie of the login.
#[utoipa::path(post, path = "/api/v1/login", tag = "login", request_body = Login,
    responses((status = 200, body = Step), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn login(
    State(outside): State<Outside>,
    asking: Asking,
    body: Result<Json<Login>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(login) = body?;
    let password = Secret::from(login.password);
    let begun = outside.begin(asking.stranger()?, &login.username, &password);
    let (browser, step) = begun
        .await
        .map_err(|error| refused(error, WRONG_PASSWORD))?;
    let given = [login_cookie(&browser, &step)];
    Ok((given, Json(Step::from(step))).into_response())
}

/// Go on with the authenticator app's code.
#[utoipa::path(post, path = "/api/v1/login/totp", tag = "login", request_body = Code,
    responses((status = 200, body = Step), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn totp(
    State(outside): State<Outside>,
    asking: Asking,
    body: Result<Json<Code>, JsonRejection>,
) -> Result<Json<Step>, ApiError> {
    let Json(totp) = body?;
    let (stranger, browser) = asking.who()?;
    let step = outside.totp(stranger, browser, totp.code.trim()).await;
    Ok(Json(
        step.map_err(|error| refused(error, WRONG_CODE))?.into(),
    ))
}

/// Go on with a recovery code.
#[utoipa::path(post, path = "/api/v1/login/recovery", tag = "login", request_body = Code,
    responses((status = 200, body = Step), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn recovery(
    State(outside): State<Outside>,
    asking: Asking,
    body: Result<Json<Code>, JsonRejection>,
) -> Result<Json<Step>, ApiError> {
    let Json(recovery) = body?;
    let (stranger, browser) = asking.who()?;
    let step = outside.recovery(stranger, browser, &recovery.code).await;
    Ok(Json(
        step.map_err(|error| refused(error, WRONG_CODE))?.into(),
    ))
}

/// `publicKey`, for `navigator.credentials`.
#[derive(ToSchema)]
#[schema(as = OutsidePasskeyOptions)]
#[expect(dead_code, reason = "describes what webauthn-rs serialises")]
struct OptionsJson {
    /// Binary values as base64url.
    #[schema(value_type = Object)]
    #[schema(rename = "publicKey")]
    public_key: (),
}

/// Begin to go on with a passkey, in a browser on a page of the portal's name.
#[utoipa::path(post, path = "/api/v1/login/passkey/begin", tag = "login",
    responses((status = 200, body = OptionsJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn begin_passkey(
    State(outside): State<Outside>,
    asking: Asking,
) -> Result<Json<RequestChallengeResponse>, ApiError> {
    Ok(Json(outside.begin_passkey(asking.login()?).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OutsideAssertion)]
struct Assertion {
    /// What `navigator.credentials.get` answered (WebAuthn Level 3, 5.1), binary values as base64url.
    #[schema(value_type = Object)]
    credential: PublicKeyCredential,
}

/// Go on with a passkey.
#[utoipa::path(post, path = "/api/v1/login/passkey/finish", tag = "login", request_body = Assertion,
    responses((status = 200, body = Step), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn finish_passkey(
    State(outside): State<Outside>,
    asking: Asking,
    body: Result<Json<Assertion>, JsonRejection>,
) -> Result<Json<Step>, ApiError> {
    let Json(assertion) = body?;
    let (stranger, browser) = asking.who()?;
    let step = outside.finish_passkey(stranger, browser, &assertion.credential);
    Ok(Json(step.await?.into()))
}

/// Ask the user's phone to approve. What was asked before by this login is void.
#[utoipa::path(post, path = "/api/v1/login/phone", tag = "login",
    responses((status = 200, body = PromptJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn ask_phone(
    State(outside): State<Outside>,
    asking: Asking,
) -> Result<Json<PromptJson>, ApiError> {
    let (stranger, browser) = asking.who()?;
    let prompt = outside.ask_phone(stranger, browser).await;
    let prompt = prompt.map_err(|error| refused(error, NO_PHONE))?;
    Ok(Json(prompt.into()))
}

/// Go on with what the phone has approved, from the network that asked it.
#[utoipa::path(post, path = "/api/v1/login/phone/finish", tag = "login",
    responses((status = 200, body = Phoned<Step>), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn finish_phone(
    State(outside): State<Outside>,
    asking: Asking,
) -> Result<Json<Phoned<Step>>, ApiError> {
    let (stranger, browser) = asking.who()?;
    let step = outside.finish_phone(stranger, browser).await;
    let step = step.map_err(|error| refused(error, NO_PHONE))?;
    Ok(Json(step.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Chosen {
    /// Of one that was offered.
    device: String,
}

/// Open the session of a device. Sets the cookie of the session, in place of the login's.
#[utoipa::path(post, path = "/api/v1/login/device", tag = "login", request_body = Chosen,
    responses((status = 200, body = SessionJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn device(
    State(outside): State<Outside>,
    asking: Asking,
    body: Result<Json<Chosen>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(chosen) = body?;
    let (stranger, browser) = asking.who()?;
    let opened = outside.choose(stranger, browser, &chosen.device).await;
    let opened = opened.map_err(|error| refused(error, NO_DEVICE))?;
    let cookies = AppendHeaders(opened_cookies(&opened));
    Ok((cookies, Json(SessionJson::from(opened.session))).into_response())
}

/// The session that was opened with this cookie.
#[utoipa::path(get, path = "/api/v1/session", tag = "session",
    responses((status = 200, body = SessionJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn session(
    State(outside): State<Outside>,
    asking: Asking,
) -> Result<Json<SessionJson>, ApiError> {
    let browser = asking.session.ok_or(ApiError::NoSession)?;
    let session = outside.session(&browser).await?;
    Ok(Json(session.ok_or(ApiError::NoSession)?.into()))
}

/// End it.
#[utoipa::path(delete, path = "/api/v1/session", tag = "session",
    responses((status = 200, body = Ended), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn end(State(outside): State<Outside>, asking: Asking) -> Result<Response, ApiError> {
    let browser = asking.session.ok_or(ApiError::NoSession)?;
    let ended = outside.end(&browser).await?.ok_or(ApiError::NoSession)?;
    let taken = [cookie::take(SESSION)];
    Ok((taken, Json(Ended::from(ended))).into_response())
}

fn refused(error: LoginError, text: &str) -> ApiError {
    ApiError::Told(told(error, text))
}
