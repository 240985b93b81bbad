//! The calls of a phone, and of programs in its place.

use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use portcullis_control::{
    ApprovalError, ApprovalView, Approvals, PublicKeyCredential, RequestChallengeResponse, Secret,
    Stranger, network,
};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::{ApiError, Refusal};
use crate::public::PublicAddr;
use crate::view::rfc3339;

#[derive(OpenApi)]
#[openapi(info(
    title = "Portcullis approvals",
    description = "See, approve and deny a login that was begun elsewhere, by the token of its QR code. Served outside \
        of the tunnel."
))]
struct Description;

pub(super) fn routes() -> Router<Approvals> {
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(look))
        .routes(routes!(begin))
        .routes(routes!(finish))
        .routes(routes!(deny))
        .split_for_parts();
    let answer = Json(description);
    router.route("/api/v1/approve/openapi.json", get(async || answer))
}

impl From<ApprovalError> for ApiError {
    fn from(error: ApprovalError) -> Self {
        Self::Told(error.into())
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApprovalToken)]
struct Presented {
    /// What stands behind the `#` of the QR code's address.
    token: String,
}

/// What is asked for.
#[derive(Serialize, ToSchema)]
#[schema(as = Approval)]
struct Asked {
    user: String,
    locations: Vec<String>,
    /// None: one of the account's, which is chosen afterwards.
    device: Option<String>,
    /// Where the computer is: an address, or the first of an IPv6 /64.
    network: String,
    /// Whether that is an address inside the tunnel.
    in_tunnel: bool,
    /// Whether a program asks that waits on the machine of this very browser: there is no number then.
    here: bool,
    /// Whether this request comes from there as well. None where an address inside the tunnel says nothing of it.
    same_network: Option<bool>,
    /// RFC 3339.
    asked_at: String,
    expires_in_s: u64,
}

impl Asked {
    fn of(view: ApprovalView, phone: Stranger) -> Self {
        let same = view.network == phone.network.to_string();
        Self {
            same_network: (!view.in_tunnel).then_some(same),
            user: view.user,
            locations: view.locations,
            device: view.device,
            network: view.network,
            in_tunnel: view.in_tunnel,
            here: view.here,
            asked_at: rfc3339(view.begun_ms),
            expires_in_s: view.expires_in.as_secs(),
        }
    }
}

fn stranger(from: PublicAddr) -> Stranger {
    Stranger {
        network: network(from.0),
    }
}

/// See what is asked for. One answer for every token that is not waiting, whatever became of it.
#[utoipa::path(post, path = "/api/v1/approve", tag = "approve", request_body = Presented,
    responses((status = 200, body = Asked), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn look(
    State(approvals): State<Approvals>,
    Extension(from): Extension<PublicAddr>,
    body: Result<Json<Presented>, JsonRejection>,
) -> Result<Json<Asked>, ApiError> {
    let Json(presented) = body?;
    let view = approvals.look(&Secret::from(presented.token)).await?;
    Ok(Json(Asked::of(view, stranger(from))))
}

/// `publicKey`, for `navigator.credentials`.
#[derive(ToSchema)]
#[schema(as = ApprovalPasskeyOptions)]
#[expect(dead_code, reason = "describes what webauthn-rs serialises")]
struct OptionsJson {
    /// Binary values as base64url.
    #[schema(value_type = Object)]
    #[schema(rename = "publicKey")]
    public_key: (),
}

/// Begin to approve, in a browser on a page of the portal's name.
#[utoipa::path(post, path = "/api/v1/approve/begin", tag = "approve", request_body = Presented,
    responses((status = 200, body = OptionsJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn begin(
    State(approvals): State<Approvals>,
    body: Result<Json<Presented>, JsonRejection>,
) -> Result<Json<RequestChallengeResponse>, ApiError> {
    let Json(presented) = body?;
    Ok(Json(approvals.begin(&Secret::from(presented.token)).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ApprovalAnswer)]
struct Answer {
    token: String,
    /// As the computer shows it. A wrong one ends the request. Where the request is `here`, it is not looked at.
    #[serde(default)]
    number: u32,
    /// What `navigator.credentials.get` answered (WebAuthn Level 3, 5.1), binary values as base64url.
    #[schema(value_type = Object)]
    credential: PublicKeyCredential,
}

/// Where the browser has to go on, for the program that waits.
#[derive(Serialize, ToSchema)]
#[schema(as = ApprovalBack)]
struct Back {
    then: String,
}

/// Approve, with the number and a passkey.
#[utoipa::path(post, path = "/api/v1/approve/finish", tag = "approve", request_body = Answer,
    responses((status = 200, body = Back), (status = 204), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn finish(
    State(approvals): State<Approvals>,
    Extension(from): Extension<PublicAddr>,
    body: Result<Json<Answer>, JsonRejection>,
) -> Result<Response, ApiError> {
    let Json(answer) = body?;
    let token = Secret::from(answer.token);
    let approved = approvals.approve(stranger(from), &token, answer.number, &answer.credential);
    Ok(match approved.await? {
        Some(then) => {
            let then = then.expose().to_owned();
            Json(Back { then }).into_response()
        }
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Deny: this was somebody else.
#[utoipa::path(post, path = "/api/v1/approve/deny", tag = "approve", request_body = Presented,
    responses((status = 204), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn deny(
    State(approvals): State<Approvals>,
    Extension(from): Extension<PublicAddr>,
    body: Result<Json<Presented>, JsonRejection>,
) -> Result<StatusCode, ApiError> {
    let Json(presented) = body?;
    let token = Secret::from(presented.token);
    approvals.deny(stranger(from), &token).await?;
    Ok(StatusCode::NO_CONTENT)
}
