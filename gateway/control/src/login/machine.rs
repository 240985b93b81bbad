//! Which factors a login still wants. Pure: what a location demands and what has been proven go in,
//! and the next step comes out.

use std::net::IpAddr;

use portcullis_proto::v1::Level;

use crate::domain::{Factor, FactorSet, MfaPolicy};
use crate::secrets::TokenHash;

/// A factor that was verified. Whoever makes one has done the verification: nothing outside of
/// this crate can.
#[derive(Debug)]
pub(crate) enum Proof {
    /// The code was that of this time step, which is spent with it.
    Totp { step: i64 },
    /// The code with this hash, which is spent with it. Whether it is one of the user's shows then.
    RecoveryCode { hash: TokenHash },
    /// A passkey signed the challenge, and verified its user.
    Passkey,
    /// The user's phone has approved this attempt, which was asked for from here. Whether it has shows when
    /// the approval is spent.
    Phone { attempt: TokenHash, network: IpAddr },
    /// The user's browser has approved this attempt with a passkey, on the machine of the program that has begun it: that
    /// is who has this code. Whether it is so shows when the approval is spent.
    Browser {
        attempt: TokenHash,
        network: IpAddr,
        code: TokenHash,
    },
}

/// What a login has proven so far, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proven {
    /// Something the user knows.
    pub(crate) knowledge: bool,
    /// Something the user has.
    pub(crate) possession: bool,
    /// WebAuthn with user verification, here or at a provider that vouches for it: two kinds in one,
    /// and no other site can relay it.
    pub(crate) webauthn: bool,
}

/// What is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Any one of these factors. None: this login leads nowhere.
    Wants(FactorSet),
    /// A session at this level.
    Done(Level),
}

impl Proof {
    pub(crate) fn factor(&self) -> Factor {
        match self {
            Self::Totp { .. } => Factor::Totp,
            Self::RecoveryCode { .. } => Factor::RecoveryCode,
            Self::Passkey | Self::Browser { .. } => Factor::Passkey,
            Self::Phone { .. } => Factor::Phone,
        }
    }
}

impl Proven {
    /// NIST SP 800-63B-4, 2.2.1 and 2.3.1: two factors of different kinds, or one authenticator
    /// that is both. Two of the same kind are still one.
    fn level(self) -> Level {
        if self.webauthn {
            Level::PhishingResistant
        } else if self.knowledge && self.possession {
            Level::Mfa
        } else {
            Level::None
        }
    }
}

/// What a login that has proven this much needs to open a session.
pub(crate) fn next(policy: &MfaPolicy, proven: Proven) -> Next {
    let level = proven.level();
    if level != Level::None && level >= policy.require {
        return Next::Done(level);
    }
    let mut wants = FactorSet::NONE;
    if !proven.webauthn {
        wants = wants.with(Factor::Passkey);
    }
    if proven == Proven::default() {
        // Only as the first step: what it proves does not add up with a password's kind.
        wants = wants.with(Factor::Sso);
    }
    if policy.require == Level::Mfa {
        if !proven.knowledge {
            wants = wants.with(Factor::Password);
        } else if !proven.possession {
            // Only after the password: nobody gets to guess at codes alone.
            wants = wants
                .with(Factor::Totp)
                .with(Factor::RecoveryCode)
                .with(Factor::Phone);
        }
    }
    Next::Wants(wants.and(policy.factors))
}

/// What is proven once this is added. `None` when it is not wanted: not allowed at the location, of
/// a kind that is proven already, or of no use for the level that is required.
pub(crate) fn add(policy: &MfaPolicy, proven: Proven, proof: &Proof) -> Option<Proven> {
    let Next::Wants(wants) = next(policy, proven) else {
        return None;
    };
    if !wants.contains(proof.factor()) {
        return None;
    }
    let more = match proof {
        Proof::Totp { .. } | Proof::RecoveryCode { .. } | Proof::Phone { .. } => Proven {
            possession: true,
            ..proven
        },
        Proof::Passkey | Proof::Browser { .. } => Proven {
            webauthn: true,
            ..proven
        },
    };
    let useful = more != proven
        && match next(policy, more) {
            Next::Done(_) => true,
            Next::Wants(wants) => !wants.is_empty() && policy.require == Level::Mfa,
        };
    useful.then_some(more)
}

/// The level of the session that a passkey opens which has verified its user. `None` where the location
/// does not want one.
pub(crate) fn with_passkey(policy: &MfaPolicy, proven: Proven) -> Option<Level> {
    match next(policy, add(policy, proven, &Proof::Passkey)?) {
        Next::Done(level) => Some(level),
        Next::Wants(_) => None,
    }
}

/// What a login has proven that begins with a provider's word at this level. `None`: the provider has
/// vouched for one factor, something known or something possessed.
pub(crate) fn proven_by_sso(level: Level, one_is_known: bool) -> Proven {
    let two = level >= Level::Mfa;
    Proven {
        knowledge: two || one_is_known,
        possession: two || !one_is_known,
        webauthn: level >= Level::PhishingResistant,
    }
}

/// What is to come after a provider's word. `None` where the location does not take one, or where
/// it leads nowhere.
pub(crate) fn after_sso(policy: &MfaPolicy, proven: Proven) -> Option<Next> {
    if !policy.factors.contains(Factor::Sso) {
        return None;
    }
    // A password comes first or not at all.
    let later = FactorSet::NONE
        .with(Factor::Totp)
        .with(Factor::RecoveryCode)
        .with(Factor::Phone)
        .with(Factor::Passkey);
    match next(policy, proven) {
        Next::Wants(wants) if wants.and(later).is_empty() => None,
        Next::Wants(wants) => Some(Next::Wants(wants.and(later))),
        done => Some(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(factors: &[&str], require: Level) -> MfaPolicy {
        MfaPolicy {
            factors: FactorSet::parse(factors).unwrap(),
            require,
            session_lifetime_ms: 1,
            idle_timeout_ms: 0,
        }
    }

    fn wants(names: &[&str]) -> Next {
        Next::Wants(FactorSet::parse(names).unwrap())
    }

    const NOTHING: Proven = Proven {
        knowledge: false,
        possession: false,
        webauthn: false,
    };
    const KNOWN: Proven = Proven {
        knowledge: true,
        ..NOTHING
    };
    const HELD: Proven = Proven {
        possession: true,
        ..NOTHING
    };
    const BOTH: Proven = Proven {
        possession: true,
        ..KNOWN
    };
    const VERIFIED: Proven = Proven {
        webauthn: true,
        ..NOTHING
    };

    #[test]
    fn two_kinds_are_mfa_and_a_verified_passkey_is_phishing_resistant() {
        let mfa = policy(
            &["password", "totp", "recovery-code", "passkey"],
            Level::Mfa,
        );
        assert_eq!(next(&mfa, NOTHING), wants(&["password", "passkey"]));
        assert_eq!(
            next(&mfa, KNOWN),
            wants(&["totp", "recovery-code", "passkey"])
        );
        assert_eq!(next(&mfa, HELD), wants(&["password", "passkey"]));
        assert_eq!(next(&mfa, BOTH), Next::Done(Level::Mfa));
        assert_eq!(next(&mfa, VERIFIED), Next::Done(Level::PhishingResistant));

        let strict = MfaPolicy {
            require: Level::PhishingResistant,
            ..mfa
        };
        for short in [NOTHING, KNOWN, HELD, BOTH] {
            assert_eq!(next(&strict, short), wants(&["passkey"]), "{short:?}");
        }
        assert_eq!(
            next(&strict, VERIFIED),
            Next::Done(Level::PhishingResistant)
        );
    }

    #[test]
    fn only_what_is_allowed_is_wanted() {
        let plain = policy(&["password", "totp"], Level::Mfa);
        assert_eq!(next(&plain, NOTHING), wants(&["password"]));
        assert_eq!(next(&plain, KNOWN), wants(&["totp"]));
        let codes = policy(&["password", "recovery-code"], Level::Mfa);
        assert_eq!(next(&codes, KNOWN), wants(&["recovery-code"]));
        // The policy changed under the login: it leads nowhere, which is not the same as done.
        assert_eq!(
            next(&policy(&["passkey"], Level::Mfa), VERIFIED),
            Next::Done(Level::PhishingResistant)
        );
        assert_eq!(next(&policy(&[], Level::Mfa), KNOWN), wants(&[]));
        assert_eq!(
            next(&policy(&[], Level::PhishingResistant), BOTH),
            wants(&[])
        );
    }

    #[test]
    fn a_providers_word_is_as_good_as_it_says_and_one_factor_otherwise() {
        let all = |require| {
            policy(
                &["password", "totp", "recovery-code", "passkey", "sso"],
                require,
            )
        };
        let (mfa, strict) = (all(Level::Mfa), all(Level::PhishingResistant));
        let after = |policy, level| after_sso(policy, proven_by_sso(level, true));
        let done = |level| Some(Next::Done(level));
        assert_eq!(
            after(&mfa, Level::None),
            Some(wants(&["totp", "recovery-code", "passkey"]))
        );
        // Two things that one has are one factor.
        assert_eq!(
            after_sso(&mfa, proven_by_sso(Level::None, false)),
            Some(wants(&["passkey"]))
        );
        assert_eq!(after(&mfa, Level::Mfa), done(Level::Mfa));
        assert_eq!(
            after(&mfa, Level::PhishingResistant),
            done(Level::PhishingResistant)
        );
        for short in [Level::None, Level::Mfa] {
            assert_eq!(after(&strict, short), Some(wants(&["passkey"])));
        }
        assert_eq!(
            after(&strict, Level::PhishingResistant),
            done(Level::PhishingResistant)
        );
        let without = policy(&["password", "totp", "passkey"], Level::Mfa);
        assert_eq!(after(&without, Level::PhishingResistant), None);
        let alone = policy(&["sso"], Level::Mfa);
        assert_eq!(after(&alone, Level::None), None, "nothing could follow");
        assert_eq!(next(&alone, NOTHING), wants(&["sso"]));
        assert_eq!(
            next(&all(Level::Mfa), KNOWN),
            after(&mfa, Level::None).unwrap()
        );
    }

    #[test]
    fn no_level_is_none_however_little_is_required() {
        let none = policy(&["password", "totp"], Level::None);
        for short in [NOTHING, KNOWN, HELD] {
            assert!(matches!(next(&none, short), Next::Wants(_)), "{short:?}");
        }
    }

    #[test]
    fn a_factor_counts_once_and_in_its_turn() {
        let mfa = policy(&["password", "totp", "passkey"], Level::Mfa);
        let totp = Proof::Totp { step: 1 };
        assert_eq!(
            add(&mfa, NOTHING, &totp),
            None,
            "no guessing before the password"
        );
        assert_eq!(add(&mfa, KNOWN, &totp), Some(BOTH));
        assert_eq!(add(&mfa, BOTH, &totp), None, "over");
        assert_eq!(add(&mfa, NOTHING, &Proof::Passkey), Some(VERIFIED));

        let strict = policy(&["password", "totp", "passkey"], Level::PhishingResistant);
        for short in [NOTHING, KNOWN] {
            assert_eq!(add(&strict, short, &totp), None, "{short:?}");
            assert_eq!(with_passkey(&strict, short), Some(Level::PhishingResistant));
        }
        let phone = Proof::Phone {
            attempt: TokenHash::of(""),
            network: [10, 77, 0, 2].into(),
        };
        let phones = policy(&["password", "phone"], Level::Mfa);
        assert_eq!(next(&phones, KNOWN), wants(&["phone"]));
        assert_eq!(
            add(&phones, NOTHING, &phone),
            None,
            "not before the password"
        );
        assert_eq!(add(&phones, KNOWN, &phone), Some(BOTH));
        assert_eq!(add(&mfa, KNOWN, &phone), None, "not allowed here");
        assert_eq!(
            add(&strict, KNOWN, &phone),
            None,
            "never phishing-resistant"
        );
        let without = policy(&["password", "totp"], Level::Mfa);
        assert_eq!(with_passkey(&without, KNOWN), None, "not allowed here");
    }
}
