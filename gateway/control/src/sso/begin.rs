//! Sending a user to a provider.

use std::net::IpAddr;
use std::time::Duration;

use openidconnect::core::{CoreAuthPrompt, CoreClient, CoreResponseType};
use openidconnect::{
    AuthenticationContextClass, AuthenticationFlow, CsrfToken, Nonce, PkceCodeChallenge,
    RedirectUrl, Scope,
};

use super::{
    From, Loopback, MOST_WAITING, Provider, Sso, SsoError, VISIT_MS, VisitSecrets, Waiting, field,
    place,
};
use crate::domain::Factor;
use crate::error::OperationError;
use crate::login::{Browser, LoginError, LoginId, at_a_gate, canonical};
use crate::secrets::{Token, TokenHash};
use crate::store::devices::DeviceRow;
use crate::store::locations::LocationRow;
use crate::store::sso::{self, NewVisit};
use crate::store::{StoreError, devices, locations, to_u64};

/// A user on the way to a provider.
#[derive(Debug)]
pub struct Visit {
    /// Of the login, should it go on here when the user is back.
    pub attempt: LoginId,
    /// Where the provider is.
    pub url: String,
    /// The user has to be back by then.
    pub expires_in: Duration,
}

/// A user who is about to be sent to a provider.
struct Departure<'a> {
    device: &'a DeviceRow,
    location: Option<&'a LocationRow>,
    provider: &'a Provider,
    from: From,
    /// Names the login.
    attempt: Token,
    /// What has to be presented for the answer to be taken.
    holder: &'a TokenHash,
    proven: Option<Waiting>,
}

impl Sso {
    /// The providers that the device with this address may log in by, by name. None where its location
    /// does not allow that, and for a stranger.
    pub async fn offered(&self, from: IpAddr) -> Result<Vec<String>, LoginError> {
        let core = self.core();
        let mut read = core.store.read().await?;
        let device = devices::find_by_address(read.sql(), &canonical(from)).await?;
        let location = match &device {
            Some(device) => locations::find(read.sql(), &device.location_id).await?,
            None => None,
        };
        read.end().await?;
        let allowed = location.is_some_and(|location| location.mfa.factors.contains(Factor::Sso));
        let names = core.providers.iter().map(|provider| provider.name.clone());
        Ok(names.filter(|_| allowed).collect())
    }

    /// Where the pages are on which a browser begins a login, at the portal's name.
    pub fn sign_in_page(&self, provider: &str, port: Option<u16>) -> String {
        format!("{}/login/sso/{provider}", self.origin(port))
    }

    /// Sends the user of the device with this address to a provider, in this browser. `port` is the one that the portal
    /// was reached by. That the user is disabled, or not linked, is not told here.
    pub async fn begin(
        &self,
        from: IpAddr,
        provider: &str,
        port: Option<u16>,
        browser: &Browser,
    ) -> Result<Visit, SsoError> {
        let core = self.core();
        let provider = self.provider(provider).ok_or(SsoError::UnknownProvider)?;
        let mut read = core.store.read().await?;
        let device = devices::find_by_address(read.sql(), &canonical(from)).await?;
        let device = device.ok_or(LoginError::UnknownDevice)?;
        let location = locations::find(read.sql(), &device.location_id).await?;
        read.end().await?;
        at_a_gate(location.as_ref())?;
        let attempt = Token::generate().map_err(OperationError::from)?;
        self.send(Departure {
            device: &device,
            location: location.as_ref(),
            provider,
            from: From::Tunnel(port),
            attempt,
            holder: &browser.hash(),
            proven: None,
        })
        .await
    }

    /// Sends the user of a device that has proven its key, in a browser of its own machine: back to there goes
    /// what the provider answers. Who has begun this alone can use it, by the login's name.
    pub(crate) async fn begin_proven(
        &self,
        device: &DeviceRow,
        location: &LocationRow,
        provider: &str,
        back_to: Loopback,
        renews: bool,
    ) -> Result<Visit, SsoError> {
        let provider = self.provider(provider).ok_or(SsoError::UnknownProvider)?;
        let attempt = Token::generate().map_err(OperationError::from)?;
        let holder = attempt.hash();
        self.send(Departure {
            device,
            location: Some(location),
            provider,
            from: From::Outside,
            attempt,
            holder: &holder,
            proven: Some(Waiting { back_to, renews }),
        })
        .await
    }

    async fn send(&self, departure: Departure<'_>) -> Result<Visit, SsoError> {
        let core = self.core();
        let Departure {
            device,
            location,
            provider,
            from,
            attempt,
            holder,
            proven,
        } = departure;
        let location = location.filter(|location| location.mfa.factors.contains(Factor::Sso));
        let location = location.ok_or(SsoError::NotAllowed)?;
        let mut read = core.store.read().await?;
        let waiting = sso::waiting(read.sql(), &device.id, core.now_ms()).await?;
        read.end().await?;
        // Before the provider is asked for anything.
        self.has_room(waiting)?;
        let metadata = provider.metadata(false).await.map_err(|error| {
            tracing::warn!(provider = provider.name, %error, "no sign-in by this provider");
            SsoError::Unavailable
        })?;

        let state = Token::generate().map_err(OperationError::from)?;
        let nonce = Token::generate().map_err(OperationError::from)?;
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let redirect = self.redirect_uri(&provider.name, from);
        let redirect_url =
            RedirectUrl::new(redirect.clone()).map_err(|_| StoreError::Value("redirect URI"))?;
        let client = CoreClient::from_provider_metadata(
            (*metadata).clone(),
            provider.client_id.clone(),
            Some(provider.client_secret.clone()),
        )
        .set_redirect_uri(redirect_url);
        let (state_text, nonce_text) = (state.expose().to_owned(), nonce.expose().to_owned());
        let mut request = client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                || CsrfToken::new(state_text),
                || Nonce::new(nonce_text),
            )
            .set_pkce_challenge(challenge)
            // Some tell when the user logged in, and how, only when they are asked by name (Core, 5.5).
            .add_extra_param(
                "claims",
                r#"{"id_token":{"auth_time":{"essential":true},"amr":null}}"#,
            );
        if provider.preset.asks_again() {
            request = request
                .set_max_age(Duration::from_millis(to_u64(provider.max_age_ms)))
                .add_prompt(CoreAuthPrompt::Login);
        }
        if provider.groups_claim.is_some()
            && let Some(scope) = provider.preset.groups_scope()
        {
            request = request.add_scope(Scope::new(scope.to_owned()));
        }
        for acr in provider.acr_values(location.mfa.require) {
            request =
                request.add_auth_context_value(AuthenticationContextClass::new(acr.to_owned()));
        }
        let (url, _, _) = request.url();

        let id = state.hash();
        let secrets = VisitSecrets {
            nonce: nonce.expose().to_owned(),
            verifier: verifier.secret().to_owned(),
            redirect,
            attempt: attempt.expose().to_owned(),
            proven,
        };
        let json = serde_json::to_vec(&secrets).map_err(|_| StoreError::Value("visit"))?;
        let place = place(id.as_str(), &provider.name, &device.id);
        let sealed = core
            .vault
            .seal(field(&place), &json)
            .map_err(OperationError::from)?;
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        sso::delete_expired(write.sql(), now_ms).await?;
        // Again, and now with nobody else at it.
        let waiting = sso::waiting(write.sql(), &device.id, now_ms).await?;
        self.has_room(waiting)?;
        let visit = NewVisit {
            id: &id,
            provider: &provider.name,
            device_id: &device.id,
            browser: holder,
            secrets: &sealed,
            begun_ms: now_ms,
            expires_ms: now_ms + VISIT_MS,
        };
        sso::insert_visit(write.sql(), &visit).await?;
        write.commit().await?;
        Ok(Visit {
            attempt: LoginId::from(secrets.attempt.clone()),
            url: url.into(),
            expires_in: Duration::from_millis(to_u64(VISIT_MS)),
        })
    }

    fn has_room(&self, (waiting, first_ends_ms): (i64, Option<i64>)) -> Result<(), SsoError> {
        if waiting < MOST_WAITING {
            return Ok(());
        }
        let now_ms = self.core().now_ms();
        let left_ms = first_ends_ms.unwrap_or(now_ms).saturating_sub(now_ms);
        let retry_after = Duration::from_millis(to_u64(left_ms));
        Err(SsoError::Busy { retry_after })
    }
}
