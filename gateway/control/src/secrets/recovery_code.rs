//! Recovery codes: look-up secrets (NIST SP 800-63B-4, 3.1.2), which stand in for the authenticator
//! that a user has lost.

use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

use super::{RandomError, TokenHash, random};

/// 120 bits. Section 3.1.2.2 asks for a password hash and a salt below 112 bits; from there on a plain
/// hash cannot be searched, and comparing costs nothing that an attacker could make us spend.
const BYTES: usize = 15;
const CHARACTERS: usize = 24;
const GROUP: usize = 4;
/// With all the spaces and dashes that somebody may put between the groups.
const LONGEST: usize = 3 * CHARACTERS;

/// A code in the clear, as it is shown once: six groups of four letters and digits.
pub(crate) struct RecoveryCode(Zeroizing<String>);

impl RecoveryCode {
    pub(crate) fn generate() -> Result<Self, RandomError> {
        let text = Zeroizing::new(BASE32_NOPAD.encode(random::<BYTES>()?.as_slice()));
        let mut groups = Zeroizing::new(String::with_capacity(CHARACTERS * 2));
        for (index, character) in text.chars().enumerate() {
            if index > 0 && index % GROUP == 0 {
                groups.push('-');
            }
            groups.push(character);
        }
        Ok(Self(groups))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// The hash of a code as somebody presents it: in either case, with or without what separates the
    /// groups. `None` for what cannot be one.
    pub(crate) fn hash_of(presented: &str) -> Option<TokenHash> {
        if presented.len() > LONGEST {
            return None;
        }
        let mut plain = Zeroizing::new(String::with_capacity(LONGEST));
        let kept = presented
            .chars()
            .filter(|c| !c.is_whitespace() && *c != '-');
        plain.extend(kept.map(|c| c.to_ascii_uppercase()));
        let is_code = plain.len() == CHARACTERS && BASE32_NOPAD.decode(plain.as_bytes()).is_ok();
        is_code.then(|| TokenHash::of(&plain))
    }
}

impl std::fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryCode(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_as_people_type_it() {
        let code = RecoveryCode::generate().unwrap();
        let text = code.expose();
        assert_eq!(text.len(), CHARACTERS + 5);
        assert!(text.split('-').all(|group| group.len() == GROUP));
        let hash = RecoveryCode::hash_of(text).unwrap();
        for typed in [
            text.to_lowercase(),
            text.replace('-', ""),
            format!(" {} ", text.replace('-', " ")),
        ] {
            assert_eq!(RecoveryCode::hash_of(&typed), Some(hash.clone()), "{typed}");
        }
        let other = RecoveryCode::generate().unwrap();
        assert_ne!(RecoveryCode::hash_of(other.expose()), Some(hash));
        assert!(!format!("{code:?}").contains(text));
    }

    #[test]
    fn what_cannot_be_a_code_is_none() {
        let long = "A".repeat(10_000);
        let code = RecoveryCode::generate().unwrap();
        let short = &code.expose()[1..];
        for bad in [
            "",
            "123456",
            short,
            "1111-1111-1111-1111-1111-1111",
            "é",
            &long,
        ] {
            assert_eq!(RecoveryCode::hash_of(bad), None, "{bad}");
        }
    }
}
