//! Enrolment for a person with a browser. Each page is the answer to a form, which carries what names
//! the enrolment: it is in no address, hence in no history, no log and no Referer.

use askama::Template;
use axum::extract::State;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Form, Router};
use portcullis_control::{
    EnrolError, EnrolStep, EnrolmentId, Enrolments, NewAuthenticator, PasswordError, Secret,
};
use serde::Deserialize;

use crate::api::Told;
use crate::own::{DEVICES, QR, script};
use crate::pages::page;
use crate::passkeys::passkeys_script;
use crate::public::PublicAddr;
use crate::seed::{drawn, grouped};
use crate::site::Offer;
use crate::view::wait;

const SCRIPT: &str = include_str!("../../assets/enrol.js");

pub(super) fn routes() -> Router<Enrolments> {
    Router::new()
        .route("/enrol", get(open).post(begin))
        .route("/enrol/password", post(password))
        .route("/enrol/totp", post(totp))
        .route("/enrol.js", get(async || script(SCRIPT)))
        .route("/passkeys.js", get(passkeys_script))
        .route("/devices.js", get(async || script(DEVICES)))
        .route("/qr.js", get(async || script(QR)))
}

#[derive(Template)]
#[template(path = "enrol.html")]
struct Open<'a> {
    error: &'a str,
}

#[derive(Template)]
#[template(path = "enrol_password.html")]
struct Choose<'a> {
    error: &'a str,
    enrolment: &'a str,
    user: &'a str,
    expires_in: String,
}

#[derive(Template)]
#[template(path = "enrol_totp.html")]
struct Confirm<'a> {
    error: &'a str,
    enrolment: &'a str,
    uri: &'a str,
    secret: String,
    /// Our own drawing: the one thing in a template that is not escaped.
    qr: String,
}

#[derive(Template)]
#[template(path = "enrol_done.html")]
struct Done<'a> {
    user: &'a str,
    codes: Vec<&'a str>,
    /// Names the account with what may still be added.
    enrolment: &'a str,
    passkey: bool,
    /// Where a first device may be added.
    device_at: Option<&'a str>,
    expires_in: String,
}

/// The same whatever the link: those who only look (mail scanners) learn and change nothing.
async fn open() -> Response {
    page(StatusCode::OK, &Open { error: "" })
}

#[derive(Deserialize)]
struct BeginForm {
    link: String,
}

async fn begin(
    State(enrolments): State<Enrolments>,
    Extension(PublicAddr(from)): Extension<PublicAddr>,
    form: Result<Form<BeginForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    // The whole link, or what stands behind its `#`.
    let token = form.link.trim();
    let token = token.rsplit_once('#').map_or(token, |(_, token)| token);
    match enrolments.begin(from, &Secret::from(token)).await {
        Ok(step) => choose(StatusCode::OK, "", &step),
        Err(error) => over(error),
    }
}

#[derive(Deserialize)]
struct PasswordForm {
    enrolment: String,
    password: String,
    again: String,
}

async fn password(
    State(enrolments): State<Enrolments>,
    form: Result<Form<PasswordForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let id = EnrolmentId::from(form.enrolment);
    let password = Secret::from(form.password);
    let chosen = if password.expose() == Secret::from(form.again).expose() {
        enrolments.password(&id, &password).await
    } else {
        return again(&enrolments, &id, "the two passwords differ").await;
    };
    match chosen {
        Ok(new) => confirm(StatusCode::OK, "", &id, &new),
        Err(EnrolError::Password(error)) => again(&enrolments, &id, &in_words(&error)).await,
        Err(error) => over(error),
    }
}

#[derive(Deserialize)]
struct TotpForm {
    enrolment: String,
    code: String,
}

async fn totp(
    State(enrolments): State<Enrolments>,
    Extension(PublicAddr(from)): Extension<PublicAddr>,
    headers: HeaderMap,
    form: Result<Form<TotpForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let id = EnrolmentId::from(form.enrolment);
    match enrolments.confirm(from, &id, form.code.trim()).await {
        Ok(done) => page(
            StatusCode::OK,
            &Done {
                user: &done.user,
                codes: done.recovery_codes.iter().map(Secret::expose).collect(),
                enrolment: done.newcomer.id.as_str(),
                passkey: done.newcomer.passkey
                    && Offer::from(enrolments.passkeys_at(), &headers).is_here(),
                device_at: done.newcomer.device_at.as_deref(),
                expires_in: wait(done.newcomer.expires_in.as_secs()),
            },
        ),
        Err(error @ EnrolError::Code) => match enrolments.authenticator(&id).await {
            Ok(new) => confirm(StatusCode::UNAUTHORIZED, &error.to_string(), &id, &new),
            Err(error) => over(error),
        },
        Err(error) => over(error),
    }
}

/// The page to choose a password on, with what was wrong.
async fn again(enrolments: &Enrolments, id: &EnrolmentId, error: &str) -> Response {
    match enrolments.step(id).await {
        Ok(step) => choose(StatusCode::BAD_REQUEST, error, &step),
        Err(error) => over(error),
    }
}

fn in_words(error: &PasswordError) -> String {
    error.to_string()
}

fn incomplete() -> Response {
    let open = Open {
        error: "the form is incomplete",
    };
    page(StatusCode::BAD_REQUEST, &open)
}

/// The first page again: with another link it may go on.
fn over(error: EnrolError) -> Response {
    let told = Told::from(error);
    page(told.status, &Open { error: &told.text })
}

fn choose(status: StatusCode, error: &str, step: &EnrolStep) -> Response {
    let choose = Choose {
        error,
        enrolment: step.enrolment.as_str(),
        user: &step.user,
        expires_in: wait(step.expires_in.as_secs()),
    };
    page(status, &choose)
}

fn confirm(status: StatusCode, error: &str, id: &EnrolmentId, new: &NewAuthenticator) -> Response {
    let confirm = Confirm {
        error,
        enrolment: id.as_str(),
        uri: new.uri.expose(),
        secret: grouped(new.secret.expose()),
        qr: drawn(new.uri.expose()),
    };
    page(status, &confirm)
}
