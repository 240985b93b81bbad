//! Logging in before there is a tunnel, at session-key locations.
//!
//! A device first proves that it has its WireGuard key, by an exchange with the location's key over a fresh
//! challenge (see [`portcullis_trust::Claim`]): whoever merely knows a public key can neither begin nor
//! disturb a login. Then the factors follow as everywhere else. The answer to the last one holds the
//! session's pre-shared key, once, when a gateway has said that its kernel holds the peer.
//!
//! The location's key is derived from the master key and the location's name, so that there is one for every name, and
//! asking for a challenge tells nobody which locations and devices there are.

mod browser;
mod challenge;
mod invited;

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_trust::Claim;
use subtle::ConstantTimeEq as _;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

pub use browser::BrowserVisit;

use challenge::Answered;

use crate::Control;
use crate::approval::{PhonePrompt, PhoneStep};
use crate::core::Core;
use crate::domain::{DeviceKey, FactorSet, Mode, SessionState};
use crate::error::OperationError;
use crate::login::{
    Advance, Begun, Claimed, Keyed, Life, LoggedOut, LoginError, LoginId, LoginStep, Logins,
    SessionView, left, renews_live, view,
};
use crate::outside::Stranger;
use crate::secrets::{Secret, TokenHash};
use crate::self_service::Tunnel;
use crate::sso::Sso;
use crate::store::{connect, devices, locations, sessions, successors, to_u64, users};

/// Runs logins that begin before there is a tunnel; cheap to clone.
#[derive(Clone, Debug)]
pub struct Connects {
    logins: Logins,
    sso: Option<Sso>,
}

/// To be answered with a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProofChallenge {
    /// To be given back as it is.
    pub challenge: String,
    /// The location's public key, base64.
    pub location_key: String,
    /// It has to be answered by then.
    pub expires_in: Duration,
}

/// The first step of a login: who, from which device, and the proof that it is this device.
#[derive(Debug)]
pub struct Proof {
    /// The location's name.
    pub location: String,
    /// The device's public key, base64.
    pub public_key: String,
    pub challenge: String,
    /// Base64.
    pub proof: Secret,
    pub username: String,
    pub password: Secret,
    /// The device's live session goes on with another key and another deadline, in place of a new one.
    pub renew: bool,
}

/// Where such a login is.
#[derive(Debug)]
pub enum ConnectStep {
    /// It wants one more factor: any of these.
    Wants {
        attempt: LoginId,
        factors: FactorSet,
        expires_in: Duration,
    },
    /// A gateway's kernel holds the peer.
    Connected(Box<Connection>),
    /// A gateway's kernel holds the peer of a session that goes on.
    Renewed(Box<Renewed>),
}

/// What a device needs to go on. Handed out once.
#[derive(Debug)]
pub struct Renewed {
    pub session: SessionView,
    /// Base64.
    pub preshared_key: Secret,
    pub tunnel: Tunnel,
}

/// What a device needs to come up. Handed out once.
#[derive(Debug)]
pub struct Connection {
    pub session: SessionView,
    /// What the device asks for its session with.
    pub token: Secret,
    /// Base64.
    pub preshared_key: Secret,
    pub tunnel: Tunnel,
}

/// A session that its device asks for.
#[derive(Debug)]
pub struct Connected {
    pub session: SessionView,
    /// Whether packets may still pass.
    pub live: bool,
    /// `live`, `revoked`, `expired`, `replaced`: what became of it.
    pub state: String,
}

impl Control {
    /// Logins that begin before there is a tunnel.
    pub fn connects(&self) -> Connects {
        Connects {
            logins: self.logins(),
            sso: None,
        }
    }
}

impl Connects {
    /// Also by the word of providers, that know the portal outside of the tunnel.
    pub fn with_sso(self, sso: Option<Sso>) -> Self {
        Self { sso, ..self }
    }

    fn core(&self) -> &Core {
        &self.logins.0
    }

    /// A challenge for a location and a device. The answer is of the same kind whether there are such or not.
    pub fn challenge(
        &self,
        location: &str,
        public_key: &str,
    ) -> Result<ProofChallenge, LoginError> {
        let core = self.core();
        let challenge = challenge::new(&core.vault, core.now_ms(), location, public_key)
            .map_err(OperationError::from)?;
        let key = PublicKey::from(&StaticSecret::from(*self.location_key(location)?));
        Ok(ProofChallenge {
            challenge,
            location_key: STANDARD.encode(key.as_bytes()),
            expires_in: Duration::from_millis(to_u64(challenge::WITHIN_MS)),
        })
    }

    /// Begins a login. Before the proof is found right nothing is looked up, and before it is that of a device of this
    /// location nothing is counted or written: nobody without the device's key can delay its owner, and strangers
    /// write nothing.
    pub async fn begin(&self, proof: Proof) -> Result<ConnectStep, LoginError> {
        let claimed = self.claimed(&proof).await?;
        let device_id = claimed.device.id.clone();
        let begun = self
            .logins
            .begin_with_password(claimed, &proof.username, proof.password)
            .await?;
        match begun {
            LoginStep::Wants {
                attempt,
                factors,
                expires_in,
            } => {
                if proof.renew {
                    self.renews(&attempt, &device_id).await?;
                }
                Ok(ConnectStep::Wants {
                    attempt,
                    factors,
                    expires_in,
                })
            }
            LoginStep::Done(_) => Err(LoginError::Refused),
        }
    }

    /// The device that a proof is of, at the location that it names, and who has the user's name. Spends the challenge.
    async fn claimed(&self, proof: &Proof) -> Result<Claimed, LoginError> {
        let core = self.core();
        let (key, answered) = self.proven(proof)?;
        let mut read = core.store.read().await?;
        let device = devices::find_by_key(read.sql(), key).await?;
        let user = users::find(read.sql(), &proof.username).await?;
        let location = match &device {
            Some(device) => locations::find(read.sql(), &device.location_id).await?,
            None => None,
        };
        read.end().await?;
        let (Some(device), Some(location)) = (device, location) else {
            return Err(LoginError::Refused);
        };
        if location.name != proof.location || location.mode != Mode::SessionKey {
            return Err(LoginError::Refused);
        }
        let mut write = core.store.record(core.now_ms()).await?;
        let now_ms = write.now_ms();
        if !connect::spend(write.sql(), &answered.id, answered.expires_ms, now_ms).await? {
            return Err(LoginError::UnknownAttempt);
        }
        write.commit().await?;
        Ok(Claimed {
            device,
            location: Some(location),
            user,
        })
    }

    /// Lets a login renew the device's session. Whether there is one is looked at again with the last factor.
    async fn renews(&self, login: &LoginId, device_id: &str) -> Result<(), LoginError> {
        let core = self.core();
        let mut write = core.store.record(core.now_ms()).await?;
        let id = TokenHash::of(login.as_str());
        renews_live(&mut write, &id, device_id).await?;
        write.commit().await?;
        Ok(())
    }

    /// A code of the user's authenticator.
    pub async fn totp(&self, login: &LoginId, code: &str) -> Result<ConnectStep, LoginError> {
        let advance = self.logins.try_totp(Begun::WithProof, login, code).await?;
        self.step(login, advance).await
    }

    /// A recovery code, in place of the authenticator's.
    pub async fn recovery(&self, login: &LoginId, code: &str) -> Result<ConnectStep, LoginError> {
        let advance = self
            .logins
            .try_recovery(Begun::WithProof, login, code)
            .await?;
        self.step(login, advance).await
    }

    /// Asks the user's phone, in place of what it was asked before by this login.
    pub async fn ask_phone(
        &self,
        stranger: Stranger,
        login: &LoginId,
    ) -> Result<PhonePrompt, LoginError> {
        let network = stranger.network;
        self.logins
            .try_ask_phone(Begun::WithProof, network, login)
            .await
    }

    /// Takes what the phone has approved, where it was asked for from the same network.
    pub async fn finish_phone(
        &self,
        stranger: Stranger,
        login: &LoginId,
    ) -> Result<PhoneStep<ConnectStep>, LoginError> {
        let network = stranger.network;
        let finished = self
            .logins
            .try_finish_phone(Begun::WithProof, network, login);
        match finished.await? {
            PhoneStep::Done(advance) => Ok(PhoneStep::Done(self.step(login, advance).await?)),
            PhoneStep::Waiting { expires_in } => Ok(PhoneStep::Waiting { expires_in }),
        }
    }

    /// What became of a session. `None`: there is none with this token.
    pub async fn session(&self, token: &Secret) -> Result<Option<Connected>, LoginError> {
        let core = self.core();
        let mut read = core.store.read().await?;
        let found = sessions::find_by_token(read.sql(), &TokenHash::of(token.expose())).await?;
        // One whose successor no gateway holds yet may go on.
        let kept = match &found {
            Some(session) if session.state == SessionState::Replaced.as_str() => {
                successors::is_kept(read.sql(), &session.id).await?
            }
            _ => false,
        };
        read.end().await?;
        Ok(found.map(|session| {
            let over = session.deadline_ms <= core.now_ms();
            let state = match session.state.as_str() {
                _ if kept => SessionState::Live.as_str(),
                "live" if over => SessionState::Expired.as_str(),
                state => state,
            };
            Connected {
                live: state == SessionState::Live.as_str(),
                state: state.to_owned(),
                session: view(session),
            }
        }))
    }

    /// Ends a session. `None`: there is none with this token, or none any more.
    pub async fn end(&self, token: &Secret) -> Result<Option<LoggedOut>, LoginError> {
        let core = self.core();
        let mut read = core.store.read().await?;
        let found = sessions::find_by_token(read.sql(), &TokenHash::of(token.expose())).await?;
        read.end().await?;
        match found {
            Some(session) => self.logins.log_out(session).await,
            None => Ok(None),
        }
    }

    /// The private key of a location, or of what could be the name of one.
    fn location_key(&self, location: &str) -> Result<Zeroizing<[u8; 32]>, LoginError> {
        let parts: [&[u8]; 2] = [b"connect location", location.as_bytes()];
        let key = self.core().vault.derive(&parts);
        Ok(key.map_err(OperationError::from)?)
    }

    /// The key of the device whose proof this is, and the challenge that it answers.
    fn proven(&self, proof: &Proof) -> Result<(DeviceKey, Answered), LoginError> {
        let core = self.core();
        let (challenge, location) = (&proof.challenge, &proof.location);
        let answered = challenge::check(
            &core.vault,
            core.now_ms(),
            challenge,
            location,
            &proof.public_key,
        );
        let answered = answered.map_err(OperationError::from)?;
        let answered = answered.ok_or(LoginError::UnknownAttempt)?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| LoginError::Refused);
        let device = decode(&proof.public_key)?;
        let device = DeviceKey::for_lookup(&device).ok_or(LoginError::Refused)?;
        let private = self.location_key(location)?;
        let public = PublicKey::from(&StaticSecret::from(*private));
        let claim = Claim {
            challenge,
            location,
            username: &proof.username,
            device: device.as_bytes(),
            location_key: public.as_bytes(),
        };
        let expected = claim.expected(&private).ok_or(LoginError::Refused)?;
        let presented = Zeroizing::new(decode(proof.proof.expose())?);
        if !bool::from(expected.as_slice().ct_eq(&presented)) {
            return Err(LoginError::Refused);
        }
        Ok((device, answered))
    }

    /// What a login is answered. One that is done waits until a gateway holds the peer, and is undone if none does.
    async fn step(&self, login: &LoginId, advance: Advance) -> Result<ConnectStep, LoginError> {
        let core = self.core();
        let (session, revision, keyed) = match advance {
            Advance::Wants {
                factors,
                expires_ms,
            } => {
                return Ok(ConnectStep::Wants {
                    attempt: login.clone(),
                    factors,
                    expires_in: left(expires_ms, core.now_ms()),
                });
            }
            Advance::Granted {
                session,
                revision,
                keyed,
            } => (session, revision, keyed.ok_or(LoginError::Refused)?),
        };
        let Keyed { key, life, tunnel } = *keyed;
        let preshared_key = Secret::from(STANDARD.encode(key.plain()));
        match life {
            Life::New(token) => {
                let held = core.held_or_ended(&session, revision, Instant::now()).await;
                held.map_err(|error| match error {
                    OperationError::Precondition(_) => LoginError::NoGateway,
                    error => error.into(),
                })?;
                Ok(ConnectStep::Connected(Box::new(Connection {
                    session: view(*session),
                    token: Secret::from(token.expose().to_owned()),
                    preshared_key,
                    tunnel,
                })))
            }
            Life::Renewed(renewed) => {
                if !core.held(&session, revision, Instant::now()).await? {
                    core.undo_renewal(&renewed).await?;
                    return Err(LoginError::NotRenewed);
                }
                Ok(ConnectStep::Renewed(Box::new(Renewed {
                    session: view(*session),
                    preshared_key,
                    tunnel,
                })))
            }
        }
    }
}
