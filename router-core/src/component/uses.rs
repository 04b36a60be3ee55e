//! What is said of options whose values are well-formed: whether they do here what their author expects.

use super::BuildContext;
use crate::error::{ConfigError, ConfigErrors};
use crate::name;
use crate::options::{ComponentDescription, OptionKind, PathKind, Side, without_unit};
use crate::secret::Secret;
use crate::uri::{EndpointUri, Part, UriOption};

/// Checks that the options of a URI have an effect on their side, and the values that its author wrote; not those of
/// one that was made at run time.
pub(crate) fn check(
    description: &ComponentDescription,
    uri: &EndpointUri,
    side: Side,
    context: &BuildContext<'_>,
) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    if let Some(error) = check_name(description, uri.path_part()) {
        errors.push(error);
    }
    for error in uri.options().iter().filter_map(|option| description.misplaced(&option.name, side)) {
        errors.push(error);
    }
    for option in uri.options().iter().filter(|option| !option.value.is_computed()) {
        let kind = description.option(option.name.as_str()).map(|option| option.kind);
        if let Some(error) = kind.and_then(|kind| check_option(kind, option, context)) {
            errors.push(error);
        }
    }
    errors
}

/// What is wrong with a path that is a name; that there must be one says its component.
fn check_name(description: &ComponentDescription, path: &Part) -> Option<ConfigError> {
    let is_name = matches!(description.path.kind, PathKind::Name | PathKind::Route);
    let name = path.decoded().ok().filter(|name| is_name && !name.is_empty() && !path.is_computed())?;
    let message = name::check(&name)?;
    Some(path.error(format!("the name of a `{}:` {message}", description.scheme)))
}

fn check_option(kind: OptionKind, option: &UriOption, context: &BuildContext<'_>) -> Option<ConfigError> {
    let UriOption { name, value } = option;
    let text = value.decoded().ok()?;
    let error = |message: String| value.error(format!("option `{}`: {message}", name.as_str()));
    match kind {
        OptionKind::Duration => without_unit(&text, error),
        OptionKind::Secret => {
            let missing = Secret::parse(&text)?.reveal().err()?;
            Some(error(missing.to_string()).severity(context.missing_secrets))
        }
        OptionKind::StateFile if context.below_lock => {
            let message = format!("option `{}` has no effect below `master:`", name.as_str());
            Some(name.error(message).help("remove it: the position travels with the lock"))
        }
        _ => None,
    }
}
