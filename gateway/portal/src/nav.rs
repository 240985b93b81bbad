//! The links between the pages of who is signed in.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::site::Site;

/// What the navigation shows; `nav.html` draws it.
#[derive(Clone, Debug)]
pub(crate) struct Nav {
    path: String,
    /// Where the portal has no name there are none.
    pub(crate) passkeys: bool,
}

impl Nav {
    /// For templates: whether the page belongs to this entry.
    pub(crate) fn is(&self, path: &str) -> bool {
        self.path == path
            || (path != "/"
                && self
                    .path
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.starts_with('/')))
    }
}

impl FromRequestParts<Site> for Nav {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, site: &Site) -> Result<Self, Infallible> {
        Ok(Self {
            path: parts.uri.path().to_owned(),
            passkeys: site.passkeys.is_some(),
        })
    }
}
