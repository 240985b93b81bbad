//! Logging in from outside of the tunnel, where no address proves anything.
//!
//! The account is named first, and which of its devices is meant comes last, when two factors have been
//! proven: strangers learn neither of accounts nor of devices. What was proven then has to be what the
//! location of the chosen device wants. Passkeys and providers are for the inside, and so is every location
//! that asks for one.
//!
//! A login half-way is a record in the store, named by a cookie of the browser that began it. So is what a
//! browser may do afterwards, which is to look at the one session that it has opened, and to end it.
//!
//! Wrong attempts are counted apart from those inside, so that nothing that a stranger does here delays
//! anybody there; and the same for names that are nobody's, so that a delay tells nothing.

mod begin;
mod choose;
mod second;

use std::net::IpAddr;
use std::time::Duration;

use crate::Control;
use crate::core::Core;
use crate::domain::{Factor, FactorSet, MfaPolicy, Mode};
use crate::login::{LoginError, Logins, Next, Proven, left, next};
use crate::store::devices::DeviceRow;
use crate::store::{StoreError, devices, locations};

pub use choose::Opened;

/// Runs logins from outside of the tunnel; cheap to clone.
#[derive(Clone, Debug)]
pub struct Outside(Logins);

/// Who asks: the network of the connection, which is all that is known of a stranger.
#[derive(Clone, Copy, Debug)]
pub struct Stranger {
    /// What one customer of a provider has: an IPv4 address, or the first of an IPv6 /64.
    pub network: IpAddr,
}

/// Where a login from outside is.
#[derive(Debug)]
pub enum OutsideStep {
    /// It wants any one of these factors.
    Wants {
        factors: FactorSet,
        expires_in: Duration,
    },
    /// It wants to know which device is meant.
    Choose(Vec<Choice>),
}

/// A device that a login from outside may be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub id: String,
    /// As its user calls it.
    pub device: String,
    pub location: String,
}

impl Control {
    /// Logins from outside of the tunnel.
    pub fn outside(&self) -> Outside {
        Outside(self.logins())
    }
}

impl Outside {
    fn core(&self) -> &Core {
        &self.0.0
    }
}

/// What a login has proven that was begun with a password.
fn proven(second: Option<Factor>) -> Proven {
    Proven {
        knowledge: true,
        possession: second.is_some(),
        ..Proven::default()
    }
}

/// What a location would want of such a login. `None` where it does not allow what was proven.
fn wanted(policy: &MfaPolicy, second: Option<Factor>) -> Option<Next> {
    let used = [Some(Factor::Password), second];
    let allowed = used
        .into_iter()
        .flatten()
        .all(|factor| policy.factors.contains(factor));
    allowed.then(|| next(policy, proven(second)))
}

/// The user's devices, with what each one's location would want.
async fn candidates(
    sql: &mut sqlx::AnyConnection,
    user_id: &str,
    second: Option<Factor>,
) -> Result<Vec<(DeviceRow, MfaPolicy, Next)>, StoreError> {
    let mut found = Vec::new();
    for device in devices::list(&mut *sql, user_id, "").await? {
        let location = locations::find(&mut *sql, &device.location_id).await?;
        // Where sessions have a key of their own, it is for the device itself.
        let location = location.filter(|location| location.mode == Mode::Gate);
        let Some(policy) = location.map(|location| location.mfa) else {
            continue;
        };
        if let Some(next) = wanted(&policy, second) {
            found.push((device, policy, next));
        }
    }
    Ok(found)
}

/// The codes of which one has to follow the password, for any of the devices.
fn codes(candidates: &[(DeviceRow, MfaPolicy, Next)]) -> FactorSet {
    let here = FactorSet::NONE
        .with(Factor::Totp)
        .with(Factor::RecoveryCode);
    let mut factors = FactorSet::NONE;
    for (.., next) in candidates {
        if let Next::Wants(wants) = next {
            factors = wants.and(here).iter().fold(factors, FactorSet::with);
        }
    }
    factors
}

fn delayed(until_ms: i64, now_ms: i64) -> LoginError {
    LoginError::Delayed {
        retry_after: left(until_ms, now_ms),
    }
}
