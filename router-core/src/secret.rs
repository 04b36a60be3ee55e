//! [`Secret`]: where a password or token is kept. Its value is in no URI, log, error or `Debug` output.

use std::env::VarError;
use std::fmt;
use std::path::PathBuf;

use crate::bounded_file;
use crate::error::BoxError;

/// A password or token has a few hundred bytes.
const MAX_BYTES: u64 = 64 << 10;

/// Where a password or token is kept: `env:NAME` or `file:/path`.
///
/// The value is read anew for each use, so that a mounted file that changes is followed. There is no
/// form with the value itself: URIs stand in errors, logs and listings.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Secret {
    /// In this environment variable.
    Environment(String),
    /// In this file; white space around it does not belong to it.
    File(PathBuf),
}

impl Secret {
    /// What the values of a secret option look like.
    pub(crate) const FORMS: &str = "`env:NAME` or `file:/path`, never the secret itself";

    /// Reads `env:NAME` or `file:/path`; nothing is looked up yet.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            (_, "") => None,
            ("env", name) => Some(Self::Environment(name.into())),
            ("file", path) => Some(Self::File(path.into())),
            _ => None,
        }
    }

    /// The value, now.
    ///
    /// # Errors
    /// When the variable or file is missing, empty or not text; the error names it and holds no value.
    pub fn reveal(&self) -> Result<String, BoxError> {
        let value = match self {
            Self::Environment(name) => std::env::var(name).map_err(|error| variable_error(name, &error))?,
            Self::File(path) => {
                let unreadable = |error: &dyn fmt::Display| {
                    format!("the file `{}` cannot be read: {error}", path.display())
                };
                let content = bounded_file::read(path, MAX_BYTES).map_err(|error| unreadable(&error))?;
                let text = std::str::from_utf8(&content).map_err(|_| unreadable(&"it is not UTF-8"))?;
                text.trim().to_owned()
            }
        };
        if value.is_empty() {
            return Err(format!("the secret in the {self} is empty").into());
        }
        Ok(value)
    }
}

/// Why an environment variable has no value. The standard library prints one that is not text.
#[must_use]
pub fn variable_error(name: &str, error: &VarError) -> String {
    match error {
        VarError::NotPresent => format!("the environment variable `{name}` is not set"),
        VarError::NotUnicode(_) => format!("the value of the environment variable `{name}` is not UTF-8"),
    }
}

/// The place: `environment variable BOT_TOKEN`, `file /run/secrets/bot`.
impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(formatter, "environment variable {name}"),
            Self::File(path) => write!(formatter, "file {}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_place_and_never_a_value() {
        assert_eq!(Secret::parse("env:TOKEN"), Some(Secret::Environment("TOKEN".into())));
        assert_eq!(Secret::parse("file:/run/x"), Some(Secret::File("/run/x".into())));
        for text in ["hunter2", "env:", "pass:word", ""] {
            assert_eq!(Secret::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_place_is_printed_for_people() {
        let file = std::env::temp_dir().join(format!("bactrian-secret-{}", std::process::id()));
        std::fs::write(&file, " \n").unwrap();
        let error = Secret::File(file.clone()).reveal().unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(error, format!("the secret in the file {} is empty", file.display()));
        assert_eq!(Secret::Environment("BOT_TOKEN".into()).to_string(), "environment variable BOT_TOKEN");
    }

    #[cfg(unix)]
    #[test]
    fn the_file_of_a_secret_is_a_regular_one_of_bounded_size() {
        let folder = tempfile::tempdir().unwrap();
        let reveal =
            |path: &std::path::Path| Secret::File(path.into()).reveal().map_err(|error| error.to_string());
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        for path in [std::path::Path::new("/dev/zero"), folder.path(), &socket] {
            assert!(reveal(path).unwrap_err().ends_with("it is no regular file"), "{}", path.display());
        }
        let large = folder.path().join("large");
        std::fs::write(&large, "x".repeat(65_537)).unwrap();
        assert!(reveal(&large).unwrap_err().ends_with("it has more than 64 KiB"));
        std::fs::write(&large, "x".repeat(65_536)).unwrap();
        // As Kubernetes mounts them.
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&large, &link).unwrap();
        assert_eq!(reveal(&link).unwrap().len(), 65_536);
    }

    #[test]
    fn a_missing_secret_is_named() {
        let error = Secret::Environment("BACTRIAN_NO_SUCH_VARIABLE".into()).reveal().unwrap_err();
        assert!(error.to_string().contains("BACTRIAN_NO_SUCH_VARIABLE"), "{error}");
    }
}
