//! Logins by the word of a provider: calls for the program that connects, and the page that sends the browser back to
//! it.

use askama::Template;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use portcullis_control::{Callback, Connects, LoginId, Secret, SsoError};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::Step;
use super::browser::{BeginJson, VisitJson};
use crate::api::{ApiError, Refusal, Told};
use crate::pages::page;

pub(super) fn routes() -> OpenApiRouter<Connects> {
    OpenApiRouter::new()
        .routes(routes!(begin))
        .routes(routes!(finish))
}

pub(super) fn pages() -> Router<Connects> {
    Router::new().route("/connect/sso/{provider}/callback", get(back))
}

impl From<SsoError> for ApiError {
    fn from(error: SsoError) -> Self {
        Self::Told(error.into())
    }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ConnectSsoBegin)]
struct Begin {
    #[serde(flatten)]
    begin: BeginJson,
    /// As the portal's configuration names it.
    provider: String,
}

/// Begin a login that a provider of single sign-on vouches for. The answer comes through a browser of this machine.
#[utoipa::path(post, path = "/api/v1/connect/sso", tag = "connect", request_body = Begin,
    responses((status = 200, body = VisitJson), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn begin(
    State(connects): State<Connects>,
    body: Result<Json<Begin>, JsonRejection>,
) -> Result<Json<VisitJson>, ApiError> {
    let Json(Begin { begin, provider }) = body?;
    let port = begin.port;
    let visit = connects.begin_sso(&begin.into(), &provider, port).await?;
    Ok(Json(visit.into()))
}

/// What the browser has brought, as it was brought.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConnectSsoAnswer)]
struct Answer {
    provider: String,
    state: String,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

/// Go on with what a browser has brought from the provider.
#[utoipa::path(post, path = "/api/v1/connect/{attempt}/sso/finish", tag = "connect", params(("attempt" = String, Path)), request_body = Answer,
    responses((status = 200, body = Step), (status = "4XX", body = Refusal), (status = "5XX", body = Refusal)))]
async fn finish(
    State(connects): State<Connects>,
    Path(attempt): Path<String>,
    body: Result<Json<Answer>, JsonRejection>,
) -> Result<Json<Step>, ApiError> {
    let Json(answer) = body?;
    let callback = Callback {
        state: answer.state,
        code: answer.code.map(Secret::from),
        error: answer.error,
        issuer: answer.iss,
    };
    let attempt = LoginId::from(attempt);
    let step = connects
        .finish_sso(&attempt, &answer.provider, &callback)
        .await?;
    Ok(Json(step.into()))
}

/// The page leads on by itself, without a script, as the one on the way there does.
#[derive(Template)]
#[template(path = "going_back.html")]
struct GoingBack<'a> {
    url: &'a str,
}

/// Said here, because there is nowhere to go on to.
#[derive(Template)]
#[template(path = "not_back.html")]
struct NotBack<'a> {
    text: &'a str,
}

#[derive(Deserialize)]
struct Returned {
    state: String,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

async fn back(
    State(connects): State<Connects>,
    Path(provider): Path<String>,
    query: Result<Query<Returned>, QueryRejection>,
) -> Response {
    let Ok(Query(returned)) = query else {
        let text = "the provider's answer is incomplete";
        return page(StatusCode::BAD_REQUEST, &NotBack { text });
    };
    let callback = Callback {
        state: returned.state,
        code: returned.code.map(Secret::from),
        error: returned.error,
        issuer: returned.iss,
    };
    match connects.waits_at(&provider, &callback).await {
        Ok(url) => page(StatusCode::OK, &GoingBack { url: url.expose() }),
        Err(error) => {
            let told = Told::from(error);
            page(told.status, &NotBack { text: &told.text })
        }
    }
}
