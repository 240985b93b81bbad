//! What a new password has to be: NIST SP 800-63B-4, 3.1.1.2.
//!
//! Long enough, not known to everybody, and otherwise anything: no rule of composition, and no end of
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

/// The most common passwords of eight characters and more, made for this: the words, names and keyboard
/// walks that lead every published list, with what people put behind them. Lower case, one a line, in
/// order.
const COMMON: &str = include_str!("common.txt");

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
    // Compared whole: a common word within a long phrase is no reason to refuse the phrase.
    let folded = zeroize::Zeroizing::new(password.to_lowercase());
    if COMMON.lines().any(|common| common == folded.as_str()) {
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
    fn the_list_is_in_order_and_holds_nothing_that_the_length_refuses() {
        let lines: Vec<&str> = COMMON.lines().collect();
        assert!(lines.len() > 1000);
        assert!(lines.is_sorted_by(|a, b| a < b));
        for line in lines {
            assert!(
                line.len() >= MIN_CHARACTERS && line == line.to_lowercase(),
                "{line}"
            );
        }
    }

    #[test]
    fn what_everybody_tries_first_is_refused() {
        for common in [
            "password1",
            "Password1",
            "QWERTYUIOP",
            "12345678",
            "iloveyou1",
            "1qaz2wsx",
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
            "        ",
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
        check(&"𝕏".repeat(256), "ada").unwrap();
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
