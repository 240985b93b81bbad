//! The pages on the way to a provider and back.

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use portcullis_control::{Callback, Secret};
use serde::Deserialize;

use super::{On, Port, Providers};
use crate::api::{Told, add_retry_after};
use crate::guard::DeviceAddr;
use crate::pages::{self, Notice, SignIn, page};
use crate::site::{Offer, Site};
use crate::view::wait;

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/login/sso/{provider}", post(leave))
        .route("/login/sso/{provider}/callback", get(back))
}

/// The page leads on by itself, without a script. It is no redirect, because browsers hold the answer to a
/// form, with every redirect that follows at the provider's, against `form-action 'self'`.
#[derive(Template)]
#[template(path = "leaving.html")]
struct Leaving<'a> {
    provider: &'a str,
    url: &'a str,
    expires_in: String,
}

async fn leave(
    On(sso): On,
    offer: Offer,
    providers: Providers,
    Port(port): Port,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(provider): Path<String>,
) -> Response {
    match sso.begin(from, &provider, port).await {
        Ok(visit) => page(
            StatusCode::OK,
            &Leaving {
                provider: &provider,
                url: &visit.url,
                expires_in: wait(visit.expires_in.as_secs()),
            },
        ),
        Err(error) => again(error.into(), offer, &providers).await,
    }
}

#[derive(Deserialize)]
struct Answer {
    state: String,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

async fn back(
    On(sso): On,
    offer: Offer,
    providers: Providers,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(provider): Path<String>,
    query: Result<Query<Answer>, QueryRejection>,
) -> Response {
    let Ok(Query(answer)) = query else {
        let text = "the provider's answer is incomplete";
        return page(StatusCode::BAD_REQUEST, &Notice { text });
    };
    let callback = Callback {
        state: answer.state,
        code: answer.code.map(Secret::from),
        error: answer.error,
        issuer: answer.iss,
    };
    match sso.finish(from, &provider, &callback).await {
        // To a page without the answer in its address.
        Ok(step) => pages::next(step, offer),
        Err(error) => again(error.into(), offer, &providers).await,
    }
}

/// The sign-in page, with what was wrong.
async fn again(told: Told, offer: Offer, providers: &Providers) -> Response {
    let sign_in = SignIn {
        error: &told.text,
        username: "",
        offer,
        providers: providers.offered().await,
    };
    let mut response = page(told.status, &sign_in);
    add_retry_after(&mut response, told.retry_after_s);
    response
}
