//! The JSON API, for `portcullis login` and other programs on a device.

use std::time::Duration;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use portcullis_control::{
    Factor, FactorSet, LoggedOut, LoginError, LoginId, LoginStep, Logins, PasskeyError, Secret,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::guard::DeviceAddr;
use crate::phone::{Phoned, PromptJson};
use crate::site::Site;
use crate::view::SessionJson;

pub(crate) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .routes(routes!(login))
        .routes(routes!(totp))
        .routes(routes!(recovery))
        .routes(routes!(ask_phone))
        .routes(routes!(finish_phone))
        .routes(routes!(session, end))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: String,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct NextStep {
    attempt: String,
    /// One of `factors`: `totp` wherever that would do.
    next: &'static str,
    expires_in_s: u64,
    /// All that would do.
    factors: Vec<String>,
}

impl NextStep {
    pub(crate) fn new(attempt: &LoginId, factors: FactorSet, expires_in: Duration) -> Self {
        Self {
            attempt: attempt.as_str().to_owned(),
            next: first(factors),
            expires_in_s: expires_in.as_secs(),
            factors: factors.names(),
        }
    }
}

/// What a step of a login is answered.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Step {
    Next(NextStep),
    Session(SessionJson),
}

impl From<LoginStep> for Step {
    fn from(step: LoginStep) -> Self {
        match step {
            LoginStep::Wants {
                attempt,
                factors,
                expires_in,
            } => Self::Next(NextStep::new(&attempt, factors, expires_in)),
            LoginStep::Done(session) => Self::Session(session.into()),
        }
    }
}

/// What programs that know of one factor alone are told.
fn first(factors: FactorSet) -> &'static str {
    if factors.contains(Factor::Totp) {
        return Factor::Totp.as_str();
    }
    factors.iter().next().map_or("", Factor::as_str)
}

/// Begin a login with name and password.
#[utoipa::path(post, path = "/login", tag = "login", request_body = Login,
    responses((status = 200, body = Step), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn login(
    State(logins): State<Logins>,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    body: Result<Json<Login>, JsonRejection>,
) -> Result<Json<Step>, ApiError> {
    let Json(login) = body?;
    let password = Secret::from(login.password);
    let step = logins.begin(from, &login.username, password).await?;
    Ok(Json(step.into()))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Code {
    pub(crate) code: String,
}

/// Go on with the authenticator app's code.
#[utoipa::path(post, path = "/login/{attempt}/totp", tag = "login", params(("attempt" = String, Path)), request_body = Code,
    responses((status = 200, body = Step), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn totp(
    State(logins): State<Logins>,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
    body: Result<Json<Code>, JsonRejection>,
) -> Result<Json<Step>, ApiError> {
    let Json(totp) = body?;
    let attempt = LoginId::from(attempt);
    Ok(Json(logins.totp(from, &attempt, &totp.code).await?.into()))
}

/// Go on with a recovery code.
#[utoipa::path(post, path = "/login/{attempt}/recovery", tag = "login", params(("attempt" = String, Path)), request_body = Code,
    responses((status = 200, body = Step), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn recovery(
    State(logins): State<Logins>,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
    body: Result<Json<Code>, JsonRejection>,
) -> Result<Json<Step>, ApiError> {
    let Json(recovery) = body?;
    let attempt = LoginId::from(attempt);
    let step = logins.recovery(from, &attempt, &recovery.code).await?;
    Ok(Json(step.into()))
}

/// Ask the user's phone to approve. What was asked before by this login is void.
#[utoipa::path(post, path = "/login/{attempt}/phone", tag = "login", params(("attempt" = String, Path)),
    responses((status = 200, body = PromptJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn ask_phone(
    State(logins): State<Logins>,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
) -> Result<Json<PromptJson>, ApiError> {
    let prompt = logins.ask_phone(from, &LoginId::from(attempt)).await?;
    Ok(Json(prompt.into()))
}

/// Go on with what the phone has approved, from the address that asked it.
#[utoipa::path(post, path = "/login/{attempt}/phone/finish", tag = "login", params(("attempt" = String, Path)),
    responses((status = 200, body = Phoned<Step>), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn finish_phone(
    State(logins): State<Logins>,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
) -> Result<Json<Phoned<Step>>, ApiError> {
    let step = logins.finish_phone(from, &LoginId::from(attempt)).await?;
    Ok(Json(step.into()))
}

/// The session of this device.
#[utoipa::path(get, path = "/session", tag = "session",
    responses((status = 200, body = SessionJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn session(
    State(logins): State<Logins>,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<Json<SessionJson>, ApiError> {
    let session = logins.current(from).await?.ok_or(ApiError::NoSession)?;
    Ok(Json(session.into()))
}

#[derive(Serialize, ToSchema)]
#[schema(as = SessionEnded)]
pub(crate) struct Ended {
    ended: bool,
    /// Not every gateway has acknowledged it yet.
    pending: bool,
}

impl From<LoggedOut> for Ended {
    fn from(ended: LoggedOut) -> Self {
        Self {
            ended: true,
            pending: ended.pending,
        }
    }
}

/// End the session of this device.
#[utoipa::path(delete, path = "/session", tag = "session",
    responses((status = 200, body = Ended), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn end(
    State(logins): State<Logins>,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Result<Json<Ended>, ApiError> {
    let ended = logins.end(from).await?.ok_or(ApiError::NoSession)?;
    Ok(Json(ended.into()))
}

pub(crate) enum ApiError {
    Told(Told),
    Body(JsonRejection),
    NoSession,
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        Self::Told(error.into())
    }
}

impl From<PasskeyError> for ApiError {
    fn from(error: PasskeyError) -> Self {
        Self::Told(error.into())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::Told(Told {
            status: rejection.status(),
            code: "bad_request",
            text: "the query is not what is expected here".to_owned(),
            retry_after_s: None,
        })
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::Body(rejection)
    }
}

/// Why it was not done.
#[derive(Serialize, ToSchema)]
pub(crate) struct Refusal {
    /// For people.
    error: String,
    /// For programs.
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let told = match self {
            Self::Told(told) => told,
            // The body itself is not repeated: it may hold a password.
            Self::Body(rejection) => {
                let text = match rejection.status() {
                    StatusCode::UNSUPPORTED_MEDIA_TYPE => "the request has to be application/json",
                    _ => "the request is not the JSON that is expected here",
                };
                Told {
                    status: rejection.status(),
                    code: "bad_request",
                    text: text.to_owned(),
                    retry_after_s: None,
                }
            }
            Self::NoSession => Told {
                status: StatusCode::NOT_FOUND,
                code: "no_session",
                text: "this device has no session".to_owned(),
                retry_after_s: None,
            },
        };
        told.into_response()
    }
}

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let retry_after_s = self.retry_after_s;
        let refusal = Refusal {
            error: self.text,
            code: self.code,
            retry_after_s,
        };
        let mut response = (self.status, Json(refusal)).into_response();
        add_retry_after(&mut response, retry_after_s);
        response
    }
}

/// A refusal in HTTP's terms and in words, the same for programs and for people. As a response it is
/// JSON.
pub(crate) struct Told {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) text: String,
    pub(crate) retry_after_s: Option<u64>,
}

impl From<LoginError> for Told {
    fn from(error: LoginError) -> Self {
        let (status, code, text) = match error {
            LoginError::Refused => (
                StatusCode::UNAUTHORIZED,
                "refused",
                "the name, the password or the code is wrong, or this device belongs to someone else",
            ),
            LoginError::Delayed { retry_after } => {
                let seconds = retry_after
                    .as_millis()
                    .div_ceil(1000)
                    .try_into()
                    .unwrap_or(u64::MAX);
                return Self {
                    status: StatusCode::TOO_MANY_REQUESTS,
                    code: "delayed",
                    text: format!(
                        "too many wrong attempts; try again in {}",
                        crate::view::wait(seconds)
                    ),
                    retry_after_s: Some(seconds),
                };
            }
            LoginError::UnknownDevice => (
                StatusCode::FORBIDDEN,
                "unknown_device",
                "no device has the address this request came from",
            ),
            LoginError::SessionKey => (
                StatusCode::CONFLICT,
                "session_key",
                "sessions of this location begin without its tunnel; connect anew to begin another",
            ),
            LoginError::UnknownAttempt => (
                StatusCode::NOT_FOUND,
                "unknown_attempt",
                "this login is over or was never begun; begin again",
            ),
            LoginError::NotApproved => (
                StatusCode::FORBIDDEN,
                "not_approved",
                "this was denied on the phone, or the number typed there was wrong; ask again, or sign in another way",
            ),
            LoginError::ApprovalOver => (
                StatusCode::GONE,
                "approval_over",
                "no phone has approved this in time; ask again",
            ),
            LoginError::NoGateway => (
                StatusCode::SERVICE_UNAVAILABLE,
                "no_gateway",
                "no gateway of this location is ready, so there is no session; try again later",
            ),
            LoginError::NoSession => (
                StatusCode::CONFLICT,
                "no_session",
                "this device has no session to renew; connect anew",
            ),
            LoginError::NotRenewed => (
                StatusCode::SERVICE_UNAVAILABLE,
                "not_renewed",
                "no gateway of this location has confirmed it, so the session goes on as it was; try again later",
            ),
            LoginError::GatewayPending => (
                StatusCode::SERVICE_UNAVAILABLE,
                "gateway_pending",
                "you are logged in, but the gateway has not confirmed it yet",
            ),
            LoginError::Internal(cause) => {
                tracing::error!(%cause, "a login failed for reasons of our own");
                (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "the portal has a problem; it is logged there",
                )
            }
        };
        Self {
            status,
            code,
            text: text.to_owned(),
            retry_after_s: None,
        }
    }
}

/// A user has changed a lot lately.
pub(crate) fn too_often(text: String, retry_after: Duration) -> Told {
    Told {
        status: StatusCode::TOO_MANY_REQUESTS,
        code: "too_often",
        text,
        retry_after_s: Some(retry_after.as_secs().max(1)),
    }
}

/// RFC 9110, section 10.2.3.
pub(crate) fn add_retry_after(response: &mut Response, seconds: Option<u64>) {
    if let Some(seconds) = seconds {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}
