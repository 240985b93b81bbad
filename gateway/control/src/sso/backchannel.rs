//! OpenID Connect Back-Channel Logout 1.0: a provider tells that its user has logged out there.

use std::sync::Arc;
use std::time::Instant;

use openidconnect::core::CoreProviderMetadata;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::provider::Provider;
use super::token::{LONGEST_SUBJECT, TokenError};
use super::{LEEWAY_MS, Sso, SsoError, jws};
use crate::domain::SessionState;
use crate::login::GATEWAYS_WITHIN;
use crate::secrets::TokenHash;
use crate::store::sessions::{self, Ending, Selection};
use crate::store::sso::{self, Whose};
use crate::store::{Entry, Write};

/// How old a logout token may be.
const LATEST_MS: i64 = 5 * 60 * 1000;
/// Longer than any token is taken.
const REMEMBERED_MS: i64 = 60 * 60 * 1000;
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// A logout that was obeyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedOutThere {
    /// How many sessions have ended.
    pub sessions: usize,
    /// Some gateway has not acknowledged it in time.
    pub pending: bool,
}

#[derive(Deserialize)]
struct LogoutToken {
    iss: String,
    aud: Audience,
    iat: i64,
    exp: Option<i64>,
    jti: String,
    events: Map<String, Value>,
    sub: Option<String>,
    sid: Option<String>,
    nonce: Option<Value>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl LogoutToken {
    /// Section 2.6, beside the signature and the repetition.
    fn check(&self, provider: &Provider, now_ms: i64) -> Result<(), &'static str> {
        let us = provider.client_id.as_str();
        let for_us = match &self.aud {
            Audience::One(audience) => audience == us,
            Audience::Several(audiences) => audiences.iter().any(|audience| audience == us),
        };
        let issued_ms = self.iat.saturating_mul(1000);
        let ends_ms = self.exp.map(|exp| exp.saturating_mul(1000));
        let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
        let long = |text: &Option<String>| {
            text.as_ref()
                .is_some_and(|text| text.len() > LONGEST_SUBJECT)
        };
        if self.iss != provider.issuer.as_str() {
            return Err("another issuer");
        }
        if !for_us {
            return Err("another audience");
        }
        if !(now_ms - LATEST_MS - LEEWAY_MS..=now_ms + LEEWAY_MS).contains(&issued_ms) {
            return Err("it is too old, or of the future");
        }
        if ends_ms.is_some_and(|ends_ms| ends_ms <= now_ms - LEEWAY_MS) {
            return Err("it has expired");
        }
        if self.jti.is_empty() || self.jti.len() > LONGEST_SUBJECT {
            return Err("a jti that is none");
        }
        if !self.events.get(EVENT).is_some_and(Value::is_object) {
            return Err("it is no logout");
        }
        if self.nonce.is_some() {
            return Err("a nonce, which only ID tokens have");
        }
        if (empty(&self.sub) && empty(&self.sid)) || long(&self.sub) || long(&self.sid) {
            return Err("it says neither who nor which session");
        }
        Ok(())
    }
}

impl Sso {
    /// Takes a logout token, and ends the sessions that the logins it speaks of have opened, as well as
    /// such logins half-way. Waits for the gateways.
    pub async fn log_out(&self, provider: &str, token: &str) -> Result<LoggedOutThere, SsoError> {
        let provider = self.provider(provider).ok_or(SsoError::UnknownProvider)?;
        let refuse = |reason: &str| {
            tracing::warn!(
                provider = provider.name,
                reason,
                "a logout token was refused"
            );
            SsoError::Refused
        };
        let token = self.read(provider, token).await?;
        let core = self.core();
        let now_ms = core.now_ms();
        token.check(provider, now_ms).map_err(refuse)?;
        let jti = TokenHash::of(&token.jti);
        let issuer = provider.issuer.as_str();

        let until_ms = now_ms + REMEMBERED_MS;
        let whose = Whose {
            issuer,
            subject: token.sub.as_deref().unwrap_or_default(),
            sid: token.sid.as_deref().unwrap_or_default(),
        };
        // Most logouts are of logins elsewhere: those change nothing that a gateway or an auditor has to
        // hear of, however many the provider tells of.
        let mut write = core.store.record(now_ms).await?;
        if !sso::spend_logout(write.sql(), whose, &jti, now_ms, until_ms).await? {
            return Err(refuse("it was used before"));
        }
        if !sso::is_about_any(write.sql(), whose).await? {
            write.commit().await?;
            return Ok(LoggedOutThere {
                sessions: 0,
                pending: false,
            });
        }
        drop(write);
        let mut write = core.store.change(now_ms).await?;
        if !sso::spend_logout(write.sql(), whose, &jti, now_ms, until_ms).await? {
            return Err(refuse("it was used before"));
        }
        let by = format!("provider:{}", provider.name);
        let ended = end(&mut write, whose, &by).await?;
        write
            .audit(Entry {
                actor: &by,
                action: "session.logout",
                subject: &by,
                detail: crate::ops::ended(&ended.sessions),
            })
            .await?;
        let committed = Instant::now();
        let revision = write.commit().await?;
        let gateways = core
            .acknowledged(&ended.locations, revision, committed, GATEWAYS_WITHIN)
            .await?;
        Ok(LoggedOutThere {
            sessions: ended.sessions.len(),
            pending: gateways.iter().any(|gateway| !gateway.acknowledged),
        })
    }

    async fn read(&self, provider: &Provider, token: &str) -> Result<LogoutToken, SsoError> {
        // Section 2.4: `logout+jwt` where it says what it is; older providers say `JWT`.
        let types = ["logout+jwt", "JWT"];
        let answer = match jws::read(keys(provider, false).await?.jwks(), &types, token) {
            Err(TokenError::NoKey) => jws::read(keys(provider, true).await?.jwks(), &types, token),
            answer => answer,
        };
        answer.map_err(|error| {
            tracing::warn!(provider = provider.name, %error, "a logout token was refused");
            SsoError::Refused
        })
    }
}

async fn keys(provider: &Provider, newer: bool) -> Result<Arc<CoreProviderMetadata>, SsoError> {
    provider.metadata(newer).await.map_err(|error| {
        tracing::warn!(provider = provider.name, %error, "a logout cannot be checked");
        SsoError::Unavailable
    })
}

/// What has ended.
pub(crate) struct Ended {
    pub(crate) sessions: Vec<String>,
    pub(crate) locations: Vec<String>,
}

/// Ends the sessions of logins that a provider vouched for, and such logins half-way.
pub(crate) async fn end(
    write: &mut Write<'_>,
    whose: Whose<'_>,
    by: &str,
) -> Result<Ended, crate::store::StoreError> {
    sso::end_attempts(write.sql(), whose).await?;
    let live = sso::live_sessions(write.sql(), whose).await?;
    let (revision, now_ms) = (write.revision(), write.now_ms());
    let mut sessions = Vec::with_capacity(live.len());
    let mut locations = Vec::new();
    for (session, location) in live {
        let ending = Ending {
            state: SessionState::Revoked,
            by,
        };
        let selection = Selection::Session(session);
        sessions.extend(sessions::end(write.sql(), &selection, ending, revision, now_ms).await?);
        locations.push(location);
    }
    locations.sort();
    locations.dedup();
    Ok(Ended {
        sessions,
        locations,
    })
}
