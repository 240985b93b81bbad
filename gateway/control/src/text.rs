//! Text that others chose and that administrators are shown.

/// Of a name or a sentence of a gateway's, in characters.
pub(crate) const LONGEST: usize = 256;

/// Whether the character is none that is seen, but may change what is: control characters move the
/// cursor or speak to the terminal, and format characters (Unicode's Cf), those that turn the direction
/// of writing among them, make a text look like another. So may those that no version of Unicode known
/// here has assigned.
pub fn is_hidden(character: char) -> bool {
    match character {
        ' '..='~' => false,
        // Between lines and between paragraphs: white space by Unicode, and a new line to some.
        '\u{2028}' | '\u{2029}' => true,
        _ if character.is_control() => true,
        _ => !character.is_whitespace() && is_spelt_out(character),
    }
}

/// Whether the standard library spells the character out as one that cannot be printed. After another
/// one: at the beginning of a text it does so with accents, too.
fn is_spelt_out(character: char) -> bool {
    let mut bytes = [b'a'; 5];
    let length = 1 + character.encode_utf8(&mut bytes[1..]).len();
    str::from_utf8(&bytes[..length]).map_or(true, |text| text.escape_debug().nth(1) == Some('\\'))
}

/// Leaves of the first so many characters those that are not hidden; the rest takes neither memory nor
/// time.
pub(crate) fn tidy(text: &mut String, most: usize) {
    *text = text
        .chars()
        .take(most)
        .filter(|character| !is_hidden(*character))
        .collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_turns_the_writing_is_hidden_and_writing_is_not() {
        // The ends of every range of Cf up to Unicode 16, and some of Cc, Zl and Zp.
        let hidden = [
            '\u{600}',
            '\u{605}',
            '\u{61c}',
            '\u{6dd}',
            '\u{70f}',
            '\u{890}',
            '\u{891}',
            '\u{8e2}',
            '\u{180e}',
            '\u{200c}',
            '\u{200d}',
            '\u{200e}',
            '\u{202a}',
            '\u{2060}',
            '\u{2064}',
            '\u{2067}',
            '\u{206f}',
            '\u{fff9}',
            '\u{fffb}',
            '\u{110bd}',
            '\u{110cd}',
            '\u{13430}',
            '\u{1343f}',
            '\u{1bca0}',
            '\u{1bca3}',
            '\u{1d173}',
            '\u{1d17a}',
            '\u{e0001}',
            '\u{e007f}',
            '\u{0}',
            '\t',
            '\n',
            '\r',
            '\u{1b}',
            '\u{7f}',
            '\u{9b}',
            '\u{ad}',
            '\u{200b}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202e}',
            '\u{2066}',
            '\u{feff}',
            '\u{e0041}',
        ];
        for character in hidden {
            assert!(is_hidden(character), "{character:?}");
        }
        for character in " aé\u{301}\u{a0}\u{3000}ш字٣नि🔑\"'\\".chars() {
            assert!(!is_hidden(character), "{character:?}");
        }
    }

    #[test]
    fn text_is_cut_to_its_length_and_loses_what_is_hidden() {
        let tidied = |text: &str| {
            let mut text = text.to_owned();
            tidy(&mut text, 5);
            text
        };
        assert_eq!(tidied("prod"), "prod");
        assert_eq!(tidied("é\u{1b}[2J!"), "é[2J");
        assert_eq!(tidied("\u{202e}hsshsshss"), "hssh");
        assert_eq!(tidied(&"\n".repeat(1 << 20)), "");
    }
}
