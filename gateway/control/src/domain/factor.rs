//! What a login can be proven with.

use super::Invalid;

/// Something that a user knows, or has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Factor {
    /// Known: NIST SP 800-63B-4, 3.1.1.
    Password,
    /// A code of an authenticator, which the user has: section 3.1.4.
    Totp,
    /// A code of a list, which the user has: a look-up secret, section 3.1.2.
    RecoveryCode,
    /// WebAuthn: phishing-resistant where it verified its user, section 3.2.5.
    Passkey,
    /// The word of an OpenID Provider: as good as the provider says that its login was, and as the
    /// provider's configuration takes it for. NIST SP 800-63C-4.
    Sso,
    /// A phone that its user has, by a passkey on it: out of band, section 3.1.3. What it approves was begun
    /// elsewhere, and somebody may have relayed it: never phishing-resistant.
    Phone,
}

impl Factor {
    /// All of them, in the order in which they are told.
    pub const ALL: [Self; 6] = [
        Self::Password,
        Self::Totp,
        Self::RecoveryCode,
        Self::Passkey,
        Self::Sso,
        Self::Phone,
    ];

    /// The word in the store, on the wire and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Totp => "totp",
            Self::RecoveryCode => "recovery-code",
            Self::Passkey => "passkey",
            Self::Sso => "sso",
            Self::Phone => "phone",
        }
    }

    fn parse(text: &str) -> Result<Self, Invalid> {
        let found = Self::ALL.into_iter().find(|factor| factor.as_str() == text);
        found.ok_or_else(|| {
            Invalid(format!(
                "{text:?} is no factor: there are password, totp, recovery-code, passkey, sso and phone"
            ))
        })
    }

    fn bit(self) -> u8 {
        match self {
            Self::Password => 1,
            Self::Totp => 2,
            Self::RecoveryCode => 4,
            Self::Passkey => 8,
            Self::Sso => 16,
            Self::Phone => 32,
        }
    }
}

/// Any number of factors.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct FactorSet(u8);

impl FactorSet {
    /// No factor.
    pub const NONE: Self = Self(0);
    /// Every factor there is.
    pub const ALL: Self = Self(63);

    /// Whether the factor is in it.
    pub fn contains(self, factor: Factor) -> bool {
        self.0 & factor.bit() != 0
    }

    /// Whether none is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are in it, in the order of [`Factor::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Factor> {
        Factor::ALL
            .into_iter()
            .filter(move |factor| self.contains(*factor))
    }

    /// Their words.
    pub fn names(self) -> Vec<String> {
        self.iter().map(|factor| factor.as_str().into()).collect()
    }

    /// Reads words; a factor may be named again.
    pub(crate) fn parse<T: AsRef<str>>(names: &[T]) -> Result<Self, Invalid> {
        let mut set = Self::NONE;
        for name in names {
            set = set.with(Factor::parse(name.as_ref())?);
        }
        Ok(set)
    }

    pub(crate) fn with(self, factor: Factor) -> Self {
        Self(self.0 | factor.bit())
    }

    pub(crate) fn without(self, factor: Factor) -> Self {
        Self(self.0 & !factor.bit())
    }

    /// Those that are in both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<Factor> for FactorSet {
    fn from_iter<T: IntoIterator<Item = Factor>>(factors: T) -> Self {
        factors.into_iter().fold(Self::NONE, Self::with)
    }
}

impl std::fmt::Display for FactorSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.names().join(", "))
    }
}

impl std::fmt::Debug for FactorSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FactorSet({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_read_as_they_are_written() {
        assert_eq!(
            FactorSet::parse(&FactorSet::ALL.names()).unwrap(),
            FactorSet::ALL
        );
        assert_eq!(
            Factor::ALL.into_iter().collect::<FactorSet>(),
            FactorSet::ALL
        );
        let some = FactorSet::parse(&["totp", "password", "totp"]).unwrap();
        assert_eq!(some.to_string(), "password, totp");
        for bad in ["", "TOTP", "sms", "totp "] {
            assert!(FactorSet::parse(&[bad]).is_err(), "{bad:?}");
        }
    }
}
