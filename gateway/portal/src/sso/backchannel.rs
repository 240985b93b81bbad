//! What providers tell by themselves: OpenID Connect Back-Channel Logout 1.0, section 2.8.

use axum::extract::rejection::FormRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Form, Json, Router, middleware};
use portcullis_control::{Sso, SsoError};
use serde::Deserialize;
use serde_json::json;

use crate::guard;
use crate::public::{Requests, limit};

/// No logout token is larger.
const BODY_LIMIT: usize = 16 * 1024;

/// The one route for providers, to be served where they reach it. The caller adds the
/// [`PublicAddr`](crate::PublicAddr) of the connection as an extension.
pub fn backchannel_app(sso: Sso) -> Router {
    Router::new()
        .route("/sso/{provider}/backchannel", post(log_out))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(guard::time_limit))
        .layer(middleware::from_fn_with_state(
            Requests::of_providers(),
            limit,
        ))
        .layer(middleware::from_fn(guard::security_headers))
        .with_state(sso)
}

#[derive(Deserialize)]
struct Logout {
    logout_token: String,
}

async fn log_out(
    State(sso): State<Sso>,
    Path(provider): Path<String>,
    form: Result<Form<Logout>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return refused();
    };
    match sso.log_out(&provider, &form.logout_token).await {
        Ok(told) if told.pending => {
            tracing::warn!(
                provider,
                sessions = told.sessions,
                "a gateway has not acknowledged a logout at the provider"
            );
            StatusCode::ACCEPTED.into_response()
        }
        Ok(_) => StatusCode::OK.into_response(),
        Err(SsoError::UnknownProvider) => StatusCode::NOT_FOUND.into_response(),
        Err(SsoError::Unavailable) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Err(SsoError::Login(error)) => {
            tracing::error!(%error, provider, "a logout failed for reasons of our own");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
        Err(_) => refused(),
    }
}

/// Whatever is wrong with it.
fn refused() -> Response {
    let told = Json(json!({ "error": "invalid_request" }));
    (StatusCode::BAD_REQUEST, told).into_response()
}
