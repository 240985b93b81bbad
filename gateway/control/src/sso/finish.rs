//! A user who is back from a provider.

use std::net::IpAddr;

use openidconnect::core::{CoreClient, CoreProviderMetadata};
use openidconnect::{
    AuthorizationCode, PkceCodeVerifier, RedirectUrl, RequestTokenError, TokenResponse as _,
    url::Url,
};
use serde_json::json;

use super::groups::told;
use super::provider::{Provider, causes};
use super::token::{self, TokenError, Vouch};
use super::{Sso, SsoError, VisitSecrets, field, place};
use crate::error::OperationError;
use crate::login::{
    Advance, Begun, Browser, Granting, LoginError, LoginId, LoginStep, Next, WITHIN_MS, after_sso,
    canonical, proven_by_sso, renews_live,
};
use crate::secrets::{Secret, TokenHash};
use crate::store::attempts::{self, NewAttempt};
use crate::store::devices::DeviceRow;
use crate::store::limits::Counted;
use crate::store::sso::{self, VisitOf, VisitRow, Vouched, Whose};
use crate::store::{Entry, StoreError, Write, devices, factors, locations, users};

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
        let holder = browser.ok_or(SsoError::UnknownVisit)?.hash();
        let begun = Begun::InTunnel(from);
        let (login, advance) = self.take_back(begun, provider, callback, &holder).await?;
        Ok(self.logins.step(&login, advance).await?)
    }

    /// The same for a login that a program has begun, which presents its name.
    pub(crate) async fn finish_proven(
        &self,
        login: &LoginId,
        provider: &str,
        callback: &Callback,
    ) -> Result<Advance, SsoError> {
        let holder = TokenHash::of(login.as_str());
        let back = self.take_back(Begun::WithProof, provider, callback, &holder);
        Ok(back.await?.1)
    }

    /// Where the program waits to which this answer of a provider belongs. Nothing is spent by that.
    pub(crate) async fn waits_at(
        &self,
        provider: &str,
        callback: &Callback,
    ) -> Result<Url, SsoError> {
        let core = self.core();
        let provider = self.provider(provider).ok_or(SsoError::UnknownProvider)?;
        let id = TokenHash::of(&callback.state);
        let mut read = core.store.read().await?;
        let visit = sso::find_visit(read.sql(), &id, &provider.name, core.now_ms()).await?;
        read.end().await?;
        let visit = visit.ok_or(SsoError::UnknownVisit)?;
        let secrets = self.secrets(&id, provider, &visit)?;
        let waiting = secrets.proven.as_ref().ok_or(SsoError::UnknownVisit)?;
        Ok(waiting.back_to.with(callback)?)
    }

    fn secrets(
        &self,
        id: &TokenHash,
        provider: &Provider,
        visit: &VisitRow,
    ) -> Result<VisitSecrets, SsoError> {
        let place = place(id.as_str(), &provider.name, &visit.device_id);
        let json = self.core().vault.unseal(field(&place), &visit.secrets);
        let json = json.map_err(OperationError::from)?;
        Ok(serde_json::from_slice(&json).map_err(|_| StoreError::Value("visit"))?)
    }

    async fn take_back(
        &self,
        begun: Begun,
        provider: &str,
        callback: &Callback,
        holder: &TokenHash,
    ) -> Result<(LoginId, Advance), SsoError> {
        let core = self.core();
        let provider = self.provider(provider).ok_or(SsoError::UnknownProvider)?;
        // Spent before anything else about it is looked at: no state, and so no code, counts twice.
        let id = TokenHash::of(&callback.state);
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        let address = begun.address();
        let of = VisitOf {
            provider: &provider.name,
            address: address.as_deref(),
            browser: holder,
        };
        let visit = sso::take_visit(write.sql(), &id, of, now_ms).await?;
        let visit = visit.ok_or(SsoError::UnknownVisit)?;
        let device = device_of(&mut write, begun, &visit.device_id).await?;
        let device = device.ok_or(LoginError::UnknownDevice)?;
        write.commit().await?;
        let secrets = self.secrets(&id, provider, &visit)?;
        // What was begun in a tunnel ends there, and what a program has begun is for that program.
        if secrets.proven.is_some() != matches!(begun, Begun::WithProof) {
            return Err(SsoError::UnknownVisit);
        }

        self.logins.reserve(Counted::Device(&device.id)).await?;
        let vouch = match self
            .vouch(provider, callback, &secrets, visit.begun_ms)
            .await
        {
            Ok(vouch) => vouch,
            Err(refusal) => return self.refuse(&device, provider, refusal).await,
        };
        let login = LoginId::from(secrets.attempt.clone());
        let came = Came {
            begun,
            device: &device,
            login: &login,
            renews: secrets.proven.as_ref().is_some_and(|proven| proven.renews),
            begun_ms: visit.begun_ms,
        };
        match self.advance(came, provider, vouch).await? {
            Ok(advance) => Ok((login, advance)),
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
        came: Came<'_>,
        provider: &Provider,
        vouch: Vouch,
    ) -> Result<Result<Advance, &'static str>, SsoError> {
        let core = self.core();
        let Came { begun, login, .. } = came;
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
        if sso::logged_out_since(write.sql(), whose, came.begun_ms).await? {
            return Ok(Err("its user has logged out there meanwhile"));
        }
        // As things are now, not as they were when the user was sent there.
        let device = device_of(&mut write, begun, &came.device.id).await?;
        let device = device.filter(|device| device.user_id == user_id && !device.user_disabled);
        let user = users::find(write.sql(), &user_id).await?;
        let Some((device, user)) = device.zip(user) else {
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
        let entry = Entry {
            actor: &format!("user:{}", device.user),
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
        let id = TokenHash::of(login.as_str());
        let expires_ms = now_ms + WITHIN_MS;
        let attempt = NewAttempt {
            id: id.as_str(),
            user_id: &user_id,
            password: &user.password,
            device_id: &device.id,
            expires_ms,
            proven,
        };
        if !attempts::insert(write.sql(), &attempt).await? {
            return Ok(Err("the user is disabled"));
        }
        let vouched = Vouched {
            attempt_id: id.as_str(),
            user_id: &user_id,
            issuer,
            subject,
            sid: &vouch.sid,
            expires_ms,
        };
        sso::vouched(write.sql(), &vouched).await?;
        if came.renews {
            renews_live(&mut write, &id, &device.id).await?;
        }
        match next {
            Next::Done(level) => {
                // Also whether the location still is one where logins are begun in this way.
                let attempt = attempts::find(write.sql(), id.as_str(), begun, now_ms).await?;
                let Some(attempt) = attempt else {
                    return Ok(Err("the location is of another kind now"));
                };
                let granted = Granting {
                    id: &id,
                    attempt: &attempt,
                    location: &location,
                    level,
                    authenticated_at_ms: Some(vouch.authenticated_at_ms),
                };
                let advance = self.logins.complete(write, granted).await?;
                Ok(advance.ok_or("the session is gone"))
            }
            Next::Wants(factors) => {
                let factors = core.offered(write.sql(), factors, &user_id).await?;
                write.commit().await?;
                Ok(Ok(Advance::Wants {
                    factors,
                    expires_ms,
                }))
            }
        }
    }
}

/// A user who has come back, as the login was begun.
#[derive(Clone, Copy)]
struct Came<'a> {
    begun: Begun,
    device: &'a DeviceRow,
    login: &'a LoginId,
    renews: bool,
    begun_ms: i64,
}

/// The device with this id, where it is the one that a login was begun from.
async fn device_of(
    write: &mut Write<'_>,
    begun: Begun,
    id: &str,
) -> Result<Option<DeviceRow>, StoreError> {
    let found = match begun {
        Begun::InTunnel(from) => devices::find_by_address(write.sql(), &canonical(from)).await?,
        Begun::WithProof => devices::find(write.sql(), id).await?,
    };
    Ok(found.filter(|device| device.id == id))
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
