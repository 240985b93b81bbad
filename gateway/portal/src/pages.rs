//! The same for a person with a browser: small pages that need no script.

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Form, Router};
use jiff::Timestamp;
use portcullis_control::{LoggedOut, LoginError, LoginId, LoginStep, Logins, Secret, SessionView};
use serde::Deserialize;

use crate::api::{Told, add_retry_after};
use crate::guard::DeviceAddr;
use crate::site::{Offer, Site};
use crate::view::{level_name, rfc3339, time_left, wait};

const STYLE: &str = include_str!("../assets/style.css");

pub(crate) fn routes() -> Router<Site> {
    Router::new()
        .route("/", get(home))
        .route("/sign-in", get(sign_in))
        .route("/login", post(login))
        .route("/login/{attempt}/totp", post(totp))
        .route("/logout", post(logout))
        .route("/style.css", get(style))
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn<'a> {
    error: &'a str,
    username: &'a str,
    offer: Offer,
}

#[derive(Template)]
#[template(path = "code.html")]
struct Code<'a> {
    error: &'a str,
    attempt: &'a str,
    expires_in: String,
    offer: Offer,
}

impl SignIn<'_> {
    /// Where the script sends what it does.
    fn passkey_call(&self) -> &'static str {
        "/api/v1/login/passkey"
    }
}

impl Code<'_> {
    fn passkey_call(&self) -> String {
        format!("/api/v1/login/{}/passkey", self.attempt)
    }
}

#[derive(Template)]
#[template(path = "session.html")]
struct Session<'a> {
    session: &'a SessionView,
    level: &'static str,
    time_left: String,
    deadline: String,
    idle: Option<String>,
    passkeys: bool,
}

#[derive(Template)]
#[template(path = "notice.html")]
pub(crate) struct Notice<'a> {
    pub(crate) text: &'a str,
}

async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

async fn home(
    State(logins): State<Logins>,
    offer: Offer,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Response {
    match logins.current(from).await {
        Ok(Some(session)) => page(
            StatusCode::OK,
            &Session {
                session: &session,
                level: level_name(&session),
                time_left: time_left(session.deadline_ms, Timestamp::now()),
                deadline: rfc3339(session.deadline_ms),
                idle: (session.idle_timeout_ms != 0)
                    .then(|| wait(session.idle_timeout_ms.unsigned_abs() / 1000)),
                passkeys: offer != Offer::Off,
            },
        ),
        Ok(None) => sign_in(offer).await,
        Err(error) => notice(error),
    }
}

/// Also for a device that has a session: a login replaces it by a fresher or stronger one.
async fn sign_in(offer: Offer) -> Response {
    page(
        StatusCode::OK,
        &SignIn {
            error: "",
            username: "",
            offer,
        },
    )
}

#[derive(Deserialize)]
struct LoginForm {
    username: String,
    password: String,
}

async fn login(
    State(logins): State<Logins>,
    offer: Offer,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    form: Result<Form<LoginForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return page(
            StatusCode::BAD_REQUEST,
            &SignIn {
                error: "the form is incomplete",
                username: "",
                offer,
            },
        );
    };
    match logins
        .begin(from, &form.username, Secret::from(form.password))
        .await
    {
        Ok(LoginStep::Totp {
            attempt,
            expires_in,
        }) => page(
            StatusCode::OK,
            &Code {
                error: "",
                attempt: attempt.as_str(),
                expires_in: wait(expires_in.as_secs()),
                offer,
            },
        ),
        Err(error @ (LoginError::Refused | LoginError::Delayed { .. })) => {
            let told = Told::from(error);
            let mut response = page(
                told.status,
                &SignIn {
                    error: &told.text,
                    username: &form.username,
                    offer,
                },
            );
            add_retry_after(&mut response, told.retry_after_s);
            response
        }
        Err(error) => notice(error),
    }
}

#[derive(Deserialize)]
struct TotpForm {
    code: String,
}

async fn totp(
    State(logins): State<Logins>,
    offer: Offer,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
    form: Result<Form<TotpForm>, FormRejection>,
) -> Response {
    let id = LoginId::from(attempt.clone());
    let Ok(Form(form)) = form else {
        return page(
            StatusCode::BAD_REQUEST,
            &SignIn {
                error: "the form is incomplete",
                username: "",
                offer,
            },
        );
    };
    match logins.totp(from, &id, form.code.trim()).await {
        // The session page says what is so, pending gateways included.
        Ok(_) | Err(LoginError::GatewayPending) => Redirect::to("/").into_response(),
        Err(error @ (LoginError::Refused | LoginError::Delayed { .. })) => {
            let told = Told::from(error);
            let text = "the code is wrong, was used already, or is too old";
            let error = if told.retry_after_s.is_some() {
                told.text.as_str()
            } else {
                text
            };
            let code = Code {
                error,
                attempt: &attempt,
                expires_in: "a few minutes".to_owned(),
                offer,
            };
            let mut response = page(told.status, &code);
            add_retry_after(&mut response, told.retry_after_s);
            response
        }
        Err(error) => notice(error),
    }
}

async fn logout(
    State(logins): State<Logins>,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Response {
    match logins.end(from).await {
        Ok(Some(LoggedOut { pending: true })) => page(
            StatusCode::ACCEPTED,
            &Notice {
                text: "Your session has ended, but a gateway has not confirmed it yet: until it does, this device may still be let through.",
            },
        ),
        Ok(_) => Redirect::to("/").into_response(),
        Err(error) => notice(error),
    }
}

fn notice(error: LoginError) -> Response {
    Told::from(error).into_page()
}

impl Told {
    /// As a page.
    pub(crate) fn into_page(self) -> Response {
        let mut response = page(self.status, &Notice { text: &self.text });
        add_retry_after(&mut response, self.retry_after_s);
        response
    }
}

pub(crate) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
