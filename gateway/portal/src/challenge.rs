//! What a CA asks by plain HTTP before it gives a certificate (RFC 8555, 8.3).

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use portcullis_control::PortalCertificate;

use crate::{guard, public};

/// Challenges alone; nothing is led from here to anywhere.
pub(crate) fn challenge_app(certificate: PortalCertificate) -> Router {
    let requests = public::Requests::default();
    Router::new()
        .route("/.well-known/acme-challenge/{token}", get(challenge))
        .layer(middleware::from_fn(guard::time_limit))
        .layer(middleware::from_fn_with_state(requests, public::limit))
        .with_state(certificate)
}

async fn challenge(
    State(certificate): State<PortalCertificate>,
    Path(token): Path<String>,
) -> Response {
    match certificate.answer(&token).await {
        Some(answer) => {
            ([(header::CONTENT_TYPE, "application/octet-stream")], answer).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
