//! Logins by a passkey in a browser of the machine that connects: calls for the program that has begun one. The page is the
//! one on which phones approve.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::{Extension, Json};
use portcullis_control::{Connects, LoginId};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::browser::{BeginJson, VisitJson};
use super::{Step, stranger};
use crate::api::{ApiError, Code, Refusal};
use crate::public::PublicAddr;

pub(super) fn routes() -> OpenApiRouter<Connects> {
    OpenApiRouter::new()
        .routes(routes!(begin))
        .routes(routes!(finish))
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ConnectPasskeyBegin)]
struct Begin {
    #[serde(flatten)]
    begin: BeginJson,
}

/// Begin a login that a passkey of the device's user completes, in a browser of this machine.
#[utoipa::path(post, path = "/api/v1/connect/passkey", tag = "connect", request_body = Begin,
    responses((status = 200, body = VisitJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn begin(
    State(connects): State<Connects>,
    Extension(from): Extension<PublicAddr>,
    body: Result<Json<Begin>, JsonRejection>,
) -> Result<Json<VisitJson>, ApiError> {
    let Json(Begin { begin }) = body?;
    let port = begin.port;
    let proof = begin.into();
    let visit = connects.begin_passkey(stranger(from), &proof, port);
    Ok(Json(visit.await?.into()))
}

/// Go on with the code that the browser has brought.
#[utoipa::path(post, path = "/api/v1/connect/{attempt}/passkey/finish", tag = "connect", params(("attempt" = String, Path)), request_body = Code,
    responses((status = 200, body = Step), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn finish(
    State(connects): State<Connects>,
    Extension(from): Extension<PublicAddr>,
    Path(attempt): Path<String>,
    body: Result<Json<Code>, JsonRejection>,
) -> Result<Json<Step>, ApiError> {
    let Json(brought) = body?;
    let attempt = LoginId::from(attempt);
    let step = connects.finish_passkey(stranger(from), &attempt, &brought.code);
    Ok(Json(step.await?.into()))
}
