//! Texts of others: forms that they are checked for, and how they are shown.

/// RFC 9562 section 4: 8-4-4-4-12 hexadecimal digits.
pub(crate) fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Whether the byte may stand in an HTTP token: a header's or a cookie's name (`tchar` of RFC 9110 section 5.6.2).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether log lines, audit records and terminals show an escape in place of the character: control characters and line
/// separators, which end a line or move a cursor; bidirectional controls, which reorder what stands beside them; and
/// characters without a width, the joiners among them, since names that differ in one of these alone are two names and
/// have to look like two. Letters that look alike are not covered. All are among the first 65536 characters.
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        )
}

/// The text on one line, with escapes of what is hidden.
pub(crate) fn one_line(text: &str) -> String {
    one_line_of(text, usize::MAX)
}

/// The same, of at most `most` characters: an escape counts as it is written, and `...` stands for the rest.
pub(crate) fn one_line_of(text: &str, most: usize) -> String {
    let mut line = String::with_capacity(text.len().min(most));
    let mut length = 0;
    for character in text.chars() {
        let escaped = is_hidden(character).then(|| character.escape_default());
        length += escaped.as_ref().map_or(1, ExactSizeIterator::len);
        if length > most {
            line.push_str("...");
            break;
        }
        match escaped {
            Some(escaped) => line.extend(escaped),
            None => line.push(character),
        }
    }
    line
}

/// The text in backticks, of its first `most` characters, with escapes also of quotes, backslashes and everything else
/// that a Rust literal escapes.
pub(crate) fn quoted(text: &str, most: usize) -> String {
    let mut quoted = String::from("`");
    quoted.extend(text.chars().take(most).flat_map(char::escape_debug));
    quoted.push_str(if text.chars().nth(most).is_some() { "` ..." } else { "`" });
    quoted
}

/// An error of the system or of a library in the words of this program's messages, which begin in lower case.
pub(crate) fn words(error: &impl ToString) -> String {
    error.to_string().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ends a line, moves a cursor, reorders its neighbours or cannot be seen.
    const HIDDEN: &str = "\0\t\n\r\u{1b}\u{7f}\u{85}\u{9b}\u{61c}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{2028}\
        \u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2060}\u{2066}\u{2067}\u{2068}\u{2069}\u{feff}";

    #[test]
    fn a_guid_has_its_digits_in_groups() {
        for good in ["01234567-89ab-cdef-ABCD-EF0123456789", "00000000-0000-0000-0000-000000000000"] {
            assert!(is_guid(good), "{good}");
        }
        for bad in [
            "",
            "01234567-89ab-cdef-abcd-ef012345678",
            "01234567-89ab-cdef-abcd-ef0123456789-",
            "0123456-789ab-cdef-abcd-ef0123456789",
            "0123456789abcdef0123456789abcdef0123",
            "01234567-89ab-cdef-abcd-ef012345678g",
            "01234567-89ab-cdef-abcd-ef01234567é",
        ] {
            assert!(!is_guid(bad), "{bad}");
        }
    }

    #[test]
    fn a_token_holds_no_delimiter() {
        let delimiters = b"\"(),/:;<=>?@[\\]{}";
        for byte in 0..=u8::MAX {
            let is_token = byte.is_ascii_graphic() && !delimiters.contains(&byte);
            assert_eq!(is_token_byte(byte), is_token, "{byte:#x}");
        }
    }

    #[test]
    fn what_is_hidden_is_escaped_by_every_form() {
        for character in HIDDEN.chars() {
            let text = format!("a{character}b");
            assert!(is_hidden(character), "{character:?}");
            for shown in [one_line(&text), one_line_of(&text, 20), quoted(&text, 20)] {
                assert!(shown.contains('\\') && !shown.contains(is_hidden), "{shown:?}");
            }
        }
        for character in '\0'..=char::MAX {
            assert!(!is_hidden(character) || !quoted(&character.to_string(), 1).contains(character));
            assert!(!is_hidden(character) || u16::try_from(u32::from(character)).is_ok());
        }
    }

    #[test]
    fn everything_else_stays() {
        let text = "ada@example.org: größe «\"'\\» עברית 日本語 e\u{301} 😀";
        assert_eq!(one_line(text), text);
        assert_eq!(one_line("a\n\u{1b}[2Jb\u{202e}c"), "a\\n\\u{1b}[2Jb\\u{202e}c");
    }

    #[test]
    fn a_line_is_cut_before_what_does_not_fit() {
        assert_eq!(one_line_of(&"ö".repeat(5), 5), "ö".repeat(5));
        assert_eq!(one_line_of(&"ö".repeat(6), 5), format!("{}...", "ö".repeat(5)));
        assert_eq!(one_line_of("a\u{7f}\u{7f}", 12), "a\\u{7f}...");
        assert_eq!(one_line_of("a\u{7f}\u{7f}", 13), "a\\u{7f}\\u{7f}");
    }
}
