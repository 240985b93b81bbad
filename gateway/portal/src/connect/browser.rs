//! What logins in a browser of the connecting machine have in common.

use portcullis_control::{BrowserVisit, ConnectProof, Secret};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whose device begins, and where the browser comes back to.
#[derive(Deserialize, ToSchema)]
#[schema(as = ConnectBrowserBegin)]
pub(super) struct BeginJson {
    location: String,
    public_key: String,
    challenge: String,
    /// As for a login with a password.
    proof: String,
    /// As in the proof. Who logs in is the device's own user.
    username: String,
    /// Where the caller listens on 127.0.0.1, from 1024 on.
    pub(super) port: u16,
    /// Renew the device's live session.
    #[serde(default)]
    renew: bool,
}

impl From<BeginJson> for ConnectProof {
    fn from(begin: BeginJson) -> Self {
        Self {
            location: begin.location,
            public_key: begin.public_key,
            challenge: begin.challenge,
            proof: Secret::from(begin.proof),
            username: begin.username,
            password: Secret::from(String::new()),
            renew: begin.renew,
        }
    }
}

/// A login that waits for a browser.
#[derive(Serialize, ToSchema)]
#[schema(as = ConnectBrowserVisit)]
pub(super) struct VisitJson {
    attempt: String,
    /// To be opened in a browser of the caller's machine.
    url: String,
    /// That browser comes back to `http://127.0.0.1:PORT/` and this, with a query.
    path: String,
    expires_in_s: u64,
}

impl From<BrowserVisit> for VisitJson {
    fn from(visit: BrowserVisit) -> Self {
        Self {
            attempt: visit.attempt.as_str().to_owned(),
            url: visit.url.expose().to_owned(),
            path: visit.path,
            expires_in_s: visit.expires_in.as_secs(),
        }
    }
}
