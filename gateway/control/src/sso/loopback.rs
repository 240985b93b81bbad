//! Back to the program that waits on the user's own machine (RFC 8252, section 7.3).
//!
//! A link can be sent to somebody else, who then signs in for a stranger. The answer therefore goes through the browser to
//! a port of the machine that the browser runs on, and only who has begun the login can use it: with both
//! ends on one machine it is the same person's, or nobody's.

use openidconnect::url::Url;
use serde::{Deserialize, Serialize};

use super::Callback;
use crate::secrets::{Token, VaultError};
use crate::store::StoreError;

/// Where a program listens on the machine of its user's browser.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Loopback {
    port: u16,
    /// Unguessable, so that no page can tell the program anything.
    path: String,
}

impl Loopback {
    /// On a port that needs no privilege, at a path that is made here: nobody chooses what is asked of whatever
    /// else listens there. `None` for other ports.
    pub(crate) fn at(port: u16) -> Result<Option<Self>, VaultError> {
        if port < 1024 {
            return Ok(None);
        }
        let path = Token::generate()?.expose().to_owned();
        Ok(Some(Self { port, path }))
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// With what the provider has answered, as it was answered.
    pub(crate) fn with(&self, callback: &Callback) -> Result<Url, StoreError> {
        let address = format!("http://127.0.0.1:{}/{}", self.port, self.path);
        let mut url = Url::parse(&address).map_err(|_| StoreError::Value("loopback"))?;
        let mut query = url.query_pairs_mut();
        let state = Some(callback.state.as_str()).filter(|state| !state.is_empty());
        let code = callback.code.as_ref().map(crate::secrets::Secret::expose);
        let pairs = [
            ("state", state),
            ("code", code),
            ("error", callback.error.as_deref()),
            ("iss", callback.issuer.as_deref()),
        ];
        for (name, value) in pairs {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        drop(query);
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_to_the_machine_of_the_browser_and_nowhere_else() {
        let back_to = Loopback::at(40_000).unwrap().unwrap();
        let callback = Callback {
            state: "s&x=1".into(),
            code: Some("@evil.example/".to_owned().into()),
            error: None,
            issuer: Some("https://id.example.com".into()),
        };
        let url = back_to.with(&callback).unwrap();
        assert_eq!(url.host_str(), Some("127.0.0.1"));
        assert_eq!((url.scheme(), url.port()), ("http", Some(40_000)));
        assert_eq!(url.path(), format!("/{}", back_to.path()));
        let pairs: Vec<_> = url.query_pairs().into_owned().collect();
        assert_eq!(pairs[0], ("state".into(), "s&x=1".into()));
        assert_eq!(pairs[1], ("code".into(), "@evil.example/".into()));
        assert_eq!(pairs.len(), 3);
        assert!(Loopback::at(80).unwrap().is_none());
    }
}
