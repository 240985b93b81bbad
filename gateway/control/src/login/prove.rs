//! The further steps of a login: one factor after the other, until the location has what it wants.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use portcullis_proto::v1::Level;
use serde_json::json;

use super::machine::{Next, Proof, Proven, add, next};
use super::{Begun, GATEWAYS_WITHIN, LoginError, LoginId, LoginStep, Logins, view};
use crate::approval::Place;
use crate::core::Core;
use crate::domain::{FactorSet, Mode};
use crate::error::OperationError;
use crate::ops::devices::gateway_key;
use crate::ops::renewal::{Renewed, renew};
use crate::ops::session_key::SessionKey;
use crate::ops::sessions::{Grant, grant};
use crate::ops::users::totp_field;
use crate::secrets::{RecoveryCode, Token, TokenHash};
use crate::self_service::Tunnel;
use crate::store::attempts::{self, Attempt};
use crate::store::limits::{self, Counted};
use crate::store::locations::LocationRow;
use crate::store::outside_limits::Share;
use crate::store::sessions::SessionRow;
use crate::store::{Entry, Write, devices, locations, recovery, sessions, sso, to_u64};
use crate::totp::Authenticator;

/// A login in progress whose next factor has been counted as wrong, and is to be evaluated.
pub(super) struct Open {
    pub(super) id: TokenHash,
    pub(super) attempt: Attempt,
    pub(super) begun: Begun,
    pub(super) delayed_until_ms: i64,
}

/// A login that has proven enough.
#[derive(Clone, Copy)]
pub(crate) struct Granting<'a> {
    pub(crate) id: &'a TokenHash,
    pub(crate) attempt: &'a Attempt,
    pub(crate) location: &'a LocationRow,
    pub(crate) level: Level,
    /// Elsewhere, where it was not just now.
    pub(crate) authenticated_at_ms: Option<i64>,
}

/// What a proof led to.
pub(crate) enum Advance {
    Granted {
        session: Box<SessionRow>,
        revision: u64,
        /// At session-key locations.
        keyed: Option<Box<Keyed>>,
    },
    Wants {
        factors: FactorSet,
        expires_ms: i64,
    },
}

/// What the device of a session with a key of its own is to get.
pub(crate) struct Keyed {
    pub(crate) key: SessionKey,
    pub(crate) life: Life,
    pub(crate) tunnel: Tunnel,
}

/// Whether a session has begun, or goes on.
pub(crate) enum Life {
    /// Its device asks for it with this.
    New(Token),
    Renewed(Box<Renewed>),
}

impl Logins {
    /// A code of the user's authenticator.
    pub async fn totp(
        &self,
        from: IpAddr,
        login: &LoginId,
        code: &str,
    ) -> Result<LoginStep, LoginError> {
        let advance = self.try_totp(Begun::InTunnel(from), login, code).await?;
        self.step(login, advance).await
    }

    /// A recovery code, in place of the authenticator's.
    pub async fn recovery(
        &self,
        from: IpAddr,
        login: &LoginId,
        code: &str,
    ) -> Result<LoginStep, LoginError> {
        let advance = self.try_recovery(Begun::InTunnel(from), login, code);
        self.step(login, advance.await?).await
    }

    pub(crate) async fn try_totp(
        &self,
        begun: Begun,
        login: &LoginId,
        code: &str,
    ) -> Result<Advance, LoginError> {
        let open = self.open(begun, login).await?;
        let attempt = &open.attempt;
        let (id, user, sealed) = (&attempt.user_id, &attempt.user, &attempt.totp_secret);
        match totp_step(&self.0, id, user, sealed, code)? {
            Some(step) => self.prove(&open, Proof::Totp { step }).await,
            None => self.refuse_factor(&open, "totp").await,
        }
    }

    pub(crate) async fn try_recovery(
        &self,
        begun: Begun,
        login: &LoginId,
        code: &str,
    ) -> Result<Advance, LoginError> {
        let open = self.open(begun, login).await?;
        match RecoveryCode::hash_of(code) {
            Some(hash) => self.prove(&open, Proof::RecoveryCode { hash }).await,
            None => self.refuse_factor(&open, "recovery-code").await,
        }
    }

    /// What a login in progress wants: always [`LoginStep::Wants`].
    pub async fn wants(&self, from: IpAddr, login: &LoginId) -> Result<LoginStep, LoginError> {
        let core = &self.0;
        let id = TokenHash::of(login.as_str());
        let now_ms = core.now_ms();
        let mut read = core.store.read().await?;
        let found = attempts::find(read.sql(), id.as_str(), Begun::InTunnel(from), now_ms).await?;
        let attempt = found.ok_or(LoginError::UnknownAttempt)?;
        let location = locations::find(read.sql(), &attempt.location_id).await?;
        match location.map(|location| next(&location.mfa, attempt.proven)) {
            Some(Next::Wants(factors)) => Ok(LoginStep::Wants {
                attempt: login.clone(),
                factors: core.offered(read.sql(), factors, &attempt.user_id).await?,
                expires_in: left(attempt.expires_ms, now_ms),
            }),
            _ => Err(LoginError::UnknownAttempt),
        }
    }

    /// Looks up a login that was begun this way, and counts the factor that is about to be
    /// evaluated as a wrong one. Every factor passes here before it is looked at.
    pub(super) async fn open(&self, begun: Begun, login: &LoginId) -> Result<Open, LoginError> {
        let core = &self.0;
        let id = TokenHash::of(login.as_str());
        let mut read = core.store.read().await?;
        let found = attempts::find(read.sql(), id.as_str(), begun, core.now_ms()).await?;
        read.end().await?;
        let attempt = found.ok_or(LoginError::UnknownAttempt)?;
        if attempt.disabled {
            return Err(LoginError::Refused);
        }
        // Whoever has proven nothing but a device's key does not delay its owner anywhere else.
        let counted = match attempt.proven == Proven::default() {
            true => Counted::Device(&attempt.device_id),
            false => Counted::User(&attempt.user_id),
        };
        let delayed_until_ms = self.reserve(counted).await?;
        Ok(Open {
            id,
            attempt,
            begun,
            delayed_until_ms,
        })
    }

    /// Takes in a factor that was verified. Either that opens a session, which replaces an earlier
    /// one of the device, or the login wants more. A factor that it did not want is refused like a
    /// wrong one.
    pub(super) async fn prove(&self, open: &Open, proof: Proof) -> Result<Advance, LoginError> {
        match self.advance(open, &proof).await? {
            Some(advance) => Ok(advance),
            None => self.refuse_factor(open, proof.factor().as_str()).await,
        }
    }

    /// What a login in the tunnel is answered. One that is done waits a few seconds for a gateway to
    /// acknowledge its session: with no gateway connected, or none in time, it is granted all the same,
    /// and packets pass as soon as a gateway has heard of it.
    pub(crate) async fn step(
        &self,
        login: &LoginId,
        advance: Advance,
    ) -> Result<LoginStep, LoginError> {
        match advance {
            Advance::Granted {
                session, revision, ..
            } => {
                self.until_acknowledged(&session, revision).await?;
                Ok(LoginStep::Done(view(*session)))
            }
            Advance::Wants {
                factors,
                expires_ms,
            } => Ok(LoginStep::Wants {
                attempt: login.clone(),
                factors,
                expires_in: left(expires_ms, self.0.now_ms()),
            }),
        }
    }

    /// Refuses a factor that was wrong: it stays counted.
    pub(super) async fn refuse_factor<T>(&self, open: &Open, step: &str) -> Result<T, LoginError> {
        let attempt = &open.attempt;
        self.refuse(&attempt.device_id, &attempt.user, &attempt.device, step)
            .await
    }

    /// Spends the proof, and with the last one the login itself, and grants the session: all or
    /// nothing. `None` when the proof is not wanted, or another login spent it first.
    async fn advance(&self, open: &Open, proof: &Proof) -> Result<Option<Advance>, LoginError> {
        let core = &self.0;
        let mut write = core.store.change(core.now_ms()).await?;
        let now_ms = write.now_ms();
        // Again, and now with nobody else at it: what was read before may be over by now.
        let current = attempts::current(write.sql(), open.id.as_str(), now_ms).await?;
        let Some((proven, expires_ms)) = current else {
            return Ok(None);
        };
        let attempt = &open.attempt;
        let Some(location) = locations::find(write.sql(), &attempt.location_id).await? else {
            return Ok(None);
        };
        let Some(proven) = add(&location.mfa, proven, proof) else {
            return Ok(None);
        };
        if !self.spend(&mut write, open, proof).await? {
            return Ok(None);
        }
        match next(&location.mfa, proven) {
            Next::Done(level) => {
                let granting = Granting {
                    id: &open.id,
                    attempt,
                    location: &location,
                    level,
                    authenticated_at_ms: None,
                };
                self.complete(write, granting).await
            }
            Next::Wants(factors) => {
                let factors = core.offered(write.sql(), factors, &attempt.user_id).await?;
                self.keep(&mut write, open, proven).await?;
                write.commit().await?;
                Ok(Some(Advance::Wants {
                    factors,
                    expires_ms,
                }))
            }
        }
    }

    /// Spends a login that has proven all that its location wants, and grants the session: all or nothing.
    /// `None` when another has spent it first.
    pub(crate) async fn complete(
        &self,
        mut write: Write<'_>,
        granting: Granting<'_>,
    ) -> Result<Option<Advance>, LoginError> {
        let Granting {
            id,
            attempt,
            location,
            ..
        } = granting;
        if !attempts::complete(write.sql(), id.as_str(), &attempt.user_id).await? {
            return Ok(None);
        }
        limits::forgive_device(write.sql(), &attempt.device_id).await?;
        let keyed = match location.mode {
            Mode::Gate => None,
            Mode::SessionKey => Some(self.keyed(&mut write, granting).await?),
        };
        let session = match &keyed {
            Some(Keyed {
                key,
                life: Life::Renewed(_),
                ..
            }) => sessions::find(write.sql(), &key.session_id).await?,
            _ => {
                let key = keyed.as_ref().map(|keyed| &keyed.key);
                self.grant(&mut write, granting, key).await?
            }
        };
        let Some(session) = session else {
            return Ok(None);
        };
        sso::opened(write.sql(), id.as_str(), &session.id).await?;
        if let Some(Keyed {
            life: Life::New(token),
            ..
        }) = &keyed
        {
            sessions::set_token(write.sql(), &session.id, &token.hash()).await?;
        }
        let revision = write.commit().await?;
        Ok(Some(Advance::Granted {
            session: Box::new(session),
            revision,
            keyed: keyed.map(Box::new),
        }))
    }

    /// Uses up what may be used once. False when somebody has.
    async fn spend(
        &self,
        write: &mut Write<'_>,
        open: &Open,
        proof: &Proof,
    ) -> Result<bool, LoginError> {
        let attempt = &open.attempt;
        Ok(match proof {
            Proof::Totp { step } => {
                attempts::spend_step(write.sql(), &attempt.user_id, *step).await?
            }
            Proof::RecoveryCode { hash } => {
                let actor = format!("user:{}", attempt.user);
                let subject = format!("device:{}", attempt.device);
                spend_code(write, &attempt.user_id, &actor, &subject, hash).await?
            }
            // Its challenge and its counter are spent by the ceremony.
            Proof::Passkey => true,
            Proof::Phone {
                attempt: id,
                network,
            } => {
                let place = Place::of(open.begun);
                let share = Share::approvals(&attempt.user_id, place.as_str());
                let spent = self.0.spend_approval(write, id, *network, None, &share);
                spent.await?
            }
            Proof::Browser {
                attempt: id,
                network,
                code,
            } => {
                let share = Share::approvals(&attempt.device_id, Place::Browser.as_str());
                let spent = self
                    .0
                    .spend_approval(write, id, *network, Some(code), &share);
                spent.await?
            }
        })
    }

    /// Writes down what is proven. A right factor is not a wrong attempt, but what was counted
    /// before it stays: it buys no more guesses of the next one.
    async fn keep(
        &self,
        write: &mut Write<'_>,
        open: &Open,
        proven: Proven,
    ) -> Result<(), LoginError> {
        let user_id = &open.attempt.user_id;
        limits::give_back(write.sql(), user_id, open.delayed_until_ms).await?;
        attempts::set_proven(write.sql(), open.id.as_str(), proven).await?;
        Ok(())
    }

    /// A session's own key, and what else its device needs. The session that is to be renewed is renewed here.
    async fn keyed(
        &self,
        write: &mut Write<'_>,
        granting: Granting<'_>,
    ) -> Result<Keyed, LoginError> {
        let Granting {
            attempt,
            location,
            level,
            ..
        } = granting;
        let gateway = gateway_key(write, location).await?;
        let gateway = gateway.ok_or(LoginError::NoGateway)?;
        let addresses = devices::addresses_of(write.sql(), &attempt.device_id).await?;
        let (key, life) = match &attempt.renews {
            None => {
                let token = Token::generate().map_err(OperationError::from)?;
                (SessionKey::generate(&self.0)?, Life::New(token))
            }
            Some(id) => {
                let actor = format!("user:{}", attempt.user);
                let renewed = renew(&self.0, write, id, level, &location.mfa, &actor).await?;
                let (key, renewed) = renewed.ok_or(LoginError::NoSession)?;
                (key, Life::Renewed(Box::new(renewed)))
            }
        };
        Ok(Keyed {
            key,
            life,
            tunnel: Tunnel::new(location, &addresses, gateway)?,
        })
    }

    async fn grant(
        &self,
        write: &mut Write<'_>,
        granting: Granting<'_>,
        key: Option<&SessionKey>,
    ) -> Result<Option<SessionRow>, LoginError> {
        let attempt = granting.attempt;
        let policy = &granting.location.mfa;
        let actor = format!("user:{}", attempt.user);
        let grant_of = Grant {
            user_id: &attempt.user_id,
            device_id: &attempt.device_id,
            device: &attempt.device,
            location_id: &attempt.location_id,
            level: granting.level,
            lifetime_ms: policy.session_lifetime_ms,
            idle_timeout_ms: policy.idle_timeout_ms,
            authenticated_at_ms: granting.authenticated_at_ms,
            actor: &actor,
            key,
        };
        let session = grant(write, grant_of).await?;
        Ok(sessions::find(write.sql(), &session).await?)
    }

    /// Waits for the connected gateways of the session's location; one that is not connected
    /// cannot be carrying this user's tunnel.
    pub(crate) async fn until_acknowledged(
        &self,
        session: &SessionRow,
        revision: u64,
    ) -> Result<(), LoginError> {
        let committed = Instant::now();
        let location = [session.location_id.clone()];
        let mut changes = self.0.fleet.changes();
        while let Some(left) = GATEWAYS_WITHIN.checked_sub(committed.elapsed()) {
            changes.mark_unchanged();
            let states = self
                .0
                .acknowledged(&location, revision, committed, Duration::ZERO)
                .await?;
            if states
                .iter()
                .all(|state| state.acknowledged || !state.connected || state.removing)
            {
                return Ok(());
            }
            let _ = tokio::time::timeout(left, changes.changed()).await;
        }
        tracing::warn!(
            session = session.id,
            "no acknowledgement of a new session in time"
        );
        Ok(())
    }
}

/// The time step that a code of the user's authenticator is of, now. `None`: it is wrong, or there is no
/// authenticator.
pub(crate) fn totp_step(
    core: &Core,
    user_id: &str,
    user: &str,
    sealed: &str,
    code: &str,
) -> Result<Option<i64>, LoginError> {
    if sealed.is_empty() {
        return Ok(None);
    }
    let secret = core
        .vault
        .unseal(totp_field(user_id), sealed)
        .map_err(OperationError::from)?;
    let authenticator = Authenticator::new(&secret, user).map_err(OperationError::from)?;
    Ok(authenticator.step_of(code, core.now_ms()))
}

/// Spends a recovery code, and leaves a record of it. False when the user has no such code.
pub(crate) async fn spend_code(
    write: &mut Write<'_>,
    user_id: &str,
    actor: &str,
    subject: &str,
    hash: &TokenHash,
) -> Result<bool, LoginError> {
    if !recovery::spend(write.sql(), user_id, hash).await? {
        return Ok(false);
    }
    let left = recovery::left(write.sql(), user_id).await?;
    write
        .audit(Entry {
            actor,
            action: "user.recovery-code",
            subject,
            detail: json!({ "left": left }),
        })
        .await?;
    Ok(true)
}

pub(crate) fn left(expires_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(to_u64(expires_ms.saturating_sub(now_ms)))
}
