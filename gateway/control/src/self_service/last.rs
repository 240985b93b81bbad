//! The last way in is not given up: what is removed has to leave the account with something that signs it
//! in at each location where it has devices and could sign in before.

use std::collections::BTreeSet;

use portcullis_proto::v1::Level;

use crate::domain::{Factor, FactorSet, MfaPolicy};
use crate::fresh::SignedIn;
use crate::store::webauthn::CredentialRow;
use crate::store::{StoreError, Write, devices, locations, users};

/// What a change is about to take from the account.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Without<'a> {
    /// The passkey with this id.
    Passkey(&'a str),
    /// The account at this provider.
    Provider(&'a str),
}

/// Why it is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoWay {
    #[error("{}", last_way(.location))]
    Last { location: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) fn last_way(location: &str) -> String {
    format!("without it you could not sign in at {location} any more: set up another way first")
}

/// What an account can prove. Recovery codes are not among it: they run out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holds {
    factors: FactorSet,
    /// The highest level that one of its providers has vouched for.
    vouched: Level,
}

/// Refuses what would leave a location without a way to sign in. Phones approve where the page for it is served.
pub(crate) async fn keeps_a_way(
    write: &mut Write<'_>,
    signed_in: &SignedIn,
    without: Without<'_>,
    phones_approve: bool,
) -> Result<(), NoWay> {
    let user_id = &signed_in.device.user_id;
    let user = users::find(write.sql(), user_id).await?;
    let user = user.ok_or(StoreError::Value("user"))?;
    let mut known = FactorSet::NONE;
    if !user.password.is_empty() {
        known = known.with(Factor::Password);
    }
    if !user.totp_secret.is_empty() {
        known = known.with(Factor::Totp);
    }
    let holds = |without| {
        let holds = holds(signed_in, known, without);
        // By one of the passkeys.
        if phones_approve && holds.factors.contains(Factor::Passkey) {
            let factors = holds.factors.with(Factor::Phone);
            return Holds { factors, ..holds };
        }
        holds
    };
    let before = holds(None);
    let after = holds(Some(without));
    let devices = devices::list(write.sql(), user_id, "").await?;
    let at: BTreeSet<String> = devices.into_iter().map(|row| row.location_id).collect();
    for location in at {
        let Some(location) = locations::find(write.sql(), &location).await? else {
            continue;
        };
        if before.opens(&location.mfa) && !after.opens(&location.mfa) {
            let location = location.name;
            return Err(NoWay::Last { location });
        }
    }
    Ok(())
}

fn holds(signed_in: &SignedIn, known: FactorSet, without: Option<Without<'_>>) -> Holds {
    let mut factors = known;
    let stays = |passkey: &&CredentialRow| !matches!(without, Some(Without::Passkey(id)) if id == passkey.id);
    if signed_in
        .passkeys
        .iter()
        .filter(stays)
        .any(CredentialRow::is_usable)
    {
        factors = factors.with(Factor::Passkey);
    }
    let links =
        signed_in.links.iter().filter(|link| link.works).filter(
            |link| !matches!(without, Some(Without::Provider(name)) if name == link.provider),
        );
    let vouched = links.map(|link| link.level).max();
    if vouched.is_some() {
        factors = factors.with(Factor::Sso);
    }
    Holds {
        factors,
        vouched: vouched.unwrap_or(Level::None),
    }
}

impl Holds {
    /// Whether this is enough for a session under the policy; see `crate::login::machine`.
    fn opens(self, policy: &MfaPolicy) -> bool {
        let has = |factor| policy.factors.contains(factor) && self.factors.contains(factor);
        if has(Factor::Passkey) || (has(Factor::Sso) && self.vouched >= policy.require) {
            return true;
        }
        policy.require == Level::Mfa
            && (has(Factor::Totp) || has(Factor::Phone))
            && (has(Factor::Password) || has(Factor::Sso))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opens(holds: &[&str], vouched: Level, allowed: &[&str], require: Level) -> bool {
        let policy = MfaPolicy {
            factors: FactorSet::parse(allowed).unwrap(),
            require,
            session_lifetime_ms: 1,
            idle_timeout_ms: 0,
        };
        let factors = FactorSet::parse(holds).unwrap();
        Holds { factors, vouched }.opens(&policy)
    }

    const ALL: &[&str] = &[
        "password",
        "totp",
        "recovery-code",
        "passkey",
        "sso",
        "phone",
    ];
    const STRICT: Level = Level::PhishingResistant;

    #[test]
    fn two_kinds_a_passkey_or_a_providers_word_open_a_session() {
        for (holds, vouched, mfa, strict) in [
            (&["password", "totp"][..], Level::None, true, false),
            (&["password"], Level::None, false, false),
            (&["totp"], Level::None, false, false),
            (&["password", "phone"], Level::None, true, false),
            (&["password", "recovery-code"], Level::None, false, false),
            (&["passkey"], Level::None, true, true),
            (&["sso"], Level::None, false, false),
            (&["sso", "password"], Level::None, false, false),
            (&["sso", "totp"], Level::None, true, false),
            (&["sso"], Level::Mfa, true, false),
            (&["sso"], STRICT, true, true),
        ] {
            assert_eq!(opens(holds, vouched, ALL, Level::Mfa), mfa, "{holds:?}");
            assert_eq!(opens(holds, vouched, ALL, STRICT), strict, "{holds:?}");
        }
        assert!(!opens(
            &["passkey"],
            Level::None,
            &["password", "totp"],
            Level::Mfa
        ));
        assert!(!opens(&["sso"], STRICT, &["password", "totp"], Level::Mfa));
    }
}
