//! Logging in from outside of the tunnel, where no address proves anything.
//!
//! The account is named first, and which of its devices is meant comes last, when two factors have been
//! proven: strangers learn neither of accounts nor of devices. What was proven then has to be what the
//! location of the chosen device wants. A passkey comes after the password here, because strangers cannot ask
//! for one before, and what it proves is enough by itself. Providers are for the inside.
//!
//! A login half-way is a record in the store, named by a cookie of the browser that began it. So is what a
//! browser may do afterwards, which is to look at the one session that it has opened, and to end it.
//!
//! Wrong attempts are counted apart from those inside, so that nothing that a stranger does here delays
//! anybody there; and the same for names that are nobody's, so that a delay tells nothing.

mod begin;
mod choose;
mod passkey;
mod phone;
mod second;

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use portcullis_proto::v1::Level;

use crate::Control;
use crate::core::Core;
use crate::domain::{Factor, FactorSet, MfaPolicy, Mode};
use crate::login::{LoginError, Logins, Next, Proven, left, next};
use crate::store::devices::DeviceRow;
use crate::store::{StoreError, devices, locations, webauthn};
use crate::webauthn::{Passkeys, PortalName};

pub use choose::Opened;

pub(crate) use phone::opened_by_phone;

/// Runs logins from outside of the tunnel; cheap to clone.
#[derive(Clone, Debug)]
pub struct Outside {
    logins: Logins,
    /// None where the portal has no name.
    passkeys: Option<Passkeys>,
}

/// Who asks: the network of the connection, which is all that is known of a stranger.
#[derive(Clone, Copy, Debug)]
pub struct Stranger {
    /// What one customer of a provider has: an IPv4 address, or the first of an IPv6 /64.
    pub network: IpAddr,
}

/// One customer's share: an IPv4 address, or an IPv6 /64 (RFC 6177: no site has less).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
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
        Outside {
            logins: self.logins(),
            passkeys: None,
        }
    }
}

impl Outside {
    /// With passkeys as a second factor, for the portal of this name outside of the tunnel.
    #[must_use]
    pub fn with_passkeys(self, passkeys: Passkeys) -> Self {
        Self {
            passkeys: Some(passkeys),
            ..self
        }
    }

    /// The name that passkeys are bound to. None: there are none here.
    pub fn portal_name(&self) -> Option<&PortalName> {
        self.passkeys.as_ref().map(Passkeys::name)
    }

    fn core(&self) -> &Core {
        &self.logins.0
    }

    /// Any one of which has to follow the password, for any of the user's devices.
    async fn wanted(
        &self,
        sql: &mut sqlx::AnyConnection,
        user_id: &str,
    ) -> Result<FactorSet, StoreError> {
        let mut here = vec![Factor::Totp, Factor::RecoveryCode];
        if self.passkeys.is_some() {
            let passkeys = webauthn::of_user(&mut *sql, user_id).await?;
            if passkeys.iter().any(webauthn::CredentialRow::is_usable) {
                here.push(Factor::Passkey);
            }
        }
        let phone = FactorSet::NONE.with(Factor::Phone);
        here.extend(self.core().offered(&mut *sql, phone, user_id).await?.iter());
        let candidates = candidates(sql, user_id).await?;
        let opens_one = |second: &Factor| {
            let mut policies = candidates.iter().map(|(_, policy)| policy);
            policies.any(|policy| opens(policy, *second).is_some())
        };
        Ok(here.into_iter().filter(opens_one).collect())
    }
}

/// The level of the session that a password and then this opens at a location. `None` where it does not allow
/// what was proven, or wants more.
fn opens(policy: &MfaPolicy, second: Factor) -> Option<Level> {
    let (used, proven) = match second {
        // The password names who comes, and nothing rests on it.
        Factor::Passkey => {
            let webauthn = true;
            (
                vec![second],
                Proven {
                    webauthn,
                    ..Proven::default()
                },
            )
        }
        _ => {
            let (knowledge, possession) = (true, true);
            (
                vec![Factor::Password, second],
                Proven {
                    knowledge,
                    possession,
                    ..Proven::default()
                },
            )
        }
    };
    let allowed = used
        .into_iter()
        .all(|factor| policy.factors.contains(factor));
    match next(policy, proven) {
        Next::Done(level) if allowed => Some(level),
        _ => None,
    }
}

/// The user's devices that a login from outside may be for, with what each one's location demands.
async fn candidates(
    sql: &mut sqlx::AnyConnection,
    user_id: &str,
) -> Result<Vec<(DeviceRow, MfaPolicy)>, StoreError> {
    let mut found = Vec::new();
    for device in devices::list(&mut *sql, user_id, "").await? {
        let location = locations::find(&mut *sql, &device.location_id).await?;
        // Where sessions have a key of their own, it is for the device itself.
        let location = location.filter(|location| location.mode == Mode::Gate);
        if let Some(location) = location {
            found.push((device, location.mfa));
        }
    }
    Ok(found)
}

fn delayed(until_ms: i64, now_ms: i64) -> LoginError {
    LoginError::Delayed {
        retry_after: left(until_ms, now_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_an_ipv4_address_or_an_ipv6_64() {
        assert_eq!(network(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
        assert_ne!(
            network(ip("2001:db8:1:3::1")),
            network(ip("2001:db8:1:2::1"))
        );
        assert_eq!(network(ip("::ffff:198.51.100.7")), ip("198.51.100.7"));
        assert_ne!(network(ip("198.51.100.8")), network(ip("198.51.100.7")));
    }
}
