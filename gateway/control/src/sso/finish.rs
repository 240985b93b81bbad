//! A user who is back from a provider.

use std::net::IpAddr;
use std::time::Duration;

use openidconnect::core::{CoreClient, CoreProviderMetadata};
use openidconnect::{
    AuthorizationCode, PkceCodeVerifier, RedirectUrl, RequestTokenError, TokenResponse as _,
};
use serde_json::json;

use super::groups::told;
use super::provider::{Provider, causes};
use super::token::{self, TokenError, Vouch};
use super::{Sso, SsoError, VisitSecrets, field, place};
use crate::error::OperationError;
use crate::login::{
    Browser, LoginError, LoginId, LoginStep, Next, WITHIN_MS, after_sso, canonical, proven_by_sso,
    view,
};
use crate::ops::sessions::{Grant, grant};
use crate::secrets::{Secret, TokenHash};
use crate::store::attempts::{self, NewAttempt};
use crate::store::devices::DeviceRow;
use crate::store::limits::{self, Counted};
use crate::store::sso::{self, VisitOf, Vouched, Whose};
use crate::store::{Entry, StoreError, devices, factors, locations, sessions, to_u64, users};

/// The parameters that a provider sends a user back with. None is trusted.
#[derive(Clone, Debug, Default)]
pub struct Callback {
    /// Names the visit.
    pub state: String,
    pub code: Option<Secret>,
    /// In place of a code.
    pub error: Option<String>,
    /// RFC 9207.
    pub issuer: Option<String>,
}

/// Why there is no login, for the log; the user hears less.
enum Refusal {
    Declined(&'static str),
    Unavailable(String),
    Bad(String),
}

impl Sso {
    /// Takes a user back, and grants what the provider's word is good for at the device's location: a
    /// session, or a login that wants one more factor. The browser has to be the one that was sent there.
    pub async fn finish(
        &self,
        from: IpAddr,
        provider: &str,
        callback: &Callback,
        browser: Option<&Browser>,
    ) -> Result<LoginStep, SsoError> {
        let core = self.core();
        let provider = self.provider(provider).ok_or(SsoError::UnknownProvider)?;
        let browser = browser.ok_or(SsoError::UnknownVisit)?.hash();
        // Spent before anything else about it is looked at: no state, and so no code, counts twice.
        let id = TokenHash::of(&callback.state);
        let address = canonical(from);
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let of = VisitOf {
            provider: &provider.name,
            address: &address,
            browser: &browser,
        };
        let visit = sso::take_visit(write.sql(), &id, of, now_ms).await?;
        let visit = visit.ok_or(SsoError::UnknownVisit)?;
        let device = devices::find_by_address(write.sql(), &address).await?;
        let device = device.filter(|device| device.id == visit.device_id);
        let device = device.ok_or(LoginError::UnknownDevice)?;
        write.commit().await?;
        let place = place(id.as_str(), &provider.name, &visit.device_id);
        let json = core
            .vault
            .unseal(field(&place), &visit.secrets)
            .map_err(OperationError::from)?;
        let secrets: VisitSecrets =
            serde_json::from_slice(&json).map_err(|_| StoreError::Value("visit"))?;

        self.logins.reserve(Counted::Device(&device.id)).await?;
        let vouch = match self
            .vouch(provider, callback, &secrets, visit.begun_ms)
            .await
        {
            Ok(vouch) => vouch,
            Err(refusal) => return self.refuse(&device, provider, refusal).await,
        };
        match self
            .advance(from, provider, &device, &secrets, visit.begun_ms, vouch)
            .await?
        {
            Ok(step) => Ok(step),
            Err(reason) => {
                let refusal = Refusal::Bad(reason.to_owned());
                self.refuse(&device, provider, refusal).await
            }
        }
    }

    /// What the provider says of its user, by a token that is good.
    async fn vouch(
        &self,
        provider: &Provider,
        callback: &Callback,
        secrets: &VisitSecrets,
        begun_ms: i64,
    ) -> Result<Vouch, Refusal> {
        // RFC 9207, 2.4: where it is told, it has to be the one that the user was sent to.
        if let Some(issuer) = &callback.issuer
            && issuer != provider.issuer.as_str()
        {
            return Err(Refusal::Bad("the answer names another issuer".into()));
        }
        if let Some(error) = &callback.error {
            return Err(Refusal::Declined(in_words(error)));
        }
        let Some(code) = &callback.code else {
            return Err(Refusal::Bad("the answer has no code".into()));
        };
        let unavailable = |error: &dyn std::error::Error| Refusal::Unavailable(causes(error));
        let metadata = provider.metadata(false).await;
        let metadata = metadata.map_err(|error| unavailable(&error))?;
        let token = exchange(provider, &metadata, code, secrets).await?;
        let now_ms = self.core().now_ms();
        let read = |metadata: &CoreProviderMetadata| {
            token::read(provider, metadata, &token, &secrets.nonce, begun_ms, now_ms)
        };
        let vouch = match read(&metadata) {
            // It may have new keys.
            Err(TokenError::NoKey) => {
                let metadata = provider.metadata(true).await;
                read(&*metadata.map_err(|error| unavailable(&error))?)
            }
            read => read,
        };
        vouch.map_err(|error| Refusal::Bad(error.to_string()))
    }

    /// Counts a refusal for the audit, and says as much of it as its user may know.
    async fn refuse<T>(
        &self,
        device: &DeviceRow,
        provider: &Provider,
        refusal: Refusal,
    ) -> Result<T, SsoError> {
        let (error, reason) = match refusal {
            Refusal::Declined(words) => (SsoError::Declined(words), words.to_owned()),
            Refusal::Unavailable(reason) => (SsoError::Unavailable, reason),
            Refusal::Bad(reason) => (SsoError::Refused, reason),
        };
        tracing::info!(
            provider = provider.name,
            device = device.name,
            reason,
            "no sign-in by a provider"
        );
        let refused = self
            .logins
            .refuse::<T>(&device.id, &device.user, &device.name, "sso")
            .await;
        match refused {
            Err(LoginError::Refused) => Err(error),
            other => Ok(other?),
        }
    }

    /// Takes in what the provider vouches for: all or nothing. The inner error is why not.
    async fn advance(
        &self,
        from: IpAddr,
        provider: &Provider,
        visitor: &DeviceRow,
        secrets: &VisitSecrets,
        begun_ms: i64,
        vouch: Vouch,
    ) -> Result<Result<LoginStep, &'static str>, SsoError> {
        let core = self.core();
        let mut write = core.store.change(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let (issuer, subject) = (provider.issuer.as_str(), vouch.subject.as_str());
        let Some(user_id) = sso::user_of(write.sql(), issuer, subject).await? else {
            return Ok(Err("the account is linked to nobody"));
        };
        let whose = Whose {
            issuer,
            subject,
            sid: &vouch.sid,
        };
        if sso::logged_out_since(write.sql(), whose, begun_ms).await? {
            return Ok(Err("its user has logged out there meanwhile"));
        }
        // As things are now, not as they were when the user was sent there.
        let device = devices::find_by_address(write.sql(), &canonical(from)).await?;
        let device = device.filter(|device| device.id == visitor.id && device.user_id == user_id);
        let Some(device) = device.filter(|device| !device.user_disabled) else {
            return Ok(Err(
                "the account is linked to another user, or the user is disabled",
            ));
        };
        let Some(location) = locations::find(write.sql(), &device.location_id).await? else {
            return Ok(Err("the location is gone"));
        };
        let proven = proven_by_sso(vouch.level, vouch.one_is_known);
        let Some(next) = after_sso(&location.mfa, proven) else {
            return Ok(Err("the location does not take the provider's word"));
        };
        factors::vouched(write.sql(), issuer, subject, vouch.level).await?;
        if let Some(groups) = &vouch.groups {
            let lifetime_ms = location.mfa.session_lifetime_ms;
            told(core, &mut write, provider, &device, groups, lifetime_ms).await?;
        }
        let actor = format!("user:{}", device.user);
        let entry = Entry {
            actor: &actor,
            action: "login.begin",
            subject: &format!("device:{}", device.name),
            detail: json!({
                "step": "sso",
                "provider": provider.name,
                "level": vouch.level.as_str_name(),
            }),
        };
        write.audit(entry).await?;
        attempts::delete_expired(write.sql(), now_ms).await?;
        sso::delete_expired(write.sql(), now_ms).await?;
        let login = LoginId::from(secrets.attempt.clone());
        let id = TokenHash::of(login.as_str());
        let mut vouched = Vouched {
            attempt_id: id.as_str(),
            user_id: &user_id,
            issuer,
            subject,
            sid: &vouch.sid,
            session_id: "",
            expires_ms: now_ms + WITHIN_MS,
        };
        match next {
            Next::Done(level) => {
                limits::forgive_device(write.sql(), &device.id).await?;
                let grant_of = Grant {
                    authenticated_at_ms: Some(vouch.authenticated_at_ms),
                    ..Grant::of(&device, &location.mfa, level, &actor)
                };
                let session = grant(&mut write, grant_of).await?;
                vouched.session_id = &session;
                sso::vouched(write.sql(), &vouched).await?;
                let Some(session) = sessions::find(write.sql(), &session).await? else {
                    return Ok(Err("the session is gone"));
                };
                let revision = write.commit().await?;
                self.logins.until_acknowledged(&session, revision).await?;
                Ok(Ok(LoginStep::Done(view(session))))
            }
            Next::Wants(factors) => {
                let Some(user) = users::find(write.sql(), &user_id).await? else {
                    return Ok(Err("the user is gone"));
                };
                let attempt = NewAttempt {
                    id: id.as_str(),
                    user_id: &user_id,
                    password: &user.password,
                    device_id: &device.id,
                    expires_ms: now_ms + WITHIN_MS,
                    proven,
                };
                if !attempts::insert(write.sql(), &attempt).await? {
                    return Ok(Err("the user is disabled"));
                }
                sso::vouched(write.sql(), &vouched).await?;
                let factors = core.offered(write.sql(), factors, &user_id).await?;
                write.commit().await?;
                Ok(Ok(LoginStep::Wants {
                    attempt: login,
                    factors,
                    expires_in: Duration::from_millis(to_u64(WITHIN_MS)),
                }))
            }
        }
    }
}

/// Gives the code for an ID token.
async fn exchange(
    provider: &Provider,
    metadata: &CoreProviderMetadata,
    code: &Secret,
    secrets: &VisitSecrets,
) -> Result<String, Refusal> {
    let unusable = |text: &str| Refusal::Unavailable(text.to_owned());
    let redirect = RedirectUrl::new(secrets.redirect.clone());
    let client = CoreClient::from_provider_metadata(
        metadata.clone(),
        provider.client_id.clone(),
        Some(provider.client_secret.clone()),
    )
    .set_redirect_uri(redirect.map_err(|_| unusable("the redirect URI is none"))?);
    // For the provider, which made it.
    let code = AuthorizationCode::new(code.expose().to_owned());
    let answer = client
        .exchange_code(code)
        .map_err(|_| unusable("the provider has no token endpoint"))?
        .set_pkce_verifier(PkceCodeVerifier::new(secrets.verifier.clone()))
        .request_async(&provider.http)
        .await;
    match answer {
        Ok(answer) => match answer.id_token() {
            Some(token) => Ok(token.to_string()),
            None => Err(Refusal::Bad("the answer has no ID token".into())),
        },
        // Its description is the provider's text: for the log alone.
        Err(RequestTokenError::ServerResponse(answer)) => Err(Refusal::Bad(format!(
            "the provider refused the code: {answer:?}"
        ))),
        // Also a token that is none. Neither the answer nor what is wrong with it is repeated: it holds
        // tokens.
        Err(RequestTokenError::Parse(..)) => Err(Refusal::Bad("no usable answer".into())),
        Err(error) => Err(Refusal::Unavailable(causes(&error))),
    }
}

/// RFC 6749, 4.1.2.1, and OpenID Connect Core, 3.1.2.6.
fn in_words(error: &str) -> &'static str {
    match error {
        "access_denied" => "access was denied there",
        "login_required" | "interaction_required" | "account_selection_required" => {
            "it wants you to sign in there first"
        }
        "consent_required" => "it wants your consent there first",
        "temporarily_unavailable" | "server_error" => "it has a problem; try again later",
        "invalid_request"
        | "unauthorized_client"
        | "unsupported_response_type"
        | "invalid_scope"
        | "unmet_authentication_requirements" => {
            "it does not permit this sign-in as it is set up; tell your administrator"
        }
        _ => "it gave an error that is not known here",
    }
}
