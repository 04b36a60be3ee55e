//! What routes must agree on among each other: their ids, and the calls through `direct:` and the like.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use smol_str::SmolStr;

use crate::directory::Taken;
use crate::error::{ConfigError, ConfigErrors};
use crate::source::SourceText;
use crate::uri::{EndpointUri, Part};

/// How a route is tied to others of its process. Known also of a route that has errors elsewhere, so
/// that those do not hide the errors between routes.
pub(crate) struct Links {
    pub(crate) route: SmolStr,
    /// The URI of its consumer.
    pub(crate) source: SourceText,
    /// Whether that has errors.
    pub(crate) source_has_errors: bool,
    /// What its consumer consumes, if others call that.
    pub(crate) address: Option<SmolStr>,
    /// The calls of other routes.
    pub(crate) calls: Vec<LocalCall>,
    /// Those of them that each exchange makes, and the dead letter endpoint.
    pub(crate) certain: Way,
    /// What others with the same address must agree on.
    pub(crate) shared: Vec<SharedOption>,
    pub(crate) state_file: Option<Box<StateFile>>,
    /// What its consumer takes away.
    pub(crate) taken: Option<Box<Taken>>,
}

/// A file in which a route keeps its position, and where that is written.
pub(crate) struct StateFile {
    pub(crate) path: PathBuf,
    pub(crate) place: Part,
}

/// A call of another route of this process.
pub(crate) struct LocalCall {
    pub(crate) address: SmolStr,
    /// The URI that is called.
    pub(crate) uri: SourceText,
    pub(crate) is_dead_letter: bool,
}

/// The calls on a way through the steps of a route whose ends the caller waits for, and which every exchange makes that
/// takes this way and does not fail before.
pub(crate) type Way = Vec<Certain>;

/// What happens for certain.
pub(crate) enum Certain {
    /// The call of this index.
    Call(usize),
    /// One of several ways is taken, as in a `choice` with an `otherwise`.
    OneOf(Box<[Way]>),
}

/// An option whose value is one for all endpoints with an address.
pub(crate) struct SharedOption {
    pub(crate) address: SmolStr,
    pub(crate) uri: EndpointUri,
    pub(crate) option: &'static str,
    pub(crate) value: SmolStr,
}

/// Reports a route without a consumer that no front end has reported.
pub(crate) fn no_source(route: &str) -> ConfigError {
    ConfigError::new(format!("route `{route}` has no `from`"))
}

/// Reports an id that another route has; `first` is where, if it was written.
pub(crate) fn duplicate_id(
    written: Option<&SourceText>,
    id: &str,
    first: Option<&SourceText>,
) -> ConfigError {
    let message = format!("there is already a route `{id}`");
    let error = match written {
        Some(text) => ConfigError::in_text(text, message),
        None => ConfigError::new(message).help("give the route an id of its own"),
    };
    match first.and_then(SourceText::position) {
        Some(position) => error.help(format!("the first one is at {position}")),
        None => error,
    }
}

/// Reports routes that want the same calls, and calls of routes that do not exist, unless `complete` is
/// false: then there are routes that are not known, which may be the ones that are called.
pub(crate) fn check<'a>(links: impl Iterator<Item = &'a Links> + Clone, complete: bool) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    let (mut addresses, mut failed) = (HashSet::new(), HashSet::new());
    for Links { route, source, source_has_errors, address, .. } in links.clone() {
        if *source_has_errors {
            failed.extend(names(source.as_str()));
        }
        if let Some(address) = address.as_deref().filter(|address| !addresses.insert(*address)) {
            let message = format!("another route consumes `{address}` already");
            errors.push(ConfigError::in_text(source, message).in_route(route));
        }
    }
    errors.extend(disagreements(links.clone()));
    errors.extend(shared_files(links.clone()));
    errors.extend(shared_directories(links.clone()));
    if !complete {
        return errors;
    }
    let mut suggestions = MAX_SUGGESTIONS;
    for Links { route, calls, .. } in links.clone() {
        errors.extend(missing(route, calls, &addresses, &failed, &mut suggestions));
    }
    errors.extend(circles(links));
    errors
}

/// Endpoints with one address that say different things about it.
fn disagreements<'a>(links: impl Iterator<Item = &'a Links>) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    let mut first = HashMap::new();
    for Links { route, shared, .. } in links {
        for SharedOption { address, uri, option, value } in shared {
            let first = *first.entry((address, option)).or_insert(value);
            if first != value {
                let message = format!("another URI gives `{address}` the {option} {first}");
                errors.push(uri.error_at_option(option, message).in_route(route));
            }
        }
    }
    errors
}

/// Routes that would keep their positions in one file.
fn shared_files<'a>(links: impl Iterator<Item = &'a Links>) -> ConfigErrors {
    let (mut errors, mut files) = (ConfigErrors::default(), HashSet::new());
    for Links { route, state_file, .. } in links {
        let Some(file) = state_file else { continue };
        if !files.insert(&file.path) {
            let error = file.place.error("another route keeps its position in this file");
            errors.push(error.help("give each a file of its own").in_route(route));
        }
    }
    errors
}

/// Routes that would take files of one directory away from each other.
fn shared_directories<'a>(links: impl Iterator<Item = &'a Links>) -> ConfigErrors {
    let (mut errors, mut parts) = (ConfigErrors::default(), HashMap::new());
    for Links { route, source, taken, .. } in links {
        let Some(taken) = taken else { continue };
        let Some(all_are_parts) = parts.insert(&taken.directory, taken.is_part) else { continue };
        if !(all_are_parts && taken.is_part) {
            parts.insert(&taken.directory, false);
            let message = format!("another route consumes `{}` too", taken.directory.display());
            let help =
                "each file would go to one of them: give each an `include`, an `exclude` or a `file_name`";
            errors.push(ConfigError::in_text(source, message).help(help).in_route(route));
        }
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

/// Calls of routes that do not exist.
fn missing(
    route: &str,
    calls: &[LocalCall],
    addresses: &HashSet<&str>,
    failed: &HashSet<&str>,
    suggestions: &mut usize,
) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    for LocalCall { address, uri, .. } in calls.iter().filter(|call| !addresses.contains(&*call.address)) {
        // A source with errors that names what is called is the one that is meant: `dirct:a`.
        let name = address.split_once(':').map_or(address.as_str(), |(_, name)| name);
        if failed.contains(name) {
            continue;
        }
        let mut error = ConfigError::in_text(uri, format!("no route consumes `{address}`"));
        if *suggestions > 0 {
            *suggestions -= 1;
            error = error.suggest(address, addresses.iter().copied());
        }
        errors.push(error.help(format!("add a route with `from = \"{address}\"`")).in_route(route));
    }
    errors
}

/// Calls by which an exchange comes back to a route that it is still in, for certain: it would never end.
fn circles<'a>(links: impl Iterator<Item = &'a Links> + Clone) -> ConfigErrors {
    let by_address = links.clone().filter_map(|links| Some((links.address.as_deref()?, links))).collect();
    let endless = endless(links.clone(), &by_address);
    let mut search = Circles {
        by_address,
        endless,
        places: HashMap::new(),
        way: Vec::new(),
        errors: ConfigErrors::default(),
    };
    for links in links {
        search.visit(links);
    }
    search.errors
}

/// The routes that no exchange leaves, unless it fails: whichever way it takes, it calls another one of them.
fn endless<'a>(
    links: impl Iterator<Item = &'a Links> + Clone,
    by_address: &HashMap<&str, &'a Links>,
) -> HashSet<&'a str> {
    let mut endless = links.clone().map(|links| &*links.route).collect::<HashSet<_>>();
    let mut callers = HashMap::<&str, Vec<&Links>>::new();
    for links in links.clone() {
        let called = links.calls.iter().filter_map(|call| by_address.get(&*call.address));
        called.for_each(|called| callers.entry(&called.route).or_default().push(links));
    }
    // A route that is left is none, and so those may be none that call it.
    let mut suspects = links.collect::<Vec<_>>();
    while let Some(links) = suspects.pop() {
        let goes_on = |call: &LocalCall| {
            let called = by_address.get(&*call.address).filter(|_| !call.is_dead_letter);
            called.is_some_and(|called| endless.contains(&*called.route))
        };
        if endless.contains(&*links.route) && !links.makes(&links.certain, &goes_on) {
            endless.remove(&*links.route);
            suspects.extend(callers.get(&*links.route).into_iter().flatten());
        }
    }
    endless
}

impl Links {
    /// Whether a call for which `holds` is made on this way, whichever branches are taken.
    fn makes(&self, way: &Way, holds: &impl Fn(&LocalCall) -> bool) -> bool {
        way.iter().any(|certain| match certain {
            Certain::Call(index) => holds(&self.calls[*index]),
            Certain::OneOf(ways) => ways.iter().all(|way| self.makes(way, holds)),
        })
    }

    /// The calls on this way, and those in branches if they are asked for.
    fn calls_on<'a>(&'a self, way: &'a Way, in_branches: bool) -> Vec<&'a LocalCall> {
        let calls = way.iter().flat_map(|certain| match certain {
            Certain::Call(index) => vec![&self.calls[*index]],
            Certain::OneOf(ways) if in_branches => {
                ways.iter().flat_map(|way| self.calls_on(way, true)).collect()
            }
            Certain::OneOf(_) => Vec::new(),
        });
        calls.collect()
    }
}

/// A search along the calls that happen for certain, from route to route. It visits each route once, and without
/// recursion: thousands of routes may call one another.
struct Circles<'a> {
    by_address: HashMap<&'a str, &'a Links>,
    endless: HashSet<&'a str>,
    /// Where on the way each route is that was visited; `None`: it is finished.
    places: HashMap<&'a str, Option<usize>>,
    /// The routes on the way to the present one.
    way: Vec<Visit<'a>>,
    errors: ConfigErrors,
}

struct Visit<'a> {
    links: &'a Links,
    /// The call by which it was left.
    call: Option<&'a LocalCall>,
    /// Those by which it is to be left.
    calls: std::vec::IntoIter<&'a LocalCall>,
}

impl<'a> Circles<'a> {
    fn visit(&mut self, links: &'a Links) {
        if !self.places.contains_key(&*links.route) {
            self.enter(links);
        }
        while let Some(visit) = self.way.last_mut() {
            let Some(call) = visit.calls.next() else {
                self.places.insert(&visit.links.route, None);
                self.way.pop();
                continue;
            };
            visit.call = Some(call);
            let Some(called) = self.by_address.get(&*call.address).copied() else { continue };
            match self.places.get(&*called.route) {
                Some(Some(first)) => self.report(*first, call),
                Some(None) => {}
                None => self.enter(called),
            }
        }
    }

    fn enter(&mut self, links: &'a Links) {
        // Of a route that an exchange can leave, a branch that calls back is one of several.
        let calls = links.calls_on(&links.certain, self.endless.contains(&*links.route));
        self.places.insert(&links.route, Some(self.way.len()));
        self.way.push(Visit { links, call: None, calls: calls.into_iter() });
    }

    /// Reports the circle from a route on the way to the last one, whose call closes it.
    fn report(&mut self, first: usize, call: &LocalCall) {
        /// Of a longer circle, so many routes are named.
        const NAMED: usize = 20;
        let circle = &self.way[first..];
        let mut routes =
            circle.iter().take(NAMED).map(|visit| format!("`{}`", visit.links.route)).collect::<Vec<_>>();
        if circle.len() > NAMED {
            routes.push(format!("{} more", circle.len() - NAMED));
        }
        routes.push(routes[0].clone());
        let routes = routes.join(" -> ");
        let dead_letters = circle.iter().any(|visit| visit.call.is_some_and(|call| call.is_dead_letter));
        let (message, help) = if dead_letters {
            (
                "what fails here would come back to the route in which it failed",
                "end the way of dead letters in a route without one of its own",
            )
        } else {
            (
                "every exchange would come back to this route for ever",
                "put one of the calls behind a `filter`, or into a `choice` with a branch that calls nothing, or send to \
                 `seda:` without waiting",
            )
        };
        let error = ConfigError::in_text(&call.uri, format!("{message}: {routes}")).help(help);
        self.errors.push(match circle.last() {
            Some(last) => error.in_route(&last.links.route),
            None => error,
        });
    }
}
