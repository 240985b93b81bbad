//! The page of one's factors. None of it needs a script.

use askama::Template;
use axum::extract::Path;
use axum::extract::rejection::FormRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Form, Router};
use portcullis_control::{
    EndedSessions, Level, LinkedProvider, NewRecoveryCodes, OwnFactors, Secret, SelfService,
    SelfServiceError, TotpSetup,
};
use serde::Deserialize;

use super::Own;
use super::devices::{incomplete, told};
use crate::api::{Told, add_retry_after};
use crate::guard::DeviceAddr;
use crate::nav::Nav;
use crate::pages::{Notice, page};
use crate::seed::{drawn, grouped};
use crate::site::Site;
use crate::view::{Moment, wait};

/// Sections of the page.
const PASSWORD: &str = "password";
const RECOVERY_CODES: &str = "recovery-codes";

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/factors", get(factors))
        .route("/factors/password", post(password))
        .route("/factors/totp", get(setup).post(begin_totp))
        .route("/factors/totp/confirm", post(confirm_totp))
        .route("/factors/recovery-codes", post(recovery_codes))
        .route("/factors/sso/{provider}/unlink", post(unlink))
}

#[derive(Template)]
#[template(path = "factors.html")]
struct FactorsPage<'a> {
    nav: Nav,
    factors: &'a OwnFactors,
    password: Option<Moment>,
    totp: Option<Moment>,
    /// Whether the portal has passkeys.
    passkeys: bool,
    providers: Vec<Card<'a>>,
    /// Why nothing can be changed now.
    needs: Option<&'static str>,
    error: &'a str,
    /// What was done.
    done: &'static str,
    /// The section whose form was refused: it stays open.
    opened: &'static str,
}

struct Card<'a> {
    provider: &'a LinkedProvider,
    linked: Moment,
}

impl<'a> FactorsPage<'a> {
    fn new(factors: &'a OwnFactors, nav: Nav) -> Self {
        let cards = factors.providers.iter().map(|provider| Card {
            provider,
            linked: provider.linked_ms.into(),
        });
        Self {
            passkeys: nav.passkeys,
            nav,
            password: factors.password.and_then(|set| set.at_ms).map(Into::into),
            totp: factors.totp.and_then(|set| set.at_ms).map(Into::into),
            providers: cards.collect(),
            needs: factors.change_needs.map(|level| match level {
                Level::PhishingResistant => "To change any of this, sign in again with a passkey.",
                _ => "To change any of this, sign in again.",
            }),
            factors,
            error: "",
            done: "",
            opened: "",
        }
    }
}

#[derive(Template)]
#[template(path = "factors_totp.html")]
struct SetupPage<'a> {
    nav: Nav,
    error: &'a str,
    uri: &'a str,
    secret: String,
    /// Our own drawing: the one thing in a template that is not escaped.
    qr: String,
    expires_in: String,
}

#[derive(Template)]
#[template(path = "factors_codes.html")]
struct CodesPage<'a> {
    nav: Nav,
    codes: Vec<&'a str>,
    pending: bool,
}

async fn factors(
    Own(own): Own,
    nav: Nav,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Response {
    match own.factors(from).await {
        Ok(factors) => page(StatusCode::OK, &FactorsPage::new(&factors, nav)),
        Err(error) => told(error),
    }
}

#[derive(Deserialize)]
struct PasswordForm {
    password: String,
    again: String,
    /// A checkbox: there or not.
    end_other_sessions: Option<String>,
}

async fn password(
    Own(own): Own,
    nav: Nav,
    device: Extension<DeviceAddr>,
    form: Result<Form<PasswordForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let (password, twice) = (Secret::from(form.password), Secret::from(form.again));
    if password.expose() != twice.expose() {
        let differ = "the two passwords differ";
        return again(
            &own,
            nav,
            device,
            (StatusCode::BAD_REQUEST, differ),
            PASSWORD,
        )
        .await;
    }
    let end_others = form.end_other_sessions.is_some();
    let changed = own.change_password(device.0.0, &password, end_others).await;
    let done = "Your password is changed.";
    after(&own, nav, device, changed, done, PASSWORD).await
}

async fn begin_totp(Own(own): Own, nav: Nav, device: Extension<DeviceAddr>) -> Response {
    match own.begin_totp(device.0.0).await {
        Ok(_) => Redirect::to("/factors/totp").into_response(),
        Err(error) => refused(&own, nav, device, error, "").await,
    }
}

async fn setup(Own(own): Own, nav: Nav, device: Extension<DeviceAddr>) -> Response {
    match own.totp_setup(device.0.0).await {
        Ok(setup) => show(StatusCode::OK, "", &setup, nav),
        // Over, or never begun.
        Err(SelfServiceError::NoSetup) => Redirect::to("/factors").into_response(),
        Err(error) => told(error),
    }
}

#[derive(Deserialize)]
struct CodeForm {
    code: String,
    /// A checkbox: there or not.
    end_other_sessions: Option<String>,
}

async fn confirm_totp(
    Own(own): Own,
    nav: Nav,
    device: Extension<DeviceAddr>,
    form: Result<Form<CodeForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let end_others = form.end_other_sessions.is_some();
    let code = form.code.trim();
    let error = match own.confirm_totp(device.0.0, code, end_others).await {
        Err(error @ (SelfServiceError::Code | SelfServiceError::Login(_))) => error,
        confirmed => {
            let done =
                "Your new authenticator is set up. The one before gives no good codes any more.";
            return after(&own, nav, device, confirmed, done, "").await;
        }
    };
    let why = Told::from(error);
    let mut response = match own.totp_setup(device.0.0).await {
        Ok(setup) => show(why.status, &why.text, &setup, nav),
        Err(error) => return refused(&own, nav, device, error, "").await,
    };
    add_retry_after(&mut response, why.retry_after_s);
    response
}

#[derive(Deserialize)]
struct WishForm {
    /// A checkbox: there or not.
    end_other_sessions: Option<String>,
}

async fn recovery_codes(
    Own(own): Own,
    nav: Nav,
    device: Extension<DeviceAddr>,
    form: Result<Form<WishForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let end_others = form.end_other_sessions.is_some();
    match own.new_recovery_codes(device.0.0, end_others).await {
        Ok(NewRecoveryCodes { codes, ended }) => page(
            StatusCode::CREATED,
            &CodesPage {
                nav,
                codes: codes.iter().map(Secret::expose).collect(),
                pending: ended.pending,
            },
        ),
        Err(error) => refused(&own, nav, device, error, RECOVERY_CODES).await,
    }
}

async fn unlink(
    Own(own): Own,
    nav: Nav,
    device: Extension<DeviceAddr>,
    Path(provider): Path<String>,
    form: Result<Form<WishForm>, FormRejection>,
) -> Response {
    let Ok(Form(form)) = form else {
        return incomplete();
    };
    let end_others = form.end_other_sessions.is_some();
    let unlinked = own.unlink_provider(device.0.0, &provider, end_others).await;
    let done = "The account there signs you in no more.";
    after(&own, nav, device, unlinked, done, "").await
}

/// The page after a change.
async fn after(
    own: &SelfService,
    nav: Nav,
    device: Extension<DeviceAddr>,
    changed: Result<EndedSessions, SelfServiceError>,
    done: &'static str,
    opened: &'static str,
) -> Response {
    match changed {
        Ok(ended) if ended.pending => page(
            StatusCode::ACCEPTED,
            &Notice {
                text: "It is changed and the sessions have ended, but a gateway has not confirmed that yet: until it does, those devices may still be let through.",
            },
        ),
        Ok(_) => match own.factors(device.0.0).await {
            Ok(factors) => {
                let changed = FactorsPage {
                    done,
                    ..FactorsPage::new(&factors, nav)
                };
                page(StatusCode::OK, &changed)
            }
            Err(error) => told(error),
        },
        Err(error) => refused(own, nav, device, error, opened).await,
    }
}

/// The page once more, with what was wrong.
async fn refused(
    own: &SelfService,
    nav: Nav,
    device: Extension<DeviceAddr>,
    error: SelfServiceError,
    opened: &'static str,
) -> Response {
    if matches!(error, SelfServiceError::NoSession) {
        return told(error);
    }
    let why = Told::from(error);
    let mut response = again(own, nav, device, (why.status, &why.text), opened).await;
    add_retry_after(&mut response, why.retry_after_s);
    response
}

async fn again(
    own: &SelfService,
    nav: Nav,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    (status, error): (StatusCode, &str),
    opened: &'static str,
) -> Response {
    match own.factors(from).await {
        Ok(factors) => {
            let refused = FactorsPage {
                error,
                opened,
                ..FactorsPage::new(&factors, nav)
            };
            page(status, &refused)
        }
        Err(error) => told(error),
    }
}

fn show(status: StatusCode, error: &str, setup: &TotpSetup, nav: Nav) -> Response {
    let (uri, secret) = (&setup.authenticator.uri, &setup.authenticator.secret);
    let setup = SetupPage {
        nav,
        error,
        uri: uri.expose(),
        secret: grouped(secret.expose()),
        qr: drawn(uri.expose()),
        expires_in: wait(setup.expires_in.as_secs()),
    };
    page(status, &setup)
}
