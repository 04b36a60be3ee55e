//! The text of a file, of bounded size, or where it is no text.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use router_core::error::ConfigError;
use router_core::source::SourceFile;

/// Ten thousand routes have about a fifth of it. Without a limit, `/dev/zero` would fill the memory.
const MAX_BYTES: u64 = 16 << 20;

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<SourceFile, ConfigError> {
    let bytes = read_bytes(path)
        .map_err(|error| ConfigError::new(format!("cannot read `{}`: {error}", path.display())))?;
    let name = path.display().to_string();
    if bytes.len() as u64 > MAX_BYTES {
        let message = format!("`{name}` has more than {} MiB", MAX_BYTES >> 20);
        return Err(ConfigError::new(message).help("routes can stand in several files of a folder"));
    }
    match String::from_utf8(bytes) {
        // A text has no such byte; UTF-16 without a mark in front has.
        Ok(text) => match text.find('\0') {
            Some(start) => Err(no_text(name, text.as_bytes(), start)),
            None => Ok(SourceFile::new(name, text)),
        },
        Err(error) => {
            let start = error.utf8_error().valid_up_to();
            Err(no_text(name, &error.into_bytes(), start))
        }
    }
}

fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The error for a file whose byte `start` is not UTF-8.
fn no_text(name: String, bytes: &[u8], start: usize) -> ConfigError {
    const HELP: &str = "save it as UTF-8";
    let (message, label) = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, 1..=255, ..] | [1..=255, 0, ..] => {
            ("this file is UTF-16, and TOML is UTF-8".to_owned(), String::new())
        }
        _ if bytes[start] == 0 => ("this file has a byte 0, and is no text".to_owned(), String::new()),
        _ => {
            let byte = bytes[start];
            // Latin-1 gives each byte the character of that number.
            let latin = char::from(byte);
            let label = if latin.is_control() { String::new() } else { format!("`{latin}` in Latin-1") };
            (format!("the byte 0x{byte:02x} is not UTF-8, and TOML is"), label)
        }
    };
    // Up to the end of its line, so that no binary file is shown.
    let line =
        bytes[start..].iter().take(80).position(|byte| *byte == b'\n').unwrap_or(80.min(bytes.len() - start));
    let text = String::from_utf8_lossy(&bytes[..start + line]).into_owned();
    let range = start..start + text[start..].chars().next().map_or(0, char::len_utf8);
    ConfigError::in_file(&Arc::new(SourceFile::new(name, text)), range, message).label(label).help(HELP)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(bytes: &[u8]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.toml");
        std::fs::write(&path, bytes).unwrap();
        read(&path).err().map_or_else(|| "accepted".into(), |error| error.to_string())
    }

    #[test]
    fn a_file_that_is_no_text_says_where() {
        let latin = error(b"[[route]]\nid = 'h\xe4user'\nfrom = 'timer:t'\n");
        assert!(latin.contains("the byte 0xe4 is not UTF-8, and TOML is"), "{latin}");
        assert!(latin.contains("r.toml:2:8") && latin.contains("^ `\u{e4}` in Latin-1"), "{latin}");
        for wide in [u16::to_le_bytes, u16::to_be_bytes] {
            let wide = "id = 'x'\nfrom = 'timer:t'".encode_utf16().flat_map(wide).collect::<Vec<_>>();
            let wide = error(&wide);
            assert!(wide.contains("this file is UTF-16") && wide.matches("error").count() == 1, "{wide}");
        }
        assert!(error(b"id = 'x'\0").contains("is no text"));
        let wide = "id = 'x'".encode_utf16().flat_map(u16::to_le_bytes);
        let wide = error(&[0xff, 0xfe].into_iter().chain(wide).collect::<Vec<_>>());
        assert!(wide.contains("this file is UTF-16") && wide.contains("r.toml:1:1"), "{wide}");
        assert_eq!(error("id = 'häuser'".as_bytes()), "accepted");
        assert_eq!(error(b""), "accepted");
        assert!(error(b"\xff").contains("0xff"));
    }

    #[test]
    fn a_file_without_an_end_is_not_read_to_it() {
        let error = read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("`/dev/zero` has more than 16 MiB"), "{error}");
    }
}
