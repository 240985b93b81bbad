//! The same for a person with a browser: small pages that need no script.

use std::net::IpAddr;

use askama::Template;
use axum::extract::rejection::FormRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Form, Router};
use jiff::Timestamp;
use portcullis_control::{
    Factor, LoggedOut, LoginError, LoginId, LoginStep, Logins, PhoneState, PhoneStep, Secret,
    SessionView,
};
use serde::Deserialize;

use crate::api::{Told, add_retry_after};
use crate::guard::DeviceAddr;
use crate::nav::Nav;
use crate::phone::{phone_script, shown};
use crate::site::{Offer, Site};
use crate::sso::{Providers, Shown};
use crate::view::{Moment, level_in_words, seconds_left, time_left, wait};

const WRONG_CODE: &str = "the code is wrong, was used already, or is too old";
const NO_PHONE: &str =
    "no phone can approve this, or it was asked from another address, or taken already";

const STYLE: &str = include_str!("../assets/style.css");

pub(crate) fn routes() -> Router<Site> {
    Router::new()
        .route("/", get(home))
        .route("/sign-in", get(sign_in))
        .route("/login", post(login))
        .route("/login/{attempt}/totp", post(totp))
        .route("/login/{attempt}/recovery", post(recovery))
        .route("/login/{attempt}/phone", get(phone).post(ask_phone))
        .route("/login/{attempt}/phone/finish", post(finish_phone))
        .route("/phone.js", get(phone_script))
        .route("/logout", post(logout))
        .route("/style.css", get(style))
}

#[derive(Template)]
#[template(path = "sign_in.html")]
pub(crate) struct SignIn<'a> {
    pub(crate) error: &'a str,
    pub(crate) username: &'a str,
    pub(crate) offer: Offer,
    pub(crate) providers: Vec<Shown>,
}

#[derive(Template)]
#[template(path = "code.html")]
struct Code<'a> {
    error: &'a str,
    attempt: &'a str,
    expires_in: String,
    totp: bool,
    recovery: bool,
    /// A recovery code was refused, and the next one may be good.
    recovery_open: bool,
    passkey: bool,
    phone: bool,
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

    fn phone_path(&self) -> String {
        phone_path(self.attempt)
    }

    fn heading(&self) -> &'static str {
        heading(self.totp || self.recovery, self.passkey)
    }
}

/// Of the page that asks for the second factor.
pub(crate) fn heading(code: bool, passkey: bool) -> &'static str {
    match (code, passkey) {
        (true, _) => "Enter your code",
        (false, true) => "Use your passkey",
        (false, false) => "Use your phone",
    }
}

/// The page that waits for the phone.
fn phone_path(attempt: &str) -> String {
    format!("/login/{attempt}/phone")
}

#[derive(Template)]
#[template(path = "session.html")]
struct Session<'a> {
    nav: Nav,
    session: &'a SessionView,
    level: &'static str,
    time_left: String,
    /// For the script.
    seconds_left: u64,
    deadline: Moment,
    idle: Option<String>,
    reset: Option<Reset<'a>>,
}

/// What an administrator did to the account's factors, and why.
struct Reset<'a> {
    at: Moment,
    reason: &'a str,
}

#[derive(Template)]
#[template(path = "notice.html")]
pub(crate) struct Notice<'a> {
    pub(crate) text: &'a str,
}

pub(crate) async fn style() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response()
}

async fn home(
    State(logins): State<Logins>,
    offer: Offer,
    nav: Nav,
    providers: Providers,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Response {
    match logins.current(from).await {
        Ok(Some(session)) => page(
            StatusCode::OK,
            &Session {
                nav,
                session: &session,
                level: level_in_words(session.level),
                time_left: time_left(session.deadline_ms, Timestamp::now()),
                seconds_left: seconds_left(session.deadline_ms, Timestamp::now()),
                deadline: session.deadline_ms.into(),
                idle: (session.idle_timeout_ms != 0)
                    .then(|| wait(session.idle_timeout_ms.unsigned_abs() / 1000)),
                reset: session.reset.as_ref().map(|reset| Reset {
                    at: reset.at_ms.into(),
                    reason: &reset.reason,
                }),
            },
        ),
        Ok(None) => sign_in(offer, providers).await,
        Err(error) => notice(error),
    }
}

/// Also for a device that has a session: a login replaces it by a fresher or stronger one.
async fn sign_in(offer: Offer, providers: Providers) -> Response {
    page(
        StatusCode::OK,
        &SignIn {
            error: "",
            username: "",
            offer,
            providers: providers.shown().await,
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
    providers: Providers,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    form: Result<Form<LoginForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete(offer);
    };
    match logins
        .begin(from, &form.username, Secret::from(form.password))
        .await
    {
        Ok(step) => next(step, offer),
        Err(error @ (LoginError::Refused | LoginError::Delayed { .. })) => {
            let told = Told::from(error);
            let mut response = page(
                told.status,
                &SignIn {
                    error: &told.text,
                    username: &form.username,
                    offer,
                    providers: providers.shown().await,
                },
            );
            add_retry_after(&mut response, told.retry_after_s);
            response
        }
        Err(error) => notice(error),
    }
}

#[derive(Deserialize)]
struct CodeForm {
    code: String,
}

async fn totp(
    State(logins): State<Logins>,
    offer: Offer,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
    form: Result<Form<CodeForm>, FormRejection>,
) -> Response {
    let id = LoginId::from(attempt);
    let Ok(Form(form)) = form else {
        return incomplete(offer);
    };
    let step = logins.totp(from, &id, form.code.trim()).await;
    after(step, &logins, (from, &id), offer, false).await
}

async fn recovery(
    State(logins): State<Logins>,
    offer: Offer,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
    form: Result<Form<CodeForm>, FormRejection>,
) -> Response {
    let id = LoginId::from(attempt);
    let Ok(Form(form)) = form else {
        return incomplete(offer);
    };
    let step = logins.recovery(from, &id, &form.code).await;
    after(step, &logins, (from, &id), offer, true).await
}

async fn ask_phone(
    State(logins): State<Logins>,
    offer: Offer,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
) -> Response {
    let id = LoginId::from(attempt);
    match logins.ask_phone(from, &id).await {
        // There is such a login: its name is one of ours.
        Ok(_) => Redirect::to(&phone_path(id.as_str())).into_response(),
        Err(error) => again(error, NO_PHONE, &logins, (from, &id), offer, false).await,
    }
}

async fn phone(
    State(logins): State<Logins>,
    offer: Offer,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
) -> Response {
    let id = LoginId::from(attempt);
    let path = phone_path(id.as_str());
    let error = match logins.phone(from, &id).await {
        Ok(PhoneState::Waiting(prompt)) => return shown(Some(&prompt), &path),
        Ok(PhoneState::Approved { .. }) => return shown(None, &path),
        Ok(PhoneState::Denied) => LoginError::NotApproved,
        Ok(PhoneState::Over) => LoginError::ApprovalOver,
        Err(error) => error,
    };
    again(error, NO_PHONE, &logins, (from, &id), offer, false).await
}

async fn finish_phone(
    State(logins): State<Logins>,
    offer: Offer,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(attempt): Path<String>,
) -> Response {
    let id = LoginId::from(attempt);
    match logins.finish_phone(from, &id).await {
        Ok(PhoneStep::Waiting { .. }) => Redirect::to(&phone_path(id.as_str())).into_response(),
        Ok(PhoneStep::Done(step)) => next(step, offer),
        Err(error) => again(error, NO_PHONE, &logins, (from, &id), offer, false).await,
    }
}

fn incomplete(offer: Offer) -> Response {
    let sign_in = SignIn {
        error: "the form is incomplete",
        username: "",
        offer,
        providers: Vec::new(),
    };
    page(StatusCode::BAD_REQUEST, &sign_in)
}

/// The page for the next step of a login, or for its session.
pub(crate) fn next(step: LoginStep, offer: Offer) -> Response {
    match step {
        // The session page says what is so, pending gateways included.
        LoginStep::Done(_) => Redirect::to("/").into_response(),
        step @ LoginStep::Wants { .. } => code(StatusCode::OK, "", &step, offer, false),
    }
}

/// The page after a code: where it was wrong, the same one again with what is still wanted.
async fn after(
    step: Result<LoginStep, LoginError>,
    logins: &Logins,
    (from, id): (IpAddr, &LoginId),
    offer: Offer,
    recovery_open: bool,
) -> Response {
    match step {
        Ok(step) => next(step, offer),
        Err(error) => again(error, WRONG_CODE, logins, (from, id), offer, recovery_open).await,
    }
}

/// What is still wanted, with why the last factor was not taken.
async fn again(
    error: LoginError,
    refused: &str,
    logins: &Logins,
    (from, id): (IpAddr, &LoginId),
    offer: Offer,
    recovery_open: bool,
) -> Response {
    let is_refused = matches!(error, LoginError::Refused);
    match error {
        LoginError::GatewayPending => return Redirect::to("/").into_response(),
        LoginError::Refused
        | LoginError::Delayed { .. }
        | LoginError::NotApproved
        | LoginError::ApprovalOver => {}
        error => return notice(error),
    }
    let told = Told::from(error);
    let text = if is_refused { refused } else { &told.text };
    let mut response = match logins.wants(from, id).await {
        Ok(wants) => code(told.status, text, &wants, offer, recovery_open),
        Err(error) => notice(error),
    };
    add_retry_after(&mut response, told.retry_after_s);
    response
}

fn code(
    status: StatusCode,
    error: &str,
    step: &LoginStep,
    offer: Offer,
    recovery_open: bool,
) -> Response {
    let LoginStep::Wants {
        attempt,
        factors,
        expires_in,
    } = step
    else {
        return Redirect::to("/").into_response();
    };
    let code = Code {
        error,
        attempt: attempt.as_str(),
        expires_in: wait(expires_in.as_secs()),
        totp: factors.contains(Factor::Totp),
        recovery: factors.contains(Factor::RecoveryCode),
        recovery_open,
        passkey: factors.contains(Factor::Passkey) && offer != Offer::Off,
        phone: factors.contains(Factor::Phone),
        offer,
    };
    page(status, &code)
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
    /// In the form that is served at this path.
    pub(crate) fn at(self, path: &str) -> Response {
        if path.starts_with("/api/") {
            self.into_response()
        } else {
            self.into_page()
        }
    }

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
