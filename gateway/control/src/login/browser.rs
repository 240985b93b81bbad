//! Which browser a request comes from.

use super::LoginError;
use crate::error::OperationError;
use crate::secrets::{Secret, Token, TokenHash};

/// A browser, known by a random cookie. The store keeps a hash of it.
#[derive(Clone, Debug)]
pub struct Browser(Secret);

impl Browser {
    /// One that was not known before.
    pub fn new() -> Result<Self, LoginError> {
        let token = Token::generate().map_err(OperationError::from)?;
        Ok(Self(Secret::from(token.expose())))
    }

    /// The one that presents this cookie. `None` where we gave no such cookie: what is short enough to
    /// guess names nobody.
    pub fn presenting(cookie: &str) -> Option<Self> {
        Token::looks_like_one(cookie).then(|| Self(Secret::from(cookie)))
    }

    /// The cookie's value.
    pub fn cookie(&self) -> &Secret {
        &self.0
    }

    pub(crate) fn hash(&self) -> TokenHash {
        TokenHash::of(self.0.expose())
    }
}
