//! User names, passwords and tokens: where they may stand, and how they are sent.

use reqwest::header::HeaderMap;
use router_core::error::{BoxError, ConfigError};
use router_core::options::Options;
use router_core::secret::Secret;
use router_core::uri::EndpointUri;

use super::headers;

/// The credentials of requests.
pub(crate) enum Authentication {
    None,
    Basic { username: String, password: Secret },
    Bearer(Secret),
}

impl Authentication {
    /// Adds it to a request; secrets are read now.
    pub(crate) fn apply(&self, to: &mut HeaderMap) -> Result<(), BoxError> {
        match self {
            Self::None => Ok(()),
            Self::Basic { username, password } => headers::authorize_basic(to, username, &password.reveal()?),
            Self::Bearer(token) => headers::authorize_bearer(to, &token.reveal()?),
        }
    }
}

pub(crate) fn authentication(uri: &EndpointUri, options: &Options) -> Result<Authentication, ConfigError> {
    if !options.are_right(&["auth_username", "auth_password", "auth_bearer_token"]) {
        return Ok(Authentication::None);
    }
    let bearer = options.secret("auth_bearer_token");
    match (options.text("auth_username"), options.secret("auth_password"), bearer) {
        (None, None, None) => Ok(Authentication::None),
        // What stands behind the first colon is the password.
        (Some(username), Some(_), None) if username.contains(':') => {
            Err(uri.error_at_option("auth_username", "a name for basic authentication has no colon"))
        }
        (Some(username), Some(password), None) => Ok(Authentication::Basic { username, password }),
        (None, None, Some(token)) => Ok(Authentication::Bearer(token)),
        (username, _, token) => {
            let name = match (token, username) {
                (Some(_), _) => "auth_bearer_token",
                (_, Some(_)) => "auth_username",
                _ => "auth_password",
            };
            let message =
                "authentication takes either `auth_username` and `auth_password`, or `auth_bearer_token`";
            Err(uri.error_at_option(name, message))
        }
    }
}

/// Refuses a user and password in the path, which is a URL or what stands behind the scheme of one.
pub(crate) fn refuse_credentials(uri: &EndpointUri) -> Result<(), ConfigError> {
    if !has_credentials(uri.path()) {
        return Ok(());
    }
    let message = format!("a URI of component `{}` cannot contain a user or password", uri.scheme());
    let advice = "use the options `auth_username` and `auth_password`, with the password as `env:NAME` or `file:/path`";
    Err(uri.error_at_secret_in_path(message).help(advice))
}

/// Whether there is a user or password in the authority of a URL, which may lack its scheme.
pub(crate) fn has_credentials(url: &str) -> bool {
    let url = ["http:", "https:"].iter().find_map(|scheme| url.strip_prefix(scheme)).unwrap_or(url);
    // One slash before the authority is as good as two, and so are backslashes, for those who read URLs.
    let slash = |letter: char| matches!(letter, '/' | '\\') || letter.is_whitespace() || letter.is_control();
    let authority = url.trim_start_matches(slash).split('/').next().unwrap_or_default();
    authority.contains('@') || authority.contains("%40")
}
