//! What a new password has to be: NIST SP 800-63B-4, 3.1.1.2.
//!
//! Long enough, not among what breaches have shown people to choose, and otherwise anything: no rule of composition, and no end of
//! life. A password is taken as it is typed. It is not normalised, so that somebody who uses letters
//! with two Unicode forms has to type the same one each time.

use super::PasswordError;

/// Eight where a second factor is always asked for, as here; fifteen would be for a password alone.
pub(super) const MIN_CHARACTERS: usize = 8;
/// The section asks for no less than 64 to be allowed.
pub(super) const MAX_CHARACTERS: usize = 256;
/// Longer input only costs hashing time. No character of UTF-8 is longer than four bytes.
pub(super) const MAX_BYTES: usize = 4 * MAX_CHARACTERS;
/// Shorter names are in too many words to tell anything.
const SHORTEST_NAME: usize = 3;

/// Guesses within which a password may not be found, by whoever tries first what breaches have shown people to
/// choose: 30 000 passwords of them, words, names, dates, keyboard walks and repetitions, by themselves and put
/// together. More than half of the passwords have the eight characters: OWASP ASVS 5, 6.2.4, asks for 3000.
const FEWEST_GUESSES: u64 = 1_000_000;

/// Whether a user may take this password.
pub(super) fn check(password: &str, user: &str) -> Result<(), PasswordError> {
    if password.len() > MAX_BYTES {
        return Err(PasswordError::Long);
    }
    match password.chars().count() {
        ..MIN_CHARACTERS => return Err(PasswordError::Short),
        MIN_CHARACTERS..=MAX_CHARACTERS => {}
        _ => return Err(PasswordError::Long),
    }
    let folded = zeroize::Zeroizing::new(password.to_lowercase());
    // As a whole: a common word within a long phrase is no reason to refuse the phrase. Upper case makes no
    // common password a rare one.
    if zxcvbn::zxcvbn(&folded, &[user]).guesses() < FEWEST_GUESSES {
        return Err(PasswordError::Common);
    }
    if user.len() >= SHORTEST_NAME && folded.contains(&user.to_lowercase()) {
        return Err(PasswordError::Name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_everybody_tries_first_is_refused() {
        for common in [
            "password1",
            "Password1",
            "QWERTYUIOP",
            "12345678",
            "iloveyou1",
            "1qaz2wsx",
            "PaSsWoRd",
            "        ",
            "abcdefgh",
            "19871987",
            "trustno1",
            "p@ssw0rd",
        ] {
            assert!(
                matches!(check(common, "ada"), Err(PasswordError::Common)),
                "{common}"
            );
        }
        for fine in [
            "correct horse battery",
            "my password1 is long",
            "пароль из слов",
        ] {
            check(fine, "ada").unwrap();
        }
    }

    #[test]
    fn the_users_own_name_is_refused_within_it() {
        for named in ["ada's horse", "the ADA horse", "horse.ada"] {
            assert!(
                matches!(check(named, "Ada"), Err(PasswordError::Name)),
                "{named}"
            );
        }
        check("a horse of hers", "a").unwrap();
    }

    #[test]
    fn length_is_in_characters() {
        assert!(matches!(check("seven77", "ada"), Err(PasswordError::Short)));
        check("ängströ8", "ada").unwrap();
        assert!(matches!(check("ängstr8", "ada"), Err(PasswordError::Short)));
        let long: Vec<char> = (0..256)
            .map(|i| char::from_u32(0x1_0000 + i * i % 127).unwrap())
            .collect();
        check(&String::from_iter(long), "ada").unwrap();
        assert!(matches!(
            check(&"x".repeat(257), "ada"),
            Err(PasswordError::Long)
        ));
        assert!(matches!(
            check(&"x".repeat(100_000), "ada"),
            Err(PasswordError::Long)
        ));
    }
}
