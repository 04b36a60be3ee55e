//! [`Allowed`]: the endpoints among which a message chooses.

use std::sync::Arc;

use crate::component::{Processor, Registry};
use crate::error::{ConfigError, ConfigErrors};
use crate::options::PathKind;
use crate::source::SourceText;
use crate::uri::EndpointUri;

/// What the author of a route allows.
#[derive(Default)]
pub(crate) struct Allowed {
    endpoints: Vec<AllowedEndpoint>,
}

/// An entry of `allow`.
pub(crate) enum AllowedEndpoint {
    /// A URI as it was written, and what it sends to.
    Exactly { uri: EndpointUri, processor: Arc<dyn Processor> },
    /// How a URI without options begins.
    Prefix { written: SourceText, scheme: String, path: String },
}

impl Allowed {
    pub(crate) fn new(endpoints: Vec<AllowedEndpoint>) -> Self {
        Self { endpoints }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// What is allowed in vain to a step that gives the scheme and the options itself.
    pub(super) fn useless(&self, scheme: &str) -> ConfigErrors {
        let mut errors = ConfigErrors::default();
        self.endpoints
            .iter()
            .filter_map(|endpoint| endpoint.useless(scheme))
            .for_each(|error| errors.push(error));
        errors
    }

    /// The processor of the entry that is this URI.
    pub(super) fn exactly(&self, uri: &EndpointUri) -> Option<Arc<dyn Processor>> {
        self.endpoints.iter().find_map(|endpoint| match endpoint {
            AllowedEndpoint::Exactly { uri: allowed, processor } if allowed.as_str() == uri.as_str() => {
                Some(Arc::clone(processor))
            }
            _ => None,
        })
    }

    /// Whether the scheme and path of a URI are allowed.
    pub(super) fn permits(&self, uri: &EndpointUri, kind: PathKind) -> bool {
        let Some(path) = compared(uri, kind).filter(|path| stays(path)) else { return false };
        self.endpoints.iter().any(|endpoint| match endpoint {
            AllowedEndpoint::Exactly { uri: allowed, .. } => {
                allowed.scheme() == uri.scheme()
                    && allowed.options().is_empty()
                    && compared(allowed, kind).is_some_and(|allowed| allowed == path)
            }
            AllowedEndpoint::Prefix { scheme, path: prefix, .. } => {
                scheme == uri.scheme() && path.starts_with(prefix)
            }
        })
    }
}

impl AllowedEndpoint {
    /// Why it permits no URI of a step that gives the scheme and the options itself.
    fn useless(&self, scheme: &str) -> Option<ConfigError> {
        let (found, error) = match self {
            Self::Exactly { uri, .. } if !uri.options().is_empty() => {
                let error = uri.error_in_whole("this permits nothing: the step gives the options itself");
                return Some(error.help("allow the part before the `?`"));
            }
            Self::Exactly { uri, .. } => (uri.scheme(), uri.error_in_scheme("this permits nothing")),
            Self::Prefix { written, scheme: found, .. } => {
                (&**found, ConfigError::at(written, 0..found.len(), "this permits nothing"))
            }
        };
        (found != scheme).then(|| error.help(format!("the step sends to `{scheme}:`")))
    }
}

/// A path in the form in which it is compared. The one of a URL is a language of its own: it is not decoded.
fn compared(uri: &EndpointUri, kind: PathKind) -> Option<String> {
    match kind {
        PathKind::Url => Some(uri.path().to_owned()),
        _ => uri.decoded_path().ok().map(Into::into),
    }
}

/// Whether a path does not climb, also when a server decodes it. Those who read URLs drop control characters.
fn stays(path: &str) -> bool {
    let decoded = path.to_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "/");
    let climbs = decoded.split(['/', '\\']).any(|segment| segment == "..");
    !climbs && !decoded.contains(char::is_control)
}

/// Reads an entry that ends with `*`; `None`: it does not, and is a URI.
pub(crate) fn prefix(
    text: &SourceText,
    registry: &Registry,
) -> Result<Option<AllowedEndpoint>, ConfigErrors> {
    let written = text.as_str();
    if !written.ends_with('*') {
        return Ok(None);
    }
    let whole = |message: &str| ConfigError::in_text(text, message);
    let uri = EndpointUri::parse(text)?;
    let kind = registry.component(&uri)?.description().path.kind;
    if !uri.options().is_empty() {
        return Err(whole("what is allowed with a `*` has no options: a message would choose them").into());
    }
    let Some(path) = compared(&uri, kind).and_then(|path| path.strip_suffix('*').map(str::to_owned)) else {
        return Err(uri.decoded_path().err().map_or_else(ConfigErrors::default, Into::into));
    };
    let host = path.trim_start_matches('/').split_once('/').is_some_and(|(host, _)| !host.is_empty());
    let scheme = uri.scheme();
    let error = match kind {
        PathKind::Code => Some((
            "a message cannot write code",
            format!(
                "write the whole URI, as in `{scheme}:select 1?data_source=...`, or take the values from the message"
            ),
        )),
        PathKind::Url if !host => {
            let host = path.trim_matches('/');
            let host = if host.is_empty() { "host.example" } else { host };
            Some(("a message would choose the host", format!("for example `{scheme}:{host}/*`")))
        }
        PathKind::Directory if path.is_empty() => {
            Some(("a message would choose any directory", format!("for example `{scheme}:out/*`")))
        }
        PathKind::Route if path.is_empty() => {
            Some(("a message would choose any route", format!("for example `{scheme}:order-*`")))
        }
        PathKind::Name if path.is_empty() => {
            Some(("a message would choose any name", format!("for example `{scheme}:order-*`")))
        }
        _ => None,
    };
    match error {
        Some((message, help)) => Err(whole(message).help(help).into()),
        None => {
            Ok(Some(AllowedEndpoint::Prefix { written: text.clone(), scheme: uri.scheme().into(), path }))
        }
    }
}
