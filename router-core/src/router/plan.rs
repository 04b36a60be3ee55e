//! [`Plan`]: what a set of definitions changes among the routes of a router.

use std::collections::hash_map::Entry as MapEntry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use smol_str::SmolStr;

use super::Entry;
use crate::component::Findings;
use crate::definition::{RouteDefinition, route_ids};
use crate::environment::Environment;
use crate::error::ConfigErrors;
use crate::links::{self, Links};
use crate::route;
use crate::source::SourceText;

/// What a set of definitions changes among the routes of a router. Nothing is changed yet.
pub(super) struct Plan {
    /// The routes of the set, in its order.
    pub(super) routes: Vec<Planned>,
    /// The routes that are not in it.
    pub(super) gone: Vec<Arc<Entry>>,
    /// The warnings, and what is to be done when it is carried out.
    pub(super) findings: Findings,
}

/// A route of the set.
pub(super) enum Planned {
    /// It is there already, and equal.
    Equal(Arc<Entry>),
    Replaced {
        old: Arc<Entry>,
        new: Arc<Entry>,
    },
    New(Arc<Entry>),
}

impl Planned {
    pub(super) fn entry(&self) -> &Arc<Entry> {
        match self {
            Self::Equal(entry) | Self::New(entry) | Self::Replaced { new: entry, .. } => entry,
        }
    }
}

impl Plan {
    /// Compiles what differs from `present`, and checks all together. `errors` are those of a front end; with
    /// `complete`, there are no routes but these.
    ///
    /// # Errors
    /// Every error of every route.
    pub(super) fn new(
        environment: &Environment,
        present: &[Arc<Entry>],
        definitions: Vec<RouteDefinition>,
        mut errors: ConfigErrors,
        complete: bool,
    ) -> Result<Self, ConfigErrors> {
        let (matches, gone) = find_matches(present, &definitions);
        let present = matches.iter().map(|old| old.as_ref().map(|old| old.route.id()));
        let ids = route_ids(definitions.iter().zip(present));
        let (mut failed, mut effects) = (Vec::new(), Vec::new());
        errors.extend(duplicate_ids(&definitions, &ids));
        let mut routes = Vec::with_capacity(definitions.len());
        for ((definition, old), id) in definitions.into_iter().zip(matches).zip(ids) {
            if let Some(old) = old.as_ref().filter(|old| old.definition == definition) {
                routes.push(Planned::Equal(Arc::clone(old)));
                continue;
            }
            match route::compile(environment, &definition, id) {
                Ok((route, found)) => {
                    errors.extend(found.warnings);
                    effects.extend(found.effects);
                    let new = Arc::new(Entry::new(definition, route));
                    routes.push(match old {
                        Some(old) => Planned::Replaced { old, new },
                        None => Planned::New(new),
                    });
                }
                Err(found) => {
                    errors.extend(found.errors);
                    if definition.from.is_none() && !errors.has_errors() {
                        errors.push(links::no_source(&found.links.route));
                    }
                    failed.push(found.links);
                }
            }
        }
        errors.extend(links::check(links_of(&routes).chain(&failed), complete));
        let findings = Findings { warnings: errors.into_warnings()?, effects };
        Ok(Self { routes, gone, findings })
    }

    /// The routes of the set, as they will be.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.routes.iter().map(Planned::entry)
    }

    /// The routes that are there already, and equal.
    pub(super) fn unchanged(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.routes.iter().filter_map(|planned| match planned {
            Planned::Equal(entry) => Some(entry),
            Planned::Replaced { .. } | Planned::New(_) => None,
        })
    }

    /// The old and the new version of each route that is replaced.
    pub(super) fn replaced(&self) -> impl Iterator<Item = (&Arc<Entry>, &Arc<Entry>)> {
        self.routes.iter().filter_map(|planned| match planned {
            Planned::Replaced { old, new } => Some((old, new)),
            Planned::Equal(_) | Planned::New(_) => None,
        })
    }
}

fn links_of(routes: &[Planned]) -> impl Iterator<Item = &Links> + Clone {
    routes.iter().map(|planned| &planned.entry().route.links)
}

/// Which present route each definition is about, and which present routes are about none. Routes are the same that
/// have the same id, or have none and the same source, never because of their place.
fn find_matches(
    present: &[Arc<Entry>],
    definitions: &[RouteDefinition],
) -> (Vec<Option<Arc<Entry>>>, Vec<Arc<Entry>>) {
    let mut candidates = HashMap::<_, Vec<&Arc<Entry>>>::new();
    for entry in present {
        candidates.entry(identity(&entry.definition)).or_default().push(entry);
    }
    let mut matches = vec![None; definitions.len()];
    // Of several without an id that have one source, those that are equal belong together. Among the others there is no
    // telling, and nothing depends on it.
    for among_equals in [true, false] {
        for (definition, found) in definitions.iter().zip(&mut matches).filter(|(_, found)| found.is_none()) {
            let Some(candidates) = candidates.get_mut(&identity(definition)) else { continue };
            let fits = |entry: &&Arc<Entry>| !among_equals || entry.definition == *definition;
            if let Some(position) = candidates.iter().position(fits) {
                *found = Some(Arc::clone(candidates.remove(position)));
            }
        }
    }
    let taken = matches.iter().flatten().map(Arc::as_ptr).collect::<HashSet<_>>();
    let gone = present.iter().filter(|entry| !taken.contains(&Arc::as_ptr(entry))).cloned().collect();
    (matches, gone)
}

/// By what a definition is about the same route as another one: its id, or else its source.
fn identity(definition: &RouteDefinition) -> (Option<&str>, Vec<&str>) {
    match (&definition.id, &definition.from) {
        (Some(id), _) => (Some(id.as_str()), Vec::new()),
        (None, None) => (None, Vec::new()),
        (None, Some(from)) => {
            let options = from.options.iter().flat_map(|(name, value)| [name, value]);
            (None, std::iter::once(&from.uri).chain(options).map(SourceText::as_str).collect())
        }
    }
}

fn duplicate_ids(definitions: &[RouteDefinition], ids: &[SmolStr]) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    let mut first = HashMap::with_capacity(ids.len());
    for (definition, id) in definitions.iter().zip(ids) {
        match first.entry(id) {
            MapEntry::Vacant(entry) => {
                entry.insert(definition.id.as_ref());
            }
            MapEntry::Occupied(first) => {
                errors.push(links::duplicate_id(definition.id.as_ref(), id, *first.get()))
            }
        }
    }
    errors
}

/// Whether the links between these routes hold.
pub(super) fn are_linked<'a>(entries: impl Iterator<Item = &'a Arc<Entry>> + Clone) -> bool {
    !links::check(entries.map(|entry| &entry.route.links), true).has_errors()
}
