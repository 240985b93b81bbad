//! What the session's page asks while it counts down.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use portcullis_control::Outside;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Asking;
use crate::api::{ApiError, Refusal};
use crate::view::SessionJson;

#[derive(OpenApi)]
#[openapi(info(
    title = "Portcullis portal, outside of the tunnel",
    description = "The session that this browser has opened, by its cookie. Signing in is for browsers."
))]
struct Description;

pub(super) fn routes() -> Router<Outside> {
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(session))
        .split_for_parts();
    let answer = Json(description);
    router.route("/api/v1/openapi.json", get(async || answer))
}

/// The session that this browser has opened.
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
