//! The pages. What names a login is in a cookie: not in an address, hence in no history and no log.

use askama::Template;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::StatusCode;
use axum::response::{AppendHeaders, IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Form, Router};
use jiff::Timestamp;
use portcullis_control::{
    Choice, Factor, LoggedOut, LoginError, Outside, OutsideStep, PhoneState, PhoneStep, Secret,
    SessionView,
};
use serde::Deserialize;

use super::{
    Asking, NO_DEVICE, NO_PHONE, WRONG_CODE, WRONG_PASSWORD, login_cookie, opened_cookies, told,
};
use crate::api::{Told, add_retry_after};
use crate::cookie::{self, SESSION};
use crate::own::session_script;
use crate::pages::{Notice, heading, page};
use crate::phone::{phone_script, shown};
use crate::site::Offer;
use crate::view::{Moment, level_in_words, seconds_left, time_left, wait};

/// The page that waits for the phone.
const PHONE: &str = "/login/phone";

pub(super) fn routes() -> Router<Outside> {
    Router::new()
        .route("/", get(home))
        .route("/sign-in", get(sign_in))
        .route("/login", post(login))
        .route("/login/totp", post(totp))
        .route("/login/recovery", post(recovery))
        .route("/login/phone", get(phone).post(ask_phone))
        .route("/login/phone/finish", post(finish_phone))
        .route("/login/device", post(device))
        .route("/logout", post(logout))
        .route("/session.js", get(session_script))
        .route("/phone.js", get(phone_script))
}

#[derive(Template)]
#[template(path = "outside_sign_in.html")]
struct SignIn<'a> {
    error: &'a str,
    username: &'a str,
}

#[derive(Template)]
#[template(path = "outside_code.html")]
struct Code<'a> {
    error: &'a str,
    expires_in: String,
    totp: bool,
    recovery: bool,
    /// A recovery code was refused, and the next one may be good.
    recovery_open: bool,
    passkey: bool,
    phone: bool,
    offer: Offer,
}

impl Code<'_> {
    /// For the template.
    fn passkey_call(&self) -> &'static str {
        "/api/v1/login/passkey"
    }

    fn phone_path(&self) -> &'static str {
        PHONE
    }

    fn heading(&self) -> &'static str {
        heading(self.totp || self.recovery, self.passkey)
    }
}

#[derive(Template)]
#[template(path = "outside_devices.html")]
struct Devices<'a> {
    error: &'a str,
    choices: &'a [Choice],
}

#[derive(Template)]
#[template(path = "outside_session.html")]
struct Session<'a> {
    session: &'a SessionView,
    level: &'static str,
    time_left: String,
    /// For the script.
    seconds_left: u64,
    deadline: Moment,
    idle: Option<String>,
}

/// The session that this browser has opened, or else its login where it is.
async fn home(State(outside): State<Outside>, offer: Offer, asking: Asking) -> Response {
    let session = match &asking.session {
        Some(browser) => outside.session(browser).await,
        None => Ok(None),
    };
    let now = Timestamp::now();
    match session {
        Ok(Some(session)) => page(
            StatusCode::OK,
            &Session {
                level: level_in_words(session.level),
                time_left: time_left(session.deadline_ms, now),
                seconds_left: seconds_left(session.deadline_ms, now),
                deadline: session.deadline_ms.into(),
                idle: (session.idle_timeout_ms != 0)
                    .then(|| wait(session.idle_timeout_ms.unsigned_abs() / 1000)),
                session: &session,
            },
        ),
        Ok(None) => match still(&outside, &asking).await {
            Ok(step) => next(StatusCode::OK, "", &step, false, offer),
            Err(_) => sign_in().await,
        },
        Err(error) => Told::from(error).into_page(),
    }
}

async fn sign_in() -> Response {
    let (error, username) = ("", "");
    page(StatusCode::OK, &SignIn { error, username })
}

#[derive(Deserialize)]
struct LoginForm {
    username: String,
    password: String,
}

async fn login(
    State(outside): State<Outside>,
    offer: Offer,
    asking: Asking,
    form: Result<Form<LoginForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let password = Secret::from(form.password);
    let begun = match asking.stranger() {
        Ok(stranger) => outside.begin(stranger, &form.username, &password).await,
        Err(error) => Err(error),
    };
    match begun {
        Ok((browser, step)) => {
            let given = [login_cookie(&browser, &step)];
            (given, next(StatusCode::OK, "", &step, false, offer)).into_response()
        }
        Err(error) => again(told(error, WRONG_PASSWORD), &form.username),
    }
}

#[derive(Deserialize)]
struct CodeForm {
    code: String,
}

async fn totp(
    State(outside): State<Outside>,
    offer: Offer,
    asking: Asking,
    form: Result<Form<CodeForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let step = match asking.who() {
        Ok((stranger, browser)) => outside.totp(stranger, browser, form.code.trim()).await,
        Err(error) => Err(error),
    };
    after(&outside, &asking, offer, step, WRONG_CODE, false).await
}

async fn recovery(
    State(outside): State<Outside>,
    offer: Offer,
    asking: Asking,
    form: Result<Form<CodeForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let step = match asking.who() {
        Ok((stranger, browser)) => outside.recovery(stranger, browser, &form.code).await,
        Err(error) => Err(error),
    };
    after(&outside, &asking, offer, step, WRONG_CODE, true).await
}

async fn ask_phone(State(outside): State<Outside>, offer: Offer, asking: Asking) -> Response {
    let asked = match asking.who() {
        Ok((stranger, browser)) => outside.ask_phone(stranger, browser).await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(_) => Redirect::to(PHONE).into_response(),
        Err(error) => after(&outside, &asking, offer, Err(error), NO_PHONE, false).await,
    }
}

async fn phone(State(outside): State<Outside>, offer: Offer, asking: Asking) -> Response {
    let state = match asking.who() {
        Ok((stranger, browser)) => outside.phone(stranger, browser).await,
        Err(error) => Err(error),
    };
    let error = match state {
        Ok(PhoneState::Waiting(prompt)) => return shown(Some(&prompt), PHONE),
        Ok(PhoneState::Approved { .. }) => return shown(None, PHONE),
        Ok(PhoneState::Denied) => LoginError::NotApproved,
        Ok(PhoneState::Over) => LoginError::ApprovalOver,
        Err(error) => error,
    };
    after(&outside, &asking, offer, Err(error), NO_PHONE, false).await
}

async fn finish_phone(State(outside): State<Outside>, offer: Offer, asking: Asking) -> Response {
    let step = match asking.who() {
        Ok((stranger, browser)) => outside.finish_phone(stranger, browser).await,
        Err(error) => Err(error),
    };
    let step = match step {
        Ok(PhoneStep::Waiting { .. }) => return Redirect::to(PHONE).into_response(),
        Ok(PhoneStep::Done(step)) => Ok(step),
        Err(error) => Err(error),
    };
    after(&outside, &asking, offer, step, NO_PHONE, false).await
}

#[derive(Deserialize)]
struct DeviceForm {
    device: String,
}

async fn device(
    State(outside): State<Outside>,
    offer: Offer,
    asking: Asking,
    form: Result<Form<DeviceForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let opened = match asking.who() {
        Ok((stranger, browser)) => outside.choose(stranger, browser, &form.device).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok(opened) => {
            let cookies = AppendHeaders(opened_cookies(&opened));
            (cookies, Redirect::to("/")).into_response()
        }
        Err(error) => after(&outside, &asking, offer, Err(error), NO_DEVICE, false).await,
    }
}

async fn logout(State(outside): State<Outside>, asking: Asking) -> Response {
    let ended = match &asking.session {
        Some(browser) => outside.end(browser).await,
        None => Ok(None),
    };
    let response = match ended {
        Ok(Some(LoggedOut { pending: true })) => page(
            StatusCode::ACCEPTED,
            &Notice {
                text: "The session has ended, but a gateway has not confirmed it yet: until it does, the device may still be let through.",
            },
        ),
        Ok(_) => Redirect::to("/").into_response(),
        Err(error) => return Told::from(error).into_page(),
    };
    ([cookie::take(SESSION)], response).into_response()
}

/// The page for the next step. Where the last one was wrong, the same one again.
async fn after(
    outside: &Outside,
    asking: &Asking,
    offer: Offer,
    step: Result<OutsideStep, LoginError>,
    refused: &str,
    recovery_open: bool,
) -> Response {
    let error = match step {
        Ok(step) => return next(StatusCode::OK, "", &step, false, offer),
        Err(error) => error,
    };
    let still = still(outside, asking).await;
    let told = told(error, refused);
    match still {
        Ok(step) => {
            let mut response = next(told.status, &told.text, &step, recovery_open, offer);
            add_retry_after(&mut response, told.retry_after_s);
            response
        }
        Err(_) => again(told, ""),
    }
}

async fn still(outside: &Outside, asking: &Asking) -> Result<OutsideStep, LoginError> {
    outside.step(asking.login()?).await
}

fn next(
    status: StatusCode,
    error: &str,
    step: &OutsideStep,
    recovery_open: bool,
    offer: Offer,
) -> Response {
    match step {
        OutsideStep::Wants {
            factors,
            expires_in,
        } => page(
            status,
            &Code {
                error,
                expires_in: wait(expires_in.as_secs()),
                totp: factors.contains(Factor::Totp),
                recovery: factors.contains(Factor::RecoveryCode),
                recovery_open,
                passkey: factors.contains(Factor::Passkey),
                phone: factors.contains(Factor::Phone),
                offer,
            },
        ),
        OutsideStep::Choose(choices) => page(status, &Devices { error, choices }),
    }
}

fn incomplete() -> Response {
    let error = "the form is incomplete";
    let sign_in = SignIn {
        error,
        username: "",
    };
    page(StatusCode::BAD_REQUEST, &sign_in)
}

/// The first page, with what was wrong.
fn again(told: Told, username: &str) -> Response {
    let error = &told.text;
    let mut response = page(told.status, &SignIn { error, username });
    add_retry_after(&mut response, told.retry_after_s);
    response
}
