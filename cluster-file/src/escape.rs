//! Names as file names.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// Longer names are cut and hashed. File names end at 255 bytes, and suffixes are added to ours.
const MAX_BYTES: usize = 180;
/// What is left of a long name, so that a human still recognises it.
const PREFIX_BYTES: usize = 100;

/// A file name for `name`, different for different names even where case is ignored.
///
/// Bytes other than `a-z 0-9 . _ -` become `%XX`, and so does a dot in front: hidden names are ours, and
/// `.` and `..` are directories. A long name becomes its beginning, `%-` and the SHA-256 of all of it;
/// `%-` occurs in no short name, so that nobody can choose a short name that meets a long one.
pub(crate) fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let plain = matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-') || (byte == b'.' && index > 0);
        // Writing to a `String` cannot fail.
        let _ = if plain { escaped.write_char(char::from(byte)) } else { write!(escaped, "%{byte:02X}") };
    }
    if escaped.len() > MAX_BYTES {
        escaped.truncate(PREFIX_BYTES);
        escaped.push_str("%-");
        for byte in Sha256::digest(name.as_bytes()) {
            let _ = write!(escaped, "{byte:02x}");
        }
    }
    escaped
}

/// The name whose file name is `escaped`; where that was cut, the file name.
pub(crate) fn unescape(escaped: &str) -> String {
    let mut pieces = escaped.split('%');
    let mut name = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let byte = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let Some(byte) = byte else { return escaped.to_owned() };
        name.push(byte);
        name.extend(&piece.as_bytes()[2..]);
    }
    String::from_utf8(name).unwrap_or_else(|_| escaped.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn plain_names_stay_readable() {
        assert_eq!(escape("lock-1.a_b"), "lock-1.a_b");
        assert_eq!(escape("Lock/1"), "%4Cock%2F1");
        assert_eq!(escape("ü"), "%C3%BC");
        assert_eq!(escape(".hidden"), "%2Ehidden");
        assert_eq!([escape("."), escape("..")], ["%2E", "%2E."]);
        for name in ["lock-1.a_b", "Lock/1", "ü", ".hidden", "50%"] {
            assert_eq!(unescape(&escape(name)), name);
        }
        let cut = escape(&"x".repeat(300));
        assert_eq!(unescape(&cut), cut);
    }

    #[test]
    fn different_names_are_different_files_even_where_case_is_ignored() {
        let long = "x".repeat(300);
        let names = ["Lock/1", "lock/1", "lock-1", "Lock-1", "lock%2F1", "lock 1", "ü", "Ü", "u\u{308}"];
        let more = [".", "..", "...", "terms", "members", ".terms", "%", "%25", &long[..180], &long[..181]];
        let longest = [&long[..299], &long, &"X".repeat(300), &"ü".repeat(150), &"ü".repeat(151)];
        let all: Vec<&str> = names.into_iter().chain(more).chain(longest).collect();
        let escaped: HashSet<String> = all.iter().map(|name| escape(name).to_ascii_lowercase()).collect();
        assert_eq!(escaped.len(), all.len());
        for name in escaped {
            assert!(name.len() <= MAX_BYTES && !name.starts_with('.') && !name.contains('/'), "{name}");
        }
    }

    #[test]
    fn a_short_name_cannot_be_made_to_meet_a_long_one() {
        let long = escape(&"x".repeat(300));
        assert!(long.starts_with(&"x".repeat(PREFIX_BYTES)));
        assert_ne!(escape(&long), long);
    }
}
