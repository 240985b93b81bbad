//! Signing in from outside of the tunnel: pages and calls that know a browser by its cookies and by nothing else.

mod api;
mod page;

use std::convert::Infallible;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use portcullis_control::{Browser, LoginError, Opened, Outside, OutsideStep, Stranger, network};

use crate::api::Told;
use crate::cookie::{self, LOGIN, SESSION};
use crate::public::PublicAddr;
use crate::site::Offer;
use crate::view::seconds_left;

/// Pages and calls.
pub(crate) fn routes() -> Router<Outside> {
    page::routes().merge(api::routes())
}

/// Who asks.
struct Asking {
    /// `None` where the connection's address was not told, which the listener always does.
    stranger: Option<Stranger>,
    /// Whose login is half-way.
    login: Option<Browser>,
    /// Who has opened a session.
    session: Option<Browser>,
}

impl Asking {
    fn stranger(&self) -> Result<Stranger, LoginError> {
        self.stranger.ok_or(LoginError::UnknownDevice)
    }

    fn login(&self) -> Result<&Browser, LoginError> {
        self.login.as_ref().ok_or(LoginError::UnknownAttempt)
    }

    /// Who goes on with a login, and from where.
    fn who(&self) -> Result<(Stranger, &Browser), LoginError> {
        Ok((self.stranger()?, self.login()?))
    }
}

impl FromRequestParts<Outside> for Asking {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Outside) -> Result<Self, Infallible> {
        let from = parts.extensions.get::<PublicAddr>();
        Ok(Self {
            stranger: from.map(|&PublicAddr(from)| Stranger {
                network: network(from),
            }),
            login: cookie::browser(&parts.headers, LOGIN),
            session: cookie::browser(&parts.headers, SESSION),
        })
    }
}

impl FromRequestParts<Outside> for Offer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, outside: &Outside) -> Result<Self, Infallible> {
        Ok(Self::from(outside.portal_name(), &parts.headers))
    }
}

const WRONG_PASSWORD: &str =
    "the name or the password is wrong, or nothing can be signed in from here with it";
const WRONG_CODE: &str = "the code is wrong, was used already, or is too old";
const NO_PHONE: &str =
    "no phone can approve this, or it was asked from another network, or taken already";
const NO_DEVICE: &str = "this device cannot be signed in from here any more";

/// By which a login goes on.
fn login_cookie(browser: &Browser, step: &OutsideStep) -> (HeaderName, HeaderValue) {
    let seconds = match step {
        OutsideStep::Wants { expires_in, .. } => expires_in.as_secs(),
        OutsideStep::Choose(_) => 0,
    };
    cookie::give(browser, LOGIN, seconds)
}

/// The session's in place of the login's.
fn opened_cookies(opened: &Opened) -> [(HeaderName, HeaderValue); 2] {
    let seconds = seconds_left(opened.session.deadline_ms, Timestamp::now());
    [
        cookie::give(&opened.browser, SESSION, seconds),
        cookie::take(LOGIN),
    ]
}

/// A refusal, in the words of these pages.
fn told(error: LoginError, refused: &str) -> Told {
    let is_refused = matches!(error, LoginError::Refused);
    let mut told = Told::from(error);
    if is_refused {
        refused.clone_into(&mut told.text);
    }
    told
}
