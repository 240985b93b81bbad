//! Signing in from outside of the tunnel: pages that know a browser by its cookies and by nothing else.

mod api;
mod page;

use std::convert::Infallible;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use portcullis_control::{Browser, LoginError, Outside, Stranger};

use crate::api::Told;
use crate::cookie::{self, LOGIN, SESSION};
use crate::public::{PublicAddr, network};

/// Pages, and the one call that their script makes.
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

/// A refusal, in the words of these pages.
fn told(error: LoginError, refused: &str) -> Told {
    let is_refused = matches!(error, LoginError::Refused);
    let mut told = Told::from(error);
    if is_refused {
        refused.clone_into(&mut told.text);
    }
    told
}
