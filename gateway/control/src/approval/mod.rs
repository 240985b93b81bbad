//! A phone as the second factor: the computer shows a QR code and a number; the phone that opens the code shows what
//! is asked for, takes the number, and approves with a passkey on it.
//!
//! An approval belongs to one login in progress. It is good for a minute, once, and for the network that it was
//! asked for from. The phone's side needs the token of the code and nothing else: whoever has it may look, deny, or
//! end it by a wrong number, and only the user's passkey approves. See docs/phone.md for what a relay can do.

mod ask;
mod finish;
mod phone;

use std::net::IpAddr;
use std::time::Duration;

use crate::Control;
use crate::core::Core;
use crate::domain::{Factor, FactorSet};
use crate::login::{Begun, Logins};
use crate::secrets::Secret;
use crate::store::{StoreError, webauthn};
use crate::webauthn::Passkeys;

pub use phone::{ApprovalError, ApprovalView};

pub(crate) use ask::Asked;
pub(crate) use finish::Answer;

/// How long the phone, and the computer after it, may take: from the code to the session.
pub(crate) const WITHIN_MS: i64 = 60 * 1000;
/// Of one account that wait at the same time, by logins that were begun in the same way.
const MOST_WAITING: i64 = 3;

/// The phone's side; cheap to clone.
#[derive(Clone, Debug)]
pub struct Approvals {
    logins: Logins,
    passkeys: Passkeys,
}

/// What a computer shows.
#[derive(Clone, Debug)]
pub struct PhonePrompt {
    /// For the QR code. It ends in the token.
    pub url: Secret,
    /// From 10 to 99, to be typed into the phone.
    pub number: u8,
    pub expires_in: Duration,
}

/// How an approval stands, as its computer is told.
#[derive(Debug)]
pub enum PhoneState {
    Waiting(PhonePrompt),
    /// It has to be finished within this time.
    Approved {
        expires_in: Duration,
    },
    /// By its user's word, or by a wrong number.
    Denied,
    /// Nobody answered in time, or nothing was asked.
    Over,
}

/// What finishing comes to.
#[derive(Debug)]
pub enum PhoneStep<T> {
    /// Nobody has answered yet.
    Waiting {
        expires_in: Duration,
    },
    Done(T),
}

/// How the login of an approval was begun: what one of them counts and delays leaves the others alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Tunnel,
    Proof,
    Outside,
    /// Before there is a tunnel, in a browser of the device's own machine. There is no password before it: it counts
    /// against the device.
    Browser,
}

impl Place {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Tunnel, Self::Proof, Self::Outside, Self::Browser];

    pub(crate) fn of(begun: Begun) -> Self {
        match begun {
            Begun::InTunnel(_) => Self::Tunnel,
            Begun::WithProof => Self::Proof,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Proof => "proof",
            Self::Outside => "outside",
            Self::Browser => "browser",
        }
    }

    fn parse(text: &str) -> Result<Self, StoreError> {
        let found = Self::ALL.into_iter().find(|place| place.as_str() == text);
        found.ok_or(StoreError::Value("place"))
    }
}

impl Control {
    /// Says where the page is served at which phones approve, without the token: they are asked from now on.
    pub fn serve_approvals_at(&self, page: String) {
        // Said once, at the start.
        let _ = self.0.approval_page.set(page);
    }

    /// Approvals by phones, with the passkeys of the portal outside of the tunnel.
    pub fn approvals(&self, passkeys: Passkeys) -> Approvals {
        Approvals {
            logins: self.logins(),
            passkeys,
        }
    }
}

impl Core {
    /// What of this may be offered: a phone approves where the page for it is served, for who has a passkey.
    pub(crate) async fn offered(
        &self,
        sql: &mut sqlx::AnyConnection,
        factors: FactorSet,
        user_id: &str,
    ) -> Result<FactorSet, StoreError> {
        if !factors.contains(Factor::Phone) {
            return Ok(factors);
        }
        if self.has_passkey(sql, user_id).await? {
            return Ok(factors);
        }
        Ok(factors.without(Factor::Phone))
    }

    /// Whether the user has a passkey, and there is a page to use it on.
    pub(crate) async fn has_passkey(
        &self,
        sql: &mut sqlx::AnyConnection,
        user_id: &str,
    ) -> Result<bool, StoreError> {
        if !self.phones_approve() {
            return Ok(false);
        }
        let passkeys = webauthn::of_user(sql, user_id).await?;
        Ok(passkeys.iter().any(webauthn::CredentialRow::is_usable))
    }

    /// Whether there is a page for it.
    pub(crate) fn phones_approve(&self) -> bool {
        self.approval_page.get().is_some()
    }
}

/// What an audit record of it is called.
fn action(what: &str, browser: bool) -> &'static str {
    match (what, browser) {
        ("begin", false) => "phone.begin",
        ("begin", true) => "browser.begin",
        ("approve", false) => "phone.approve",
        ("approve", true) => "browser.approve",
        ("deny", false) => "phone.deny",
        ("deny", true) => "browser.deny",
        (_, false) => "phone.refuse",
        (_, true) => "browser.refuse",
    }
}

/// As the store writes networks.
fn written(network: IpAddr) -> String {
    network.to_canonical().to_string()
}
