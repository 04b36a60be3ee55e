//! What routes must agree on among each other: their ids, and the calls through `direct:` and the like.

use std::collections::HashSet;

use smol_str::SmolStr;

use crate::definition::RouteDefinition;
use crate::error::{ConfigError, ConfigErrors};
use crate::source::SourceText;
use crate::uri::EndpointUri;

/// How a route is tied to others of its process. Known also of a route that has mistakes elsewhere, so
/// that those do not hide the mistakes between routes.
pub(crate) struct Links {
    pub(crate) route: SmolStr,
    /// The URI of its consumer and the address that this consumes, or the text that has mistakes.
    pub(crate) source: Result<(EndpointUri, Option<SmolStr>), SourceText>,
    /// The calls of other routes.
    pub(crate) calls: Vec<LocalCall>,
}

impl Links {
    /// What its consumer consumes, if others call that.
    pub(super) fn address(&self) -> Option<&str> {
        self.source.as_ref().ok().and_then(|(_, address)| address.as_deref())
    }
}

/// A call of another route of this process.
pub(crate) struct LocalCall {
    pub(crate) address: SmolStr,
    pub(crate) uri: EndpointUri,
}

/// Reports a route without a consumer that no front end has reported.
pub(super) fn no_source(route: &str) -> ConfigError {
    ConfigError::new(format!("route `{route}` has no `from`"))
}

/// Reports an id that another route has; `first` is where, if it was written.
pub(super) fn duplicate_id(
    definition: &RouteDefinition,
    id: &str,
    first: Option<&SourceText>,
) -> ConfigError {
    let message = format!("there is already a route `{id}`");
    let error = match &definition.id {
        Some(text) => ConfigError::at(text, 0..text.as_str().len(), message),
        None => ConfigError::new(message).help("give the route an id of its own"),
    };
    match first.and_then(SourceText::position) {
        Some(position) => error.help(format!("the first one is at {position}")),
        None => error,
    }
}

/// Reports routes that want the same calls, and calls of routes that do not exist, unless `complete` is
/// false: then there are routes that are not known, which may be the ones that are called.
pub(super) fn check<'a>(links: impl Iterator<Item = &'a Links> + Clone, complete: bool) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    let (mut addresses, mut mistaken) = (HashSet::new(), HashSet::new());
    for Links { route, source, .. } in links.clone() {
        match source {
            Err(text) => mistaken.extend(names(text.as_str())),
            Ok((from, Some(address))) if !addresses.insert(address.as_str()) => {
                let message = format!("another route consumes `{address}` already");
                errors.push(from.error_in_whole(message).in_route(route));
            }
            Ok(_) => {}
        }
    }
    if !complete {
        return errors;
    }
    let mut suggestions = MAX_SUGGESTIONS;
    for Links { route, calls, .. } in links {
        errors.extend(missing(route, calls, &addresses, &mistaken, &mut suggestions));
    }
    errors
}

/// For so many errors the most similar address is looked for, which looks at all of them.
const MAX_SUGGESTIONS: usize = 100;

/// What a URI may have meant as the name that it consumes: what stands behind each colon.
fn names(uri: &str) -> impl Iterator<Item = &str> {
    let path = uri.split('?').next().unwrap_or_default();
    path.match_indices(':').map(|(colon, _)| path[colon + 1..].trim_start_matches('/'))
}

/// Reports what is wrong between a route and the others that it joins. What is wrong among the others,
/// because one of them was removed, is not the fault of this one.
pub(super) fn check_joining<'a>(new: &Links, others: impl Iterator<Item = &'a Links>) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    let mut addresses = others.filter_map(Links::address).collect::<HashSet<_>>();
    if let Ok((from, Some(address))) = &new.source
        && !addresses.insert(address)
    {
        let message = format!("another route consumes `{address}` already");
        errors.push(from.error_in_whole(message).in_route(&new.route));
    }
    errors.extend(missing(&new.route, &new.calls, &addresses, &HashSet::new(), &mut 1));
    errors
}

/// Calls of routes that do not exist.
fn missing(
    route: &str,
    calls: &[LocalCall],
    addresses: &HashSet<&str>,
    mistaken: &HashSet<&str>,
    suggestions: &mut usize,
) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    for LocalCall { address, uri } in calls.iter().filter(|call| !addresses.contains(&*call.address)) {
        // A source with mistakes that names what is called is the one that is meant: `dirct:a`.
        let name = address.split_once(':').map_or(address.as_str(), |(_, name)| name);
        if mistaken.contains(name) {
            continue;
        }
        let mut error = uri.error_in_whole(format!("no route consumes `{address}`"));
        if *suggestions > 0 {
            *suggestions -= 1;
            error = error.suggest(address, addresses.iter().copied());
        }
        errors.push(error.help(format!("add a route with `from = \"{address}\"`")).in_route(route));
    }
    errors
}
