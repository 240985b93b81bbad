//! The pages on the way to a provider and back.

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use portcullis_control::{Browser, Callback, Secret, SsoError};
use serde::Deserialize;

use super::{On, Port, Providers};
use crate::api::{Told, add_retry_after};
use crate::cookie::{self, VISITOR};
use crate::guard::DeviceAddr;
use crate::pages::{self, Notice, SignIn, page};
use crate::site::{Offer, Site};
use crate::view::wait;

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/login/sso/{provider}", get(open).post(leave))
        .route("/login/sso/{provider}/callback", get(back))
}

/// Longer than anybody may stay at a provider.
const VISITOR_S: u64 = 600;

/// For those whom a terminal sent here: the login is begun in this browser, and by its user.
#[derive(Template)]
#[template(path = "go.html")]
struct Go<'a> {
    provider: &'a str,
    title: &'a str,
}

async fn open(On(sso): On, Path(provider): Path<String>) -> Response {
    if let Some(title) = sso.title(&provider) {
        let provider = &provider;
        return page(StatusCode::OK, &Go { provider, title });
    }
    Told::from(SsoError::UnknownProvider).into_page()
}

/// The page leads on by itself, without a script. It is no redirect, because browsers hold the answer to a
/// form, with every redirect that follows at the provider's, against `form-action 'self'`.
#[derive(Template)]
#[template(path = "leaving.html")]
struct Leaving<'a> {
    title: &'a str,
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
    headers: HeaderMap,
) -> Response {
    // One cookie for all that a browser has begun, so that two at once do not disturb each other.
    let browser = match cookie::browser(&headers, VISITOR) {
        Some(browser) => browser,
        None => match Browser::new() {
            Ok(browser) => browser,
            Err(error) => return Told::from(error).into_page(),
        },
    };
    match sso.begin(from, &provider, port, &browser).await {
        Ok(visit) => {
            let leaving = Leaving {
                title: sso.title(&provider).unwrap_or(&provider),
                url: &visit.url,
                expires_in: wait(visit.expires_in.as_secs()),
            };
            let given = [cookie::give(&browser, VISITOR, VISITOR_S)];
            (given, page(StatusCode::OK, &leaving)).into_response()
        }
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
    headers: HeaderMap,
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
    let browser = cookie::browser(&headers, VISITOR);
    let step = sso.finish(from, &provider, &callback, browser.as_ref());
    match step.await {
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
        providers: providers.shown().await,
    };
    let mut response = page(told.status, &sign_in);
    add_retry_after(&mut response, told.retry_after_s);
    response
}
