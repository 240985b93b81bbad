//! Logins before there is a tunnel, for programs: a device proves its key, gives its user's factors, and gets what its
//! tunnel needs. Outside of the tunnel; no address says anything.

mod browser;
mod passkey;
mod sso;

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use portcullis_control::{
    ConnectProof, ConnectStep, Connected, Connection, Connects, LoginId, Secret, Stranger, network,
};
use serde::{Deserialize, Serialize};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{ApiError, Code, NextStep, Refusal, Told};
use crate::own::api::TunnelJson;
use crate::phone::{Phoned, PromptJson};
use crate::public::PublicAddr;
use crate::view::SessionJson;

/// What the description says beside the calls.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Portcullis connect",
        description = "Log in from a device of a session-key location, before there is a tunnel: ask for a \
            challenge, answer it with a proof of the device's WireGuard key, give the factors. Served outside of \
            the tunnel."
    ),
    modifiers(&Bearer)
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = description.components.get_or_insert_default();
        components.add_security_scheme("session", SecurityScheme::Http(scheme));
    }
}

/// The calls below `/api/v1/connect`, and `openapi.json`, which describes them.
pub(crate) fn calls() -> Router<Connects> {
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .merge(routes())
        .merge(sso::routes())
        .merge(passkey::routes())
        .split_for_parts();
    let answer = Json(description);
    router
        .route("/api/v1/connect/openapi.json", get(async || answer))
        .merge(sso::pages())
}

fn routes() -> OpenApiRouter<Connects> {
    OpenApiRouter::new()
        .routes(routes!(challenge))
        .routes(routes!(enrol))
        .routes(routes!(begin))
        .routes(routes!(totp))
        .routes(routes!(recovery))
        .routes(routes!(ask_phone))
        .routes(routes!(finish_phone))
        .routes(routes!(session, end))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConnectTo)]
struct To {
    /// The location's name.
    location: String,
    /// The device's WireGuard public key, base64.
    public_key: String,
}

#[derive(Serialize, ToSchema)]
struct Challenge {
    challenge: String,
    /// X25519, base64.
    location_key: String,
    expires_in_s: u64,
}

/// Ask for a challenge. It is given for any location and any device, also where there are no such.
#[utoipa::path(post, path = "/api/v1/connect/challenge", tag = "connect", request_body = To,
    responses((status = 200, body = Challenge), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn challenge(
    State(connects): State<Connects>,
    body: Result<Json<To>, JsonRejection>,
) -> Result<Json<Challenge>, ApiError> {
    let Json(to) = body?;
    let challenge = connects.challenge(&to.location, &to.public_key)?;
    Ok(Json(Challenge {
        challenge: challenge.challenge,
        location_key: challenge.location_key,
        expires_in_s: challenge.expires_in.as_secs(),
    }))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConnectBegin)]
struct Begin {
    location: String,
    public_key: String,
    challenge: String,
    /// Base64 of 32 bytes: HKDF-SHA256 with the salt `portcullis connect v1` of the X25519 secret between device and
    /// location, for challenge, location, username, device's and location's public key, each with its length before it
    /// (32 bits, big endian).
    proof: String,
    username: String,
    password: String,
    /// Renew the device's live session: the last factor then gives it another key and another deadline, and its
    /// flows go on.
    #[serde(default)]
    renew: bool,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConnectEnrol)]
struct Enrol {
    location: String,
    public_key: String,
    challenge: String,
    /// As for a login.
    proof: String,
    username: String,
    /// What an administrator has given out for this user and this location.
    invitation: String,
    /// What the device is to be called.
    name: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ConnectEnrolled)]
struct Enrolled {
    enrolled: bool,
}

/// Make a device's key known, with an invitation. It opens no session.
#[utoipa::path(post, path = "/api/v1/connect/enrol", tag = "connect", request_body = Enrol,
    responses((status = 201, body = Enrolled), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn enrol(
    State(connects): State<Connects>,
    body: Result<Json<Enrol>, JsonRejection>,
) -> Result<(StatusCode, Json<Enrolled>), ApiError> {
    let Json(enrol) = body?;
    let proof = ConnectProof {
        location: enrol.location,
        public_key: enrol.public_key,
        challenge: enrol.challenge,
        proof: Secret::from(enrol.proof),
        username: enrol.username,
        password: Secret::from(String::new()),
        renew: false,
    };
    let invitation = Secret::from(enrol.invitation);
    let enrolled = connects.enrol(&proof, &invitation, &enrol.name).await;
    enrolled.map_err(Told::from).map_err(ApiError::Told)?;
    Ok((StatusCode::CREATED, Json(Enrolled { enrolled: true })))
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = ConnectStep)]
enum Step {
    Next(NextStep),
    Connected(Box<ConnectionJson>),
    Renewed(Box<RenewalJson>),
}

/// What a tunnel that is up goes on with, this once. The session's token stays as it was.
#[derive(Serialize, ToSchema)]
#[schema(as = Renewal)]
struct RenewalJson {
    session: SessionJson,
    /// Base64.
    preshared_key: String,
    tunnel: TunnelJson,
}

/// Everything a tunnel needs, this once.
#[derive(Serialize, ToSchema)]
#[schema(as = Connection)]
struct ConnectionJson {
    session: SessionJson,
    /// For `GET` and `DELETE /api/v1/connect/session`.
    token: String,
    /// Base64.
    preshared_key: String,
    tunnel: TunnelJson,
}

impl From<ConnectStep> for Step {
    fn from(step: ConnectStep) -> Self {
        match step {
            ConnectStep::Wants {
                attempt,
                factors,
                expires_in,
            } => Self::Next(NextStep::new(&attempt, factors, expires_in)),
            ConnectStep::Connected(connection) => {
                let Connection {
                    session,
                    token,
                    preshared_key,
                    tunnel,
                } = *connection;
                Self::Connected(Box::new(ConnectionJson {
                    session: session.into(),
                    token: token.expose().to_owned(),
                    preshared_key: preshared_key.expose().to_owned(),
                    tunnel: tunnel.into(),
                }))
            }
            ConnectStep::Renewed(renewed) => Self::Renewed(Box::new(RenewalJson {
                session: renewed.session.into(),
                preshared_key: renewed.preshared_key.expose().to_owned(),
                tunnel: renewed.tunnel.into(),
            })),
        }
    }
}

/// Begin a login with the proof, the name and the password.
#[utoipa::path(post, path = "/api/v1/connect", tag = "connect", request_body = Begin,
    responses((status = 200, body = Step), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn begin(
    State(connects): State<Connects>,
    body: Result<Json<Begin>, JsonRejection>,
) -> Result<Json<Step>, ApiError> {
    let Json(begin) = body?;
    let proof = ConnectProof {
        location: begin.location,
        public_key: begin.public_key,
        challenge: begin.challenge,
        proof: Secret::from(begin.proof),
        username: begin.username,
        password: Secret::from(begin.password),
        renew: begin.renew,
    };
    Ok(Json(connects.begin(proof).await?.into()))
}

/// Go on with the authenticator app's code.
#[utoipa::path(post, path = "/api/v1/connect/{attempt}/totp", tag = "connect", params(("attempt" = String, Path)), request_body = Code,
    responses((status = 200, body = Step), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn totp(
    State(connects): State<Connects>,
    Path(attempt): Path<String>,
    body: Result<Json<Code>, JsonRejection>,
) -> Result<Json<Step>, ApiError> {
    let Json(totp) = body?;
    let step = connects.totp(&LoginId::from(attempt), &totp.code).await?;
    Ok(Json(step.into()))
}

/// Go on with a recovery code.
#[utoipa::path(post, path = "/api/v1/connect/{attempt}/recovery", tag = "connect", params(("attempt" = String, Path)), request_body = Code,
    responses((status = 200, body = Step), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn recovery(
    State(connects): State<Connects>,
    Path(attempt): Path<String>,
    body: Result<Json<Code>, JsonRejection>,
) -> Result<Json<Step>, ApiError> {
    let Json(recovery) = body?;
    let attempt = LoginId::from(attempt);
    Ok(Json(
        connects.recovery(&attempt, &recovery.code).await?.into(),
    ))
}

fn stranger(from: PublicAddr) -> Stranger {
    Stranger {
        network: network(from.0),
    }
}

/// Ask the user's phone to approve. What was asked before by this login is void.
#[utoipa::path(post, path = "/api/v1/connect/{attempt}/phone", tag = "connect", params(("attempt" = String, Path)),
    responses((status = 200, body = PromptJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn ask_phone(
    State(connects): State<Connects>,
    Extension(from): Extension<PublicAddr>,
    Path(attempt): Path<String>,
) -> Result<Json<PromptJson>, ApiError> {
    let attempt = LoginId::from(attempt);
    let prompt = connects.ask_phone(stranger(from), &attempt).await?;
    Ok(Json(prompt.into()))
}

/// Go on with what the phone has approved, from the network that asked it.
#[utoipa::path(post, path = "/api/v1/connect/{attempt}/phone/finish", tag = "connect", params(("attempt" = String, Path)),
    responses((status = 200, body = Phoned<Step>), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn finish_phone(
    State(connects): State<Connects>,
    Extension(from): Extension<PublicAddr>,
    Path(attempt): Path<String>,
) -> Result<Json<Phoned<Step>>, ApiError> {
    let attempt = LoginId::from(attempt);
    let step = connects.finish_phone(stranger(from), &attempt).await?;
    Ok(Json(step.into()))
}

/// The token of `Authorization: Bearer`, or nothing that is one.
struct Presented(Secret);

impl<S: Sync> FromRequestParts<S> for Presented {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let presented = parts.headers.get(header::AUTHORIZATION);
        let token = presented
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        token
            .map(|token| Self(Secret::from(token.to_owned())))
            .ok_or_else(|| {
                let told = Told {
                    status: StatusCode::UNAUTHORIZED,
                    code: "no_token",
                    text: "the session's token is missing".to_owned(),
                    retry_after_s: None,
                };
                // RFC 9110, 11.6.1.
                let wants = [(header::WWW_AUTHENTICATE, "Bearer")];
                (wants, told).into_response()
            })
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = ConnectedSession)]
struct ConnectedJson {
    session: SessionJson,
    live: bool,
    /// `live`, `revoked`, `expired`, `idle` or `replaced`.
    state: String,
}

impl From<Connected> for ConnectedJson {
    fn from(connected: Connected) -> Self {
        Self {
            session: connected.session.into(),
            live: connected.live,
            state: connected.state,
        }
    }
}

/// What became of a session.
#[utoipa::path(get, path = "/api/v1/connect/session", tag = "connect", security(("session" = [])),
    responses((status = 200, body = ConnectedJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn session(
    State(connects): State<Connects>,
    Presented(token): Presented,
) -> Result<Json<ConnectedJson>, ApiError> {
    let connected = connects.session(&token).await?;
    Ok(Json(connected.ok_or(ApiError::NoSession)?.into()))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Disconnected)]
struct Disconnected {
    ended: bool,
    /// Not every gateway has acknowledged it yet.
    pending: bool,
}

/// End a session.
#[utoipa::path(delete, path = "/api/v1/connect/session", tag = "connect", security(("session" = [])),
    responses((status = 200, body = Disconnected), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn end(
    State(connects): State<Connects>,
    Presented(token): Presented,
) -> Result<Json<Disconnected>, ApiError> {
    let ended = connects.end(&token).await?.ok_or(ApiError::NoSession)?;
    Ok(Json(Disconnected {
        ended: true,
        pending: ended.pending,
    }))
}
