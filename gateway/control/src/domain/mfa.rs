//! What a location demands of a login, and for how long a login is good there.

use portcullis_proto::v1::Level;

use super::{Factor, FactorSet, Invalid};

const MINUTE_MS: i64 = 60 * 1000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
/// No session outlives this, however it is granted or extended.
pub(crate) const LONGEST_MS: i64 = 366 * 24 * HOUR_MS;
const SHORTEST_MS: i64 = 1000;

/// A location's policy on logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MfaPolicy {
    /// What a login may be proven with.
    pub(crate) factors: FactorSet,
    /// `Mfa` or `PhishingResistant`.
    pub(crate) require: Level,
    pub(crate) session_lifetime_ms: i64,
    /// 0: none.
    pub(crate) idle_timeout_ms: i64,
}

/// A change of it; what is absent stays as it is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MfaChange {
    pub(crate) factors: Option<FactorSet>,
    pub(crate) require: Option<Level>,
    pub(crate) session_lifetime_ms: Option<i64>,
    pub(crate) idle_timeout_ms: Option<i64>,
    pub(crate) preset: Option<Preset>,
}

/// Values that an authentication assurance level of NIST SP 800-63B-4 asks for. They are set once:
/// the location does not remember the preset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// Section 2.2.3: a new login after 24 hours, or an hour without activity.
    Aal2,
    /// Section 2.3.3: a new login after 12 hours, or 15 minutes without activity.
    Aal3,
}

impl Preset {
    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        match text {
            "aal2" => Ok(Self::Aal2),
            "aal3" => Ok(Self::Aal3),
            _ => Err(Invalid(format!(
                "{text:?} is no preset: there are aal2 and aal3"
            ))),
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Aal2 => "aal2",
            Self::Aal3 => "aal3",
        }
    }

    fn require(self) -> Level {
        match self {
            Self::Aal2 => Level::Mfa,
            Self::Aal3 => Level::PhishingResistant,
        }
    }

    fn longest_lifetime_ms(self) -> i64 {
        match self {
            Self::Aal2 => 24 * HOUR_MS,
            Self::Aal3 => 12 * HOUR_MS,
        }
    }

    fn longest_idle_ms(self) -> i64 {
        match self {
            Self::Aal2 => HOUR_MS,
            Self::Aal3 => 15 * MINUTE_MS,
        }
    }

    /// The change with what the preset says about everything it leaves open. What it says itself
    /// has to be as strict.
    fn complete(self, change: MfaChange, now: MfaPolicy) -> Result<MfaChange, Invalid> {
        let name = self.as_str();
        let require = change.require.unwrap_or(self.require());
        if require < self.require() {
            return Err(Invalid(format!(
                "{name} requires {}: leave out the lower level, or the preset",
                level_name(self.require())
            )));
        }
        let within = |what, given: Option<i64>, now: i64, longest: i64| match given {
            Some(ms) if is_within(ms, longest) => Ok(ms),
            Some(_) => Err(Invalid(format!(
                "{name} allows {what} of {} at most: give less, or leave out the preset",
                text(longest)
            ))),
            None if is_within(now, longest) => Ok(now),
            None => Ok(longest),
        };
        let lifetime_ms = within(
            "a session lifetime",
            change.session_lifetime_ms,
            now.session_lifetime_ms,
            self.longest_lifetime_ms(),
        )?;
        let idle_ms = within(
            "an idle timeout",
            change.idle_timeout_ms,
            now.idle_timeout_ms,
            self.longest_idle_ms(),
        )?;
        Ok(MfaChange {
            require: Some(require),
            session_lifetime_ms: Some(lifetime_ms),
            idle_timeout_ms: Some(idle_ms),
            ..change
        })
    }
}

impl MfaChange {
    pub(crate) fn is_empty(&self) -> bool {
        self.factors.is_none()
            && self.require.is_none()
            && self.session_lifetime_ms.is_none()
            && self.idle_timeout_ms.is_none()
            && self.preset.is_none()
    }

    /// To what lifetime and idle timeout running sessions are cut by this change of one policy into
    /// another. What gets longer leaves them alone; what is said again cuts those that an
    /// administrator has extended since.
    pub(crate) fn cuts(self, before: MfaPolicy, after: MfaPolicy) -> (Option<i64>, Option<i64>) {
        let preset = self.preset.is_some();
        let lifetime = (self.session_lifetime_ms.is_some() || preset)
            && after.session_lifetime_ms <= before.session_lifetime_ms;
        let idle = (self.idle_timeout_ms.is_some() || preset)
            && is_within(after.idle_timeout_ms, longest(before.idle_timeout_ms));
        (
            lifetime.then_some(after.session_lifetime_ms),
            idle.then_some(after.idle_timeout_ms),
        )
    }

    /// The policy after the change, if that is one.
    pub(crate) fn apply(self, now: MfaPolicy) -> Result<MfaPolicy, Invalid> {
        let change = match self.preset {
            Some(preset) => preset.complete(self, now)?,
            None => self,
        };
        let policy = MfaPolicy {
            factors: change.factors.unwrap_or(now.factors),
            require: change.require.unwrap_or(now.require),
            session_lifetime_ms: change
                .session_lifetime_ms
                .unwrap_or(now.session_lifetime_ms),
            idle_timeout_ms: change.idle_timeout_ms.unwrap_or(now.idle_timeout_ms),
        };
        policy.check()?;
        Ok(policy)
    }
}

impl MfaPolicy {
    /// Refuses what nobody could satisfy, and durations that are none.
    fn check(self) -> Result<(), Invalid> {
        let has = |factor| self.factors.contains(factor);
        let possessed = [Factor::Totp, Factor::RecoveryCode, Factor::Phone];
        let two_kinds = has(Factor::Password) && possessed.into_iter().any(has);
        match self.require {
            Level::None => return Err(Invalid("a location requires at least mfa".into())),
            Level::PhishingResistant if !has(Factor::Passkey) && !has(Factor::Sso) => {
                return Err(Invalid(format!(
                    "nobody could log in: phishing-resistant needs a passkey, or sso by a provider that vouches for one, and the factors are {}: add passkey, or require mfa",
                    self.listed()
                )));
            }
            Level::Mfa if !two_kinds && !has(Factor::Passkey) && !has(Factor::Sso) => {
                return Err(Invalid(format!(
                    "nobody could log in: mfa needs factors of two kinds (password, and totp, recovery-code or phone), a passkey, or sso, and the factors are {}",
                    self.listed()
                )));
            }
            Level::Mfa | Level::PhishingResistant => {}
        }
        for (what, ms) in [
            ("session lifetime", self.session_lifetime_ms),
            ("idle timeout", self.idle_timeout_ms),
        ] {
            let none = ms == 0 && what == "idle timeout";
            if !none && !(SHORTEST_MS..=LONGEST_MS).contains(&ms) {
                return Err(Invalid(format!(
                    "a {what} is between a second and 366 days"
                )));
            }
        }
        Ok(())
    }

    fn listed(self) -> String {
        if self.factors.is_empty() {
            "none".into()
        } else {
            self.factors.to_string()
        }
    }

    /// Whether a session that was granted under the other policy may have to end sooner under this.
    pub(crate) fn is_stricter_than(self, other: Self) -> bool {
        self.require > other.require
            || self.session_lifetime_ms < other.session_lifetime_ms
            || (self.idle_timeout_ms != other.idle_timeout_ms
                && is_within(self.idle_timeout_ms, longest(other.idle_timeout_ms)))
    }
}

/// Whether a duration, 0 being without end, is no longer than another.
fn is_within(ms: i64, longest: i64) -> bool {
    ms != 0 && ms <= longest
}

fn longest(ms: i64) -> i64 {
    if ms == 0 { i64::MAX } else { ms }
}

fn text(ms: i64) -> String {
    let ms = u64::try_from(ms).unwrap_or(0);
    humantime::format_duration(std::time::Duration::from_millis(ms)).to_string()
}

/// The word for a level in policies, errors and documents.
pub fn level_name(level: Level) -> &'static str {
    match level {
        Level::None => "none",
        Level::Mfa => "mfa",
        Level::PhishingResistant => "phishing-resistant",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: MfaPolicy = MfaPolicy {
        factors: FactorSet::ALL,
        require: Level::Mfa,
        session_lifetime_ms: 48 * HOUR_MS,
        idle_timeout_ms: 0,
    };

    fn preset(preset: Preset) -> MfaChange {
        MfaChange {
            preset: Some(preset),
            ..MfaChange::default()
        }
    }

    #[test]
    fn presets_are_what_sp_800_63b_4_asks_for() {
        let aal2 = preset(Preset::Aal2).apply(NOW).unwrap();
        assert_eq!((aal2.require, aal2.factors), (Level::Mfa, FactorSet::ALL));
        assert_eq!(aal2.session_lifetime_ms, 24 * HOUR_MS);
        assert_eq!(aal2.idle_timeout_ms, HOUR_MS);
        let aal3 = preset(Preset::Aal3).apply(aal2).unwrap();
        assert_eq!(aal3.require, Level::PhishingResistant);
        assert_eq!(aal3.session_lifetime_ms, 12 * HOUR_MS);
        assert_eq!(aal3.idle_timeout_ms, 15 * MINUTE_MS);
        // Stricter values stay, and may be given.
        let short = MfaPolicy {
            session_lifetime_ms: HOUR_MS,
            idle_timeout_ms: MINUTE_MS,
            ..NOW
        };
        let kept = preset(Preset::Aal3).apply(short).unwrap();
        assert_eq!(
            (kept.session_lifetime_ms, kept.idle_timeout_ms),
            (HOUR_MS, MINUTE_MS)
        );
        let given = MfaChange {
            require: Some(Level::PhishingResistant),
            session_lifetime_ms: Some(2 * HOUR_MS),
            ..preset(Preset::Aal2)
        };
        let given = given.apply(NOW).unwrap();
        assert_eq!(
            (given.require, given.session_lifetime_ms),
            (Level::PhishingResistant, 2 * HOUR_MS)
        );
    }

    #[test]
    fn what_is_laxer_than_its_preset_is_refused() {
        for (lax, told) in [
            (
                MfaChange {
                    session_lifetime_ms: Some(25 * HOUR_MS),
                    ..preset(Preset::Aal2)
                },
                "1day",
            ),
            (
                MfaChange {
                    idle_timeout_ms: Some(0),
                    ..preset(Preset::Aal2)
                },
                "1h",
            ),
            (
                MfaChange {
                    require: Some(Level::Mfa),
                    ..preset(Preset::Aal3)
                },
                "phishing-resistant",
            ),
        ] {
            let error = lax.apply(NOW).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn a_policy_that_nobody_could_satisfy_is_refused() {
        let with = |factors: &[&str], require| {
            let change = MfaChange {
                factors: Some(FactorSet::parse(factors).unwrap()),
                require: Some(require),
                ..MfaChange::default()
            };
            change.apply(NOW)
        };
        for factors in [
            &[][..],
            &["password"],
            &["totp"],
            &["recovery-code"],
            &["totp", "recovery-code"],
            &["phone"],
            &["phone", "totp"],
        ] {
            let error = with(factors, Level::Mfa).unwrap_err().to_string();
            assert!(error.contains("nobody could log in"), "{error}");
            assert!(with(factors, Level::PhishingResistant).is_err());
        }
        for factors in [
            &["password", "totp"][..],
            &["password", "recovery-code"],
            &["password", "phone"],
        ] {
            assert!(with(factors, Level::Mfa).is_ok());
            assert!(with(factors, Level::PhishingResistant).is_err());
        }
        assert!(with(&["passkey"], Level::Mfa).is_ok());
        assert!(with(&["passkey"], Level::PhishingResistant).is_ok());
        assert!(with(&["passkey"], Level::None).is_err());
        // Also when the change itself leaves the offending half alone.
        let now = with(&["password", "totp"], Level::Mfa).unwrap();
        assert!(preset(Preset::Aal3).apply(now).is_err());
    }

    #[test]
    fn only_less_is_stricter() {
        let policy = |lifetime, idle| MfaPolicy {
            session_lifetime_ms: lifetime,
            idle_timeout_ms: idle,
            ..NOW
        };
        for (stricter, than) in [
            (policy(1, 5), policy(2, 5)),
            (policy(2, 4), policy(2, 5)),
            (policy(2, 5), policy(2, 0)),
        ] {
            assert!(stricter.is_stricter_than(than));
            assert!(!than.is_stricter_than(stricter));
            assert!(!than.is_stricter_than(than));
        }
        let raised = MfaPolicy {
            require: Level::PhishingResistant,
            ..NOW
        };
        assert!(raised.is_stricter_than(NOW) && !NOW.is_stricter_than(raised));
    }
}
