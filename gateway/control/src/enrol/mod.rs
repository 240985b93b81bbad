//! Enrolling: by a one-time link somebody gives their account a password and an authenticator.
//!
//! It happens before there is a device, hence from anywhere: the link alone says whose account it is,
//! and no address says anything. Each enrolment is a record in the store, so that a restart loses none
//! and two at once do not disturb each other. Only the last step touches the account, and uses up the
//! link: the first to finish wins, and until then everything old stays good.
//!
//! Who has finished may add a first passkey from the same page, and where the link says so a first device.

mod newcomer;
mod redeem;

use std::sync::Arc;
use std::time::Duration;

use crate::Control;
use crate::core::Core;
use crate::error::OperationError;
use crate::password::PasswordError;
use crate::secrets::{Field, Secret, Token};
use crate::self_service::SelfServiceError;
use crate::store::StoreError;
use crate::totp::Authenticator;
use crate::webauthn::{PasskeyError, Passkeys, PortalName};

/// How long an enrolment may take from the first step to the last.
const WITHIN_MS: i64 = 60 * 60 * 1000;
/// What may be tried with one link, right and wrong together: each try may cost a password's hashing.
/// Whoever needs more asks for a new link.
const MOST_TRIES: i64 = 100;

/// How long who has finished may take for a first passkey and a first device.
const NEWCOMER_MS: i64 = 15 * 60 * 1000;

/// Runs enrolments; cheap to clone.
#[derive(Clone, Debug)]
pub struct Enrolments {
    core: Arc<Core>,
    passkeys: Option<Passkeys>,
}

/// Names an enrolment in progress, or one that has finished. Unguessable; the store keeps its hash.
#[derive(Clone)]
pub struct EnrolmentId(String);

/// An enrolment that wants a password next.
#[derive(Debug)]
pub struct EnrolStep {
    /// To be given back with each further step.
    pub enrolment: EnrolmentId,
    /// Whose account it is.
    pub user: String,
    /// The last step has to be done by then.
    pub expires_in: Duration,
}

/// An authenticator to be: it counts once one of its codes was given.
#[derive(Debug)]
pub struct NewAuthenticator {
    pub user: String,
    /// `otpauth://…`, for a QR code.
    pub uri: Secret,
    /// The same secret in base32, to be typed.
    pub secret: Secret,
}

/// An account that has enrolled.
#[derive(Debug)]
pub struct Enrolled {
    pub user: String,
    /// Shown this once.
    pub recovery_codes: Vec<Secret>,
    pub newcomer: Newcomer,
}

/// What may still be added from the page that said so.
#[derive(Debug)]
pub struct Newcomer {
    /// To be given with what is added. Another one than before the account was changed.
    pub id: EnrolmentId,
    /// Whether a first passkey may be added.
    pub passkey: bool,
    /// The location at which a first device may be added.
    pub device_at: Option<String>,
    pub expires_in: Duration,
}

/// What the first administrator is to be told.
#[derive(Debug)]
pub enum FirstAdmin {
    /// No account has enrolled: here is a link.
    Link { url: Secret, expires_ms: i64 },
    /// No account has enrolled, and nobody can: enrolment is off.
    Off,
    /// There is nothing to tell.
    NotNeeded,
}

/// Why a step of an enrolment was not done.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// Unknown, too old, used, voided by a newer one, of a disabled account: which one is not told.
    #[error("this link is not good, or not any more: ask your administrator for a new one")]
    Over,
    /// The password may not be one; says why.
    #[error(transparent)]
    Password(PasswordError),
    /// The authenticator's code, when no password has been chosen yet.
    #[error("choose a password first")]
    PasswordFirst,
    /// Not a code of the new authenticator, now.
    #[error("the code is wrong or too old")]
    Code,
    /// Nobody who has enrolled lately, or the time for it is over.
    #[error("the time to add it from here is over, or it is there already")]
    TooLate,
    /// The first passkey was not added.
    #[error(transparent)]
    Passkey(PasskeyError),
    /// The first device was not added.
    #[error(transparent)]
    Device(SelfServiceError),
    #[error("the enrolment could not be processed: {0}")]
    Internal(OperationError),
}

impl Control {
    /// Enrolments by one-time links.
    pub fn enrolments(&self) -> Enrolments {
        Enrolments {
            core: self.0.clone(),
            passkeys: None,
        }
    }

    /// Says where the page to enrol at is served: links lead there from now on. Before, there are none.
    pub fn serve_enrolments_at(&self, page: String) {
        // Said once, at the start.
        let _ = self.0.enrolment_page.set(page);
    }

    /// A one-time link for the first administrator, as long as no account has enrolled; an earlier
    /// one is void. Makes the account where there is none.
    pub async fn first_admin(&self) -> Result<FirstAdmin, OperationError> {
        if self.0.has_enrolled_accounts().await? {
            return Ok(FirstAdmin::NotNeeded);
        }
        if self.0.enrolment_page.get().is_none() {
            return Ok(FirstAdmin::Off);
        }
        Ok(match self.0.first_admin().await? {
            Some(link) => FirstAdmin::Link {
                url: link.url.into(),
                expires_ms: link.expires_ms,
            },
            None => FirstAdmin::NotNeeded,
        })
    }
}

impl Enrolments {
    /// Offers first passkeys, too: made for the origins at which these enrolments are served.
    #[must_use]
    pub fn with_passkeys(self, passkeys: Passkeys) -> Self {
        Self {
            passkeys: Some(passkeys),
            ..self
        }
    }

    /// The name at which a first passkey can be added, if there is one.
    pub fn passkeys_at(&self) -> Option<&PortalName> {
        self.passkeys.as_ref().map(Passkeys::name)
    }
}

impl NewAuthenticator {
    /// With this seed, for this user.
    pub(crate) fn of(seed: &[u8], user: &str) -> Result<Self, OperationError> {
        let authenticator = Authenticator::new(seed, user)?;
        Ok(Self {
            user: user.to_owned(),
            uri: authenticator.uri()?.as_str().into(),
            secret: authenticator.base32().as_str().into(),
        })
    }
}

impl EnrolmentId {
    fn new(token: &Token) -> Self {
        Self(token.expose().to_owned())
    }

    /// As it is given to the browser.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for EnrolmentId {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for EnrolmentId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EnrolmentId(…)")
    }
}

impl From<OperationError> for EnrolError {
    fn from(error: OperationError) -> Self {
        match error {
            OperationError::Password(
                error @ (PasswordError::Short
                | PasswordError::Long
                | PasswordError::Common
                | PasswordError::Name),
            ) => Self::Password(error),
            other => Self::Internal(other),
        }
    }
}

impl From<PasskeyError> for EnrolError {
    fn from(error: PasskeyError) -> Self {
        Self::Passkey(error)
    }
}

impl From<SelfServiceError> for EnrolError {
    fn from(error: SelfServiceError) -> Self {
        Self::Device(error)
    }
}

impl From<StoreError> for EnrolError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.into())
    }
}

/// Where the seed of an authenticator to be is sealed.
fn seed_field(enrolment: &str) -> Field<'_> {
    Field {
        table: "enrolments",
        column: "totp_secret",
        row: enrolment,
    }
}
